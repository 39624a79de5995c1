//! The targets for what other nodes and clusters send.

use fanal::base::config::Link;
use fanal::base::id::{CoreId, NodeId};
use fanal::base::limits::{COMPLEX_BYTES, COMPLEX_ITEMS, Limits};
use fanal::base::map::Map;
use fanal::base::random::Random;
use fanal::base::reason::LinkReason;
use fanal::base::time::Time;
use fanal::link::{Ends, Incoming, Machine, Notice, Settings};
use fanal::ownership::clusters::{self, Clusters};
use fanal::presence::border;
use fanal::wire::complex::Unpacker;
use fanal::wire::frame::{Chunk, Frames};
use fanal::wire::lines::Lines;
use fanal::wire::link::{self, Frame, Hello, Site};
use fanal::wire::presence;
use std::cell::RefCell;

/// Reads every frame of a lane; what is taken is what a writer would write, bar reasons of later versions.
pub fn link(data: &[u8]) {
    let _ = Hello::peek(data);
    let (mut frames, mut chunk) = (Frames::default(), Chunk::new(data));
    let mut rest = data;
    while let Ok(Some(frame)) = frames.next(&mut chunk, 4096) {
        let (bytes, after) = rest.split_at(frame.header.frame_bytes());
        rest = after;
        match link::read(&frame) {
            Err(_) | Ok(Frame::Refusal(LinkReason::Other) | Frame::Bye(LinkReason::Other)) => {}
            Ok(frame) => assert_eq!(frame.encode(), bytes),
        }
    }
}

/// Gives a lane's machine these bytes, in two pieces, at the end that dials or at the other one, as the first byte says. Whatever
/// it makes of them is bounded.
pub fn lane(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else { return };
    let limits = Limits { trunk_high_water_bytes: 4096, ..Limits::default() };
    let settings = Settings::new(&Link { entries: 16, entry_bytes: 65_536, ..Link::default() }, &limits);
    let (low, high) = (Site { cluster: 1, node: NodeId(1) }, Site { cluster: 1, node: NodeId(2) });
    let (me, peer) = if how & 1 == 0 { (high, low) } else { (low, high) };
    let ends = Ends { me, peer, lane: 0, cores: 2, epoch: 9, digest: [0; 32], dials: how & 1 != 0 };
    let (mut machine, mut lines) = (Machine::new(Time(0), ends, settings, Random::new(1)), Lines::default());
    let conn = lines.open(settings.marks());
    match how & 2 == 0 {
        true => machine.accepted(Time(1), conn, &mut lines),
        false => machine.dialled(Time(1), conn, &mut lines),
    }
    let cut = usize::from(how >> 2).min(stream.len());
    for (at, piece) in [&stream[..cut], &stream[cut..]].into_iter().enumerate() {
        let (now, mut chunk) = (Time(2 + at as u64), Chunk::new(piece));
        let (mut entries, mut lost) = (0, 0);
        while let Some(incoming) = machine.next(now, conn, &mut chunk, &mut lines) {
            match incoming {
                Incoming::Notice(Notice::Lost { .. }) => lost += 1,
                Incoming::Entry(_) | Incoming::Complex(_) => entries += 1,
                _ => {}
            }
            assert!(lost <= 1 && entries <= stream.len() / 16 + 1);
        }
        while machine.send(b"entry", &mut lines).is_ok() {}
        assert!(machine.kept().0 <= 16 && lines.backlog(conn) <= settings.marks().most as usize);
        machine.tick(Time(3 + at as u64), &mut lines);
    }
    assert!(machine.deadline() > Time(0));
}

/// What another cluster says to this one, which keeps the directory. What is let in is for a core that is there, comes under a
/// name only where that can be asked about, and says the same when it is read again.
pub fn border(data: &[u8]) {
    let Some((&from, said)) = data.split_first() else { return };
    let Ok(crossing) = border::decode(said) else { return };
    let mut map = Map::alone(CoreId(0), 2);
    (map.cluster, map.directory) = (1, 1);
    let from = 2 + u16::from(from % 2);
    if crossing.check(from, &map, &Limits::default()).is_err() {
        return;
    }
    for (seat, crossing) in crossing.spread(&map) {
        assert!(map.has(seat) && map.has(crossing.target(&map)));
        assert!(crossing.speaker().is_none_or(|jid| map.home_of(jid) == seat));
        let _ = (crossing.addressee(), crossing.takes_leave(), crossing.asker(from));
        if let Some(bytes) = border::encode(crossing.enter(from), from, Vec::new()) {
            assert!(border::decode(&bytes).is_ok());
        }
    }
}

/// What a cluster says of itself when it logs in, and what the directory tells of all: what is taken in makes sense, is bounded, and
/// is stored and told as it was.
pub fn clusters(data: &[u8]) {
    let mut table = Clusters::default();
    if let Some(place) = clusters::read_place(data)
        && let Ok(cluster) = table.claim(None, 7, place)
    {
        table.put(cluster);
    }
    clusters::read_clusters(data).into_iter().flatten().for_each(|cluster| _ = table.put(cluster));
    let told = clusters::write_clusters(table.others(0), Vec::new());
    let again = clusters::read_clusters(&told).expect("what was taken in makes sense");
    assert!(again.iter().eq(table.others(0)) && again.len() == table.count());
    let mut stored = Clusters::default();
    for cluster in &again {
        let row = clusters::row(cluster.number, Some(cluster));
        stored.load(&row.key, &row.value.expect("it's there")).expect("what was stored can be read");
        assert!(cluster.place.nodes.len() <= clusters::CLUSTER_NODES && cluster.place.domains.len() <= clusters::CLUSTER_DOMAINS);
    }
    assert_eq!(stored, table);
}

/// Unpacks a complex message. What it gives is bounded by what it may claim, and sound.
pub fn complex(data: &[u8]) {
    thread_local! {
        static UNPACKER: RefCell<Unpacker> = RefCell::new(Unpacker::new(b"a dictionary").expect("zstd takes any"));
    }
    UNPACKER.with_borrow_mut(|unpacker| unpack(unpacker, data));
}

fn unpack(unpacker: &mut Unpacker, data: &[u8]) {
    let Ok(complex) = unpacker.unpack(data) else { return };
    let bytes = complex.others().map(<[u8]>::len).sum::<usize>();
    assert!(bytes <= COMPLEX_BYTES as usize && complex.others().len() <= COMPLEX_ITEMS as usize);
    assert!(complex.updates().len() <= COMPLEX_ITEMS as usize);
    for (_, presence) in complex.updates() {
        assert!(presence.is_empty() || presence::read(presence).is_ok());
    }
}
