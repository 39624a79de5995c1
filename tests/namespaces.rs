//! Two clusters of two nodes, each node a process in a network namespace of its own, with packets dropped between them (issue 4):
//! in one direction, in both, for longer and for shorter than the grace; and a node killed. What holds is what clients see.
//!
//! It takes root, `ip` and `nft`; elsewhere it says so and is over. The thread of the test has a namespace of its own, too, so that
//! its networks meet nobody else's; the nodes' have names with the test's process in them, and go with it.

mod support;

use fanal::admin::client::Client as Admin;
use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Cores, Secret};
use fanal::base::id::{NodeId, UserId};
use fanal::client::{Client, Event, LogIn, Presence};
use fanal::front::token::{Keys, Scope};
use fanal::wire::native::Show;
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::LONG;
use support::served::fanal;

/// The key of log-in tokens, and the token of the admin API, at every node.
const KEY: &str = "the same key at every node, for tests";
const ADMIN: &str = "the same admin token at every node, for tests";
/// Who is gone is shown so in this time (Z13).
const SOON: Duration = Duration::from_secs(3);
/// Above that, for a machine that has other things to do.
const LATE: Duration = Duration::from_secs(2);
/// Shorter than the grace, 2.5 s, but longer than a connection's patience with one lost packet.
const BLINK: Duration = Duration::from_millis(800);

/// A node: the number of its cluster, and its own.
type Place = (u16, u16);
const PLACES: [Place; 4] = [(1, 1), (1, 2), (2, 1), (2, 2)];

