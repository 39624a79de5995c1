//! A node of the directory, and nodes of a cluster that is about to log in: real shards in memory, spoken to in a link's own bytes.

use fanal::base::config::{Compression, Link};
use fanal::base::id::{ConnId, CoreId, NodeId};
use fanal::base::limits::Limits;
use fanal::base::secrets::Secrets;
use fanal::base::time::{Time, WallClock};
use fanal::front::doors::{Doors, Speaks};
use fanal::front::sasl::Decoys;
use fanal::front::token::Keys;
use fanal::link;
use fanal::link::classify::Policy;
use fanal::metrics::meter::Units;
use fanal::ownership::clusters::{Cluster, Place};
use fanal::presence::home;
use fanal::shard::{Between, LinkTerms, Settings, Shard};
use fanal::wire::frame::each_whole;
use fanal::wire::link::{Frame, Hello, Life, Purpose, Site, read};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const DIRECTORY: Site = Site { cluster: 1, node: NodeId(1) };

fn directory() -> Shard {
    let (limits, domain) = (Arc::new(Limits::default()), "d".to_owned());
    let link = Link { compression: Compression::None, ..Link::default() };
    let place = Place { domains: vec![domain.clone()], nodes: Vec::new() };
    let between = Between {
        own: Cluster { number: 1, identity: Between::short(&[1; 32]), place },
        identity: [1; 32],
        directory: 1,
        is_shared: false,
        at: Vec::new(),
        policy: Policy::new(std::iter::empty()),
        link: link.clone(),
        dictionary: Vec::new(),
    };
    let (settings, peers) = (link::Settings::new(&link, &limits), Vec::new());
    let terms = LinkTerms { me: DIRECTORY, epoch: 1, digest: [7; 32], settings, peers, between: Some(between), inline_max: 4096 };
    let settings = Settings {
        links: Some(Arc::new(terms)),
        node: DIRECTORY.node,
        core: CoreId(0),
        cores: 1,
        domain: domain.clone(),
        limits: limits.clone(),
        token_keys: Keys::default(),
        trunk_keys: Keys::default(),
        doors: Doors { listeners: vec![Speaks::Link], ..Doors::default() },
        plain: true,
        open_registration: false,
        hook: false,
        decoys: Decoys::new([7; 32]),
        sample: 0,
        units: Units::default(),
        clock: || Time(0),
    };
    let place = home::Place { cluster: 1, directory: 1, epoch: 1, domain, limits, wall_at_zero: WallClock(0) };
    Shard::new(settings, place, Secrets::from_number(1))
}

/// A node of the second cluster says hello by the lane by which clusters log in.
fn hello(shard: &mut Shard, now: Time, node: u16) -> ConnId {
    let conn = shard.accepted(now, IpAddr::V4(Ipv4Addr::LOCALHOST), 0).expect("there is room");
    let from = Site { cluster: 2, node: NodeId(node) };
    let (purpose, life, known, digest) = (Purpose::Between, Life { epoch: 1, term: 0 }, None, [2; 32]);
    let hello = Hello { from, to: DIRECTORY, purpose, cores: 1, lane: 0, attempt: 1, life, known, received: 0, digest };
    shard.received(now, conn, &Frame::Hello(hello).encode());
    let said = said(shard, now, conn);
    assert!(matches!(frames(&said)[..], [Frame::Welcome(_), ..]), "node {node} is let in");
    conn
}

/// What the directory has said to a connection since.
fn said(shard: &mut Shard, now: Time, conn: ConnId) -> Vec<u8> {
    shard.turn(now);
    shard.send_to_peers(now);
    let bytes = shard.take(now, conn.slot).unwrap_or_default();
    shard.out.lines.sent(conn.slot, bytes.clone());
    bytes
}

fn frames(bytes: &[u8]) -> Vec<Frame<'_>> {
    each_whole(bytes).map(|frame| read(&frame).expect("it is sound")).collect()
}

/// Z2: nodes of a cluster log in one by one. One that goes away before the cluster is known takes nothing from the others.
#[test]
fn z2_a_node_that_goes_away_while_its_cluster_logs_in_leaves_the_lanes_of_the_others() {
    let (mut shard, start) = (directory(), Time(1_000_000_000));
    let (stays, goes) = (hello(&mut shard, start, 1), hello(&mut shard, start, 2));
    shard.lost(start, goes);
    shard.out.lines.release(goes.slot, None);
    let (grace, step) = (Duration::from_millis(u64::from(Link::default().grace_ms)), Duration::from_millis(100));
    let mut now = start;
    while now < start + grace + 10 * step {
        now = now + step;
        shard.received(now, stays, &Frame::Ping(now.0).encode());
        let said = said(&mut shard, now, stays);
        let answers = frames(&said);
        assert!(answers.contains(&Frame::Pong(now.0)), "at {now:?} it says {answers:?}");
    }
    let given_up = Site { cluster: 2, node: NodeId(2) };
    assert!(
        shard.link_report().peers.get(&given_up).is_none_or(|peer| peer.life.is_none()),
        "the other one was given up meanwhile"
    );
}