/// Runs a command; gives what it wrote.
///
/// Errors: what it wrote instead.
fn run(command: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", command[0]))?;
    child.stdin.take().expect("it was asked for").write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// The namespaces of the nodes, on a bridge in that of the test's thread.
struct Spaces;

impl Spaces {
    /// # Errors
    /// Why there can be none here.
    fn new() -> Result<Spaces, String> {
        run(&["nft", "--version"], "")?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
        run(&["ip", "link", "add", "hub", "type", "bridge"], "")?;
        let spaces = Spaces;
        for words in ["link set lo up", "address add 10.77.0.1/24 dev hub", "link set hub up"] {
            spaces.ip(words)?;
        }
        for place in PLACES {
            let (space, end) = (Spaces::name(place), format!("node{}{}", place.0, place.1));
            spaces.ip(&format!("netns add {space}"))?;
            spaces.ip(&format!("link add {end} type veth peer name eth0 netns {space}"))?;
            spaces.ip(&format!("link set {end} master hub up"))?;
            spaces.ip(&format!("-n {space} address add {}/24 dev eth0", Spaces::host(place)))?;
            spaces.ip(&format!("-n {space} link set eth0 up"))?;
            spaces.ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(spaces)
    }

    fn ip(&self, words: &str) -> Result<String, String> {
        run(&["ip"].into_iter().chain(words.split(' ')).collect::<Vec<_>>(), "")
    }

    fn name((cluster, node): Place) -> String {
        format!("fanal-test-{}-{cluster}{node}", std::process::id())
    }

    fn host((cluster, node): Place) -> String {
        format!("10.77.0.{cluster}{node}")
    }

    /// From now on what these nodes send to those is dropped.
    fn cut(&self, from: &[Place], to: &[Place]) {
        let hosts: Vec<String> = to.iter().copied().map(Spaces::host).collect();
        let table = format!("table inet cut{}{} ", to[0].0, to[0].1);
        let chain = format!("{{ chain out {{ type filter hook output priority 0; ip daddr {{ {} }} drop; }}; }}", hosts.join(", "));
        for place in from {
            run(&["ip", "netns", "exec", &Spaces::name(*place), "nft", "-f", "-"], &(table.clone() + &chain)).unwrap();
        }
    }

    /// Nothing is dropped any more.
    fn heal(&self) {
        for place in PLACES {
            run(&["ip", "netns", "exec", &Spaces::name(place), "nft", "flush", "ruleset"], "").unwrap();
        }
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for place in PLACES {
            // Of those that could not be made there are none.
            let _ = self.ip(&format!("netns delete {}", Spaces::name(place)));
        }
    }
}

/// A running node.
struct Node {
    child: Child,
    place: Place,
}

impl Node {
    fn start(dir: &Path, place: Place) -> Node {
        let file = dir.join(format!("{}-{}.toml", place.0, place.1));
        std::fs::write(&file, toml::to_string(&Node::config(dir, place)).unwrap()).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &Spaces::name(place)]).arg(fanal(&[]).get_program());
        command.args(["serve", "--config", file.to_str().unwrap()]).env_remove("FANAL_CONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(Node::log(dir, place)).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
        let serves = lines.any(|line| line == "serving");
        assert!(serves, "{}", std::fs::read_to_string(Node::log(dir, place)).unwrap());
        Node { child, place }
    }

    fn log(dir: &Path, (cluster, node): Place) -> PathBuf {
        dir.join(format!("{cluster}-{node}.log"))
    }

    fn config(dir: &Path, (cluster, node): Place) -> Config {
        let at = |place: Place, port: u16| -> SocketAddr { format!("{}:{port}", Spaces::host(place)).parse().unwrap() };
        let peers = |of: u16| {
            let places = PLACES.into_iter().filter(|place| place.0 == of);
            places.map(|place| Peer { node: NodeId(place.1), address: at(place, 7402) }).collect()
        };
        let mut config = Config::default();
        config.node.data = dir.join(format!("{cluster}-{node}"));
        let processors = fanal::drive::pin::processors();
        let core = usize::from(cluster * 2 + node) % processors.len();
        config.node.cores = Cores::These(vec![processors[core].id as u16]);
        config.listen.native = at((cluster, node), 7400);
        config.listen.admin = at((cluster, node), 7401);
        config.listen.admin_token = Some(Secret::new(ADMIN).unwrap());
        config.login.token_keys = vec![Secret::new(KEY).unwrap()];
        config.login.plain = true;
        (config.cluster.number, config.cluster.node, config.cluster.nodes) = (Some(cluster), Some(node), peers(cluster));
        config.directory.cluster = Some(1);
        if cluster != 1 {
            config.directory.at = peers(1);
        }
        config.link.plain = true;
        config
    }

    fn admin(&self) -> Admin {
        let address = format!("{}:7401", Spaces::host(self.place)).parse().unwrap();
        Admin::new(address, Some(Secret::new(ADMIN).unwrap()))
    }

    /// Waits until it has found all others.
    fn finds_all(&self) {
        eventually(|| {
            let nodes = self.admin().cluster().unwrap().nodes;
            let found = nodes.iter().filter(|node| node.found).count();
            (found == PLACES.len() - 1).then_some(()).ok_or_else(|| format!("{:?} has found {found}", self.place))
        });
    }

    /// A user whose home is here, logged in here.
    fn user(&self, kind: &str) -> User {
        let mut tried = 0;
        let jid = eventually(|| {
            tried += 1;
            let jid = format!("{kind}{tried}@localhost");
            self.admin().add_user(&jid, None).map_err(|error| error.to_string())?;
            let users = self.admin().users(None, 1_000, None).map_err(|error| error.to_string())?.users;
            let node = users.iter().find(|user| user.jid == jid).map(|user| user.node);
            (node == Some(self.place.1)).then_some(jid).ok_or_else(|| format!("{kind} is at {node:?}"))
        });
        User { client: self.log_in(&jid), jid, names: BTreeMap::new(), seen: BTreeMap::new() }
    }

    fn log_in(&self, jid: &str) -> Client {
        let address = format!("{}:7400", Spaces::host(self.place));
        let bare = fanal::base::jid::Bare::new(jid).unwrap();
        let token = Keys::new([KEY]).unwrap().sign(Scope::User(&bare), fanal::base::time::WallClock(u64::MAX)).unwrap();
        eventually(|| {
            let mut client = Client::connect(&address, LONG).map_err(|error| error.to_string())?;
            client.log_in(jid, LogIn::Token(&token), "desk").map_err(|error| error.to_string())?;
            client.set_presence(&Presence::default()).map_err(|error| error.to_string())?;
            Ok(client)
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already if the test has killed it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries until it works.
fn eventually<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + LONG;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(why) => assert!(Instant::now() < end, "{why}"),
        }
    }
}

/// A user with one session, and what it has been shown of others.
struct User {
    client: Client,
    jid: String,
    names: BTreeMap<UserId, String>,
    seen: BTreeMap<String, Vec<Show>>,
}

impl User {
    fn show(&mut self, show: Show) {
        self.client.set_presence(&Presence { show, ..Presence::default() }).unwrap();
    }

    /// Sees another one from now on.
    fn befriend(&mut self, other: &mut User) {
        let jid = self.jid.clone();
        self.client.subscribe(&other.jid, "").unwrap();
        support::until(&mut other.client, |event| match event {
            Event::Subscription(request) if request.jid == jid => Some(()),
            _ => None,
        });
        other.client.approve(&jid).unwrap();
        self.sees(other, Show::Available);
    }

    /// Takes what has come, or comes within this time. False: nothing has.
    fn hear(&mut self, patience: Duration) -> bool {
        let Some(event) = self.client.next_event(patience).unwrap() else { return false };
        match event {
            Event::RosterPush(contact) => _ = self.names.insert(contact.user, contact.jid),
            Event::Presence(event) => {
                let name = match self.names.get(&event.user) {
                    Some(name) => name.clone(),
                    None => {
                        let roster = self.client.roster().unwrap();
                        self.names.extend(roster.into_iter().map(|contact| (contact.user, contact.jid)));
                        self.names[&event.user].clone()
                    }
                };
                self.seen.entry(name).or_default().push(event.show);
            }
            _ => {}
        }
        true
    }

    /// Waits until it is shown that. Gives what it was shown of the other one since the last call.
    fn sees(&mut self, other: &User, show: Show) -> Vec<Show> {
        let end = Instant::now() + LONG;
        while self.seen.get(&other.jid).and_then(|seen| seen.last()) != Some(&show) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(self.hear(left), "{} never saw {} {show:?}, but {:?}", self.jid, other.jid, self.seen.get(&other.jid));
        }
        std::mem::take(self.seen.get_mut(&other.jid).expect("just seen"))
    }

    /// That it was shown nothing of the other one since.
    fn has_seen_nothing_of(&mut self, other: &User) {
        // The node has said all that it had to say before it answers.
        self.client.ping().unwrap();
        while self.hear(Duration::ZERO) {}
        assert_eq!(self.seen.get(&other.jid).map_or(&[][..], |seen| seen), [], "{} of {}", self.jid, other.jid);
    }
}

/// Everybody sees everybody else's next state.
fn all_see_all(users: &mut [User], show: Show) {
    users.iter_mut().for_each(|user| user.show(show));
    for one in 0..users.len() {
        let (before, rest) = users.split_at_mut(one);
        let (user, behind) = rest.split_first_mut().unwrap();
        before.iter().chain(&*behind).for_each(|other| _ = user.sees(other, show));
    }
}

/// What a cut does to a user of one node who watches one of another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Parts,
    LeavesAlone,
    /// Who stands for the other one here may be at a node that can't be reached any more.
    MayPart,
}

/// Those who are parted are shown to each other as gone, once and soon; when that is over, as they are then.
fn are_gone_and_come_back(spaces: &Spaces, users: &mut [User], does: impl Fn(Place, Place) -> Cut, cut: impl Fn(&Spaces)) {
    let began = Instant::now();
    cut(spaces);
    let all = (0..PLACES.len()).flat_map(|one| (0..PLACES.len()).filter(move |other| *other != one).map(move |other| (one, other)));
    let all: Vec<(usize, usize)> = all.collect();
    let does = |pair: &(usize, usize)| does(PLACES[pair.0], PLACES[pair.1]);
    let those = |wanted: Cut| all.iter().copied().filter(|pair| does(pair) == wanted).collect::<Vec<_>>();
    let [parted, alone, perhaps] = [Cut::Parts, Cut::LeavesAlone, Cut::MayPart].map(those);
    let mut heard = Vec::new();
    for &(one, other) in &parted {
        let [user, other] = users.get_disjoint_mut([one, other]).unwrap();
        assert_eq!(user.sees(other, Show::Unavailable), [Show::Unavailable], "{} of {}", user.jid, other.jid);
        heard.push((user.jid.clone(), other.jid.clone(), began.elapsed()));
    }
    assert!(began.elapsed() < SOON + LATE, "who heard of whom, and after how long: {heard:?}");
    // Nobody hears of it where it happens.
    users.iter_mut().for_each(|user| user.show(Show::Away));
    for (one, other) in alone {
        let [user, other] = users.get_disjoint_mut([one, other]).unwrap();
        assert_eq!(user.sees(other, Show::Away), [Show::Away], "{} of {}", user.jid, other.jid);
    }
    for &(one, other) in &parted {
        let [user, other] = users.get_disjoint_mut([one, other]).unwrap();
        user.has_seen_nothing_of(other);
    }
    spaces.heal();
    for (one, other) in parted {
        let [user, other] = users.get_disjoint_mut([one, other]).unwrap();
        assert_eq!(user.sees(other, Show::Away), [Show::Away], "{} of {}", user.jid, other.jid);
    }
    for (one, other) in perhaps {
        let [user, other] = users.get_disjoint_mut([one, other]).unwrap();
        user.sees(other, Show::Away);
    }
    all_see_all(users, Show::Available);
}

/// Rows Z13, Z6, Z7, Z8.
#[test]
fn z13_users_are_shown_as_gone_once_and_soon_and_as_they_are_when_packets_pass_again() {
    let spaces = match Spaces::new() {
        Ok(spaces) => spaces,
        Err(why) => return eprintln!("skipped, for it takes network namespaces (root, iproute2, nftables): {why}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = PLACES.map(|place| Node::start(dir.path(), place));
    nodes.iter().for_each(Node::finds_all);
    let mut users: Vec<User> = nodes.iter().zip(["ann", "bob", "eve", "joe"]).map(|(node, kind)| node.user(kind)).collect();
    for one in 0..users.len() {
        for other in (0..users.len()).filter(|other| *other != one) {
            let [user, other] = users.get_disjoint_mut([one, other]).unwrap();
            user.befriend(other);
        }
    }
    all_see_all(&mut users, Show::Chat);
    let [here, there] = [&PLACES[..2], &PLACES[2..]];
    // A cut between the clusters that is shorter than the grace: what changes meanwhile is shown behind it, and nothing else.
    spaces.cut(here, there);
    spaces.cut(there, here);
    let healed = Instant::now() + BLINK;
    users.iter_mut().for_each(|user| user.show(Show::Away));
    std::thread::sleep(healed - Instant::now());
    spaces.heal();
    for one in 0..users.len() {
        for other in (0..users.len()).filter(|other| *other != one) {
            let [user, other] = users.get_disjoint_mut([one, other]).unwrap();
            assert_eq!(user.sees(other, Show::Away), [Show::Away], "{} of {}", user.jid, other.jid);
        }
    }
    all_see_all(&mut users, Show::Available);
    let clusters = |one: Place, other: Place| if one.0 != other.0 { Cut::Parts } else { Cut::LeavesAlone };
    are_gone_and_come_back(&spaces, &mut users, clusters, |spaces| {
        spaces.cut(here, there);
        spaces.cut(there, here);
    });
    // In one direction alone.
    are_gone_and_come_back(&spaces, &mut users, clusters, |spaces| spaces.cut(there, here));
    // Within a cluster, in one direction; there is no way by the other cluster.
    let inside = |one: Place, other: Place| match (one.0, other.0) {
        (1, 1) => Cut::Parts,
        (2, 2) => Cut::LeavesAlone,
        _ => Cut::MayPart,
    };
    are_gone_and_come_back(&spaces, &mut users, inside, |spaces| spaces.cut(&PLACES[..1], &PLACES[1..2]));
    // A node that is killed, and comes back with its users.
    let killed = Instant::now();
    let (last, rest) = users.split_last_mut().unwrap();
    nodes[3].child.kill().unwrap();
    for user in rest.iter_mut() {
        assert_eq!(user.sees(last, Show::Unavailable), [Show::Unavailable], "{}", user.jid);
    }
    assert!(killed.elapsed() < SOON + LATE, "it took {:?}", killed.elapsed());
    nodes[3].child.wait().unwrap();
    nodes[3] = Node::start(dir.path(), PLACES[3]);
    last.client = nodes[3].log_in(&last.jid);
    last.seen.clear();
    for user in rest.iter_mut() {
        assert_eq!(user.sees(last, Show::Available), [Show::Available], "{}", user.jid);
        last.sees(user, Show::Available);
    }
    all_see_all(&mut users, Show::Chat);
}
