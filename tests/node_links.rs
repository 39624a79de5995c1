//! Links between nodes inside TLS, over real sockets, with certificates that the commands have made (Z2, G4).

mod support;

use fanal::admin::client::Client as Admin;
use fanal::base::config::cluster::Peer;
use fanal::base::config::{Config, Secret};
use fanal::base::id::{NodeId, slot_of};
use fanal::base::reason::LinkReason;
use fanal::client::{Client, Event, LogIn, Presence};
use fanal::wire::link::{Frame, Hello, Life, Purpose, Site};
use fanal::wire::native::Show;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use support::clusters::peers;
use support::served::fanal;
use support::{LONG, TestNode, config, until};

/// Runs a command that makes files, and gives what it says.
fn make(args: &[&str]) -> String {
    let output = fanal(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A cluster of two nodes, with an authority and a certificate for each node number asked for.
struct Cluster {
    dir: tempfile::TempDir,
    peers: Vec<Peer>,
}

impl Cluster {
    fn new() -> Cluster {
        let cluster = Cluster { dir: tempfile::tempdir().unwrap(), peers: peers(2) };
        make(&["link", "ca", "--out", cluster.at("ca").to_str().unwrap()]);
        cluster
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for this node number, in a directory of this name.
    fn certificate(&self, node: u16, out: &str) {
        let (ca, out) = (self.at("ca"), self.at(out));
        let (ca, out, node) = (ca.to_str().unwrap(), out.to_str().unwrap(), node.to_string());
        make(&["link", "certificate", "--ca", ca, "--cluster", "1", "--node", &node, "--out", out]);
    }

    /// A node's configuration; its certificate is in this directory, if it has one.
    fn config(&self, node: u16, files: Option<&str>) -> Config {
        let mut config = config(1);
        (config.cluster.number, config.cluster.node) = (Some(1), Some(node));
        config.cluster.nodes = self.peers.clone();
        config.login.token_keys = vec![Secret::new("the same key at every node, for tests").unwrap()];
        config.listen.admin = "127.0.0.1:0".parse().unwrap();
        if let Some(files) = files {
            config.link.ca = Some(self.at("ca").join("ca.pem"));
            config.link.certificate = Some(self.at(files).join("node.pem"));
            config.link.key = Some(self.at(files).join("node.key"));
        }
        config
    }

    /// What a node of this name answers to whoever has the certificate in a directory and says these bytes, until it closes.
    fn speak(&self, files: &str, to: Site, bytes: &[u8]) -> Vec<u8> {
        let read = |path: PathBuf| fs::read(path).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&read(self.at("ca").join("ca.pem"))).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&read(self.at(files).join("node.pem"))).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&read(self.at(files).join("node.key"))).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let config = Arc::new(builder.with_client_auth_cert(chain, key).unwrap());
        let session = ClientConnection::new(config, to.certified_name().try_into().unwrap()).unwrap();
        let address = self.peers.iter().find(|peer| peer.node == to.node).unwrap().address;
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        stream.write_all(bytes).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        said
    }
}

/// Since when the first other node is as it is, in what a node says of its links.
fn since(said: &str) -> Option<&str> {
    said.split("\"since_ms\":").nth(1)?.split(',').next()
}

/// A user of node 1 at node 1, and one of node 2 at node 2.
fn users(one: &TestNode, two: &TestNode) -> [(String, Client); 2] {
    let name = |node: usize| (0..).map(|n| format!("u{n}@localhost")).find(|name| usize::from(slot_of(name)) % 2 == node).unwrap();
    [(one, 0), (two, 1)].map(|(node, home)| {
        let jid = name(home);
        let mut client = node.connect();
        client.log_in(&jid, LogIn::Token(&node.token(&jid)), "desk").unwrap();
        client.set_presence(&Presence::default()).unwrap();
        (jid, client)
    })
}

/// Users of both nodes make friends and see each other, once the link is there.
fn see_each_other(one: &TestNode, two: &TestNode) -> [Client; 2] {
    let [(ann, mut at_one), (bob, mut at_two)] = users(one, two);
    at_one.subscribe(&bob, "").unwrap();
    until(&mut at_two, |event| matches!(event, Event::Subscription(_)).then_some(()));
    at_two.approve(&ann).unwrap();
    let mut sees =
        |show: Show| until(&mut at_one, |event| matches!(event, Event::Presence(event) if event.show == show).then_some(()));
    sees(Show::Available);
    at_two.set_presence(&Presence { show: Show::Away, ..Presence::default() }).unwrap();
    sees(Show::Away);
    [at_one, at_two]
}

/// Asks a node until what it says of its links has all these words in it.
fn says(admin: SocketAddr, words: &[&str]) -> String {
    let (end, admin) = (Instant::now() + LONG, Admin::new(admin, None));
    loop {
        let said = admin.get("/cluster").unwrap();
        if words.iter().all(|word| said.contains(word)) {
            return said;
        }
        assert!(Instant::now() < end, "{words:?} are not in {said}");
        std::thread::yield_now();
    }
}

fn start(config: &Config) -> (TestNode, SocketAddr) {
    let mut node = TestNode::start(config);
    let admin = node.0.as_mut().unwrap().start_admin(config).unwrap();
    (node, admin)
}

/// Z2, G4: and they listen where they are told to.
#[test]
fn z2_nodes_with_certificates_of_one_authority_see_each_others_users() {
    let cluster = Cluster::new();
    cluster.certificate(1, "one");
    cluster.certificate(2, "two");
    let mut config = cluster.config(2, Some("two"));
    config.link.listen = Some(cluster.peers[1].address);
    // Nobody listens at what node 2 calls itself: the others know better.
    config.cluster.nodes[1].address.set_port(1);
    let ((one, _), (two, _)) = (start(&cluster.config(1, Some("one"))), start(&config));
    see_each_other(&one, &two);
}

/// Z2: node 3's certificate in node 2's hands. Node 2 would not even start with it, so it says to be node 3 and answers for node 2.
#[test]
fn z2_a_node_with_anothers_certificate_stays_out_and_both_say_why() {
    let cluster = Cluster::new();
    cluster.certificate(1, "one");
    cluster.certificate(3, "three");
    let refused = fanal::node::Node::start(&cluster.config(2, Some("three"))).err().expect("refused").to_string();
    assert!(refused.contains("node-2.cluster-1.fanal") && refused.contains("fanal link certificate"), "{refused}");
    let mut config = cluster.config(3, Some("three"));
    config.cluster.nodes[1].node = NodeId(3);
    let ((_one, at_one), (_three, at_three)) = (start(&cluster.config(1, Some("one"))), start(&config));
    says(at_one, &["TLS has failed", "node-2.cluster-1.fanal", "\"found\":false"]);
    says(at_three, &["from 127.0.0.1: TLS has failed", "\"found\":false"]);
}

/// Z2: a node with a certificate of the same authority says to be another one. It gets nothing but the reason, and what it says is
/// counted; the node that it wanted to be stays in.
#[test]
fn z2_a_hello_that_is_not_its_certificates_is_refused_and_counted() {
    let cluster = Cluster::new();
    for (node, out) in [(1, "one"), (2, "two"), (3, "three")] {
        cluster.certificate(node, out);
    }
    let ((_one, at_one), (_two, at_two)) = (start(&cluster.config(1, Some("one"))), start(&cluster.config(2, Some("two"))));
    let before = says(at_two, &["\"found\":true"]);
    let [one, two] = [1, 2].map(|node| Site { cluster: 1, node: NodeId(node) });
    let foreign = Site { cluster: 2, ..one };
    for from in [one, foreign] {
        let hello = Hello {
            from,
            to: two,
            purpose: Purpose::of(from, two),
            cores: 1,
            lane: 0,
            attempt: 9,
            life: Life { epoch: u64::MAX, term: 0 },
            known: None,
            received: 0,
            digest: [0; 32],
        };
        let said = cluster.speak("three", two, &Frame::Hello(hello).encode());
        assert_eq!(said, Frame::Refusal(LinkReason::WrongCertificate).encode());
    }
    let after = says(at_two, &["\"wrong_certificate\":2", "the certificate of yet another one"]);
    assert_eq!(since(&before), since(&after), "the link with the real one stays");
    says(at_one, &["\"found\":true"]);
}

/// Z2: TLS at one end only is no link, whichever end that is.
#[test]
fn z2_a_node_without_tls_stays_out_and_both_say_why() {
    for tls_at in [1, 2] {
        let cluster = Cluster::new();
        cluster.certificate(tls_at, "own");
        let nodes = [1, 2].map(|node| start(&cluster.config(node, (node == tls_at).then_some("own"))));
        for (_, admin) in &nodes {
            says(*admin, &["inside TLS and the other one in the clear", "\"found\":false"]);
        }
    }
}

/// Z2: POST /certificate. A node whose certificate was of the wrong authority gets in with another one; the first stays up.
#[test]
fn z2_certificates_are_read_again_and_new_connections_go_by_them() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    cluster.certificate(1, "one");
    cluster.certificate(2, "two");
    other.certificate(2, "two");
    let copy = |from: &Path, to: &Path| {
        for file in ["node.pem", "node.key"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
    };
    let (own, right) = (cluster.at("two"), cluster.at("right"));
    fs::create_dir(&right).unwrap();
    copy(&own, &right);
    copy(&other.at("two"), &own);
    let mut config = cluster.config(2, Some("two"));
    config.link.ca = Some(cluster.at("both.pem"));
    let authorities = [&cluster, &other].map(|cluster| fs::read_to_string(cluster.at("ca").join("ca.pem")).unwrap());
    fs::write(cluster.at("both.pem"), authorities.concat()).unwrap();
    let ((one, at_one), (two, at_two)) = (start(&cluster.config(1, Some("one"))), start(&config));
    says(at_one, &["TLS has failed", "UnknownIssuer"]);
    fs::write(own.join("node.pem"), "nonsense").unwrap();
    let refused = Admin::new(at_two, None).reload_certificate().unwrap_err().to_string();
    assert!(refused.contains("node.pem") && refused.contains("stays as it was"), "{refused}");
    copy(&right, &own);
    let said = Admin::new(at_two, None).reload_certificate().unwrap();
    assert!(said.contains("links by the certificate in") && said.contains("node.pem"), "{said}");
    says(at_one, &["\"found\":true"]);
    see_each_other(&one, &two);
    let before = says(at_one, &["\"found\":true"]);
    Admin::new(at_one, None).reload_certificate().unwrap();
    assert_eq!(since(&before), since(&says(at_one, &["\"found\":true"])), "the link that is up stays");
}

/// Z2: what goes over a network in the clear is a fault that names the fix, unless it is asked for.
#[test]
fn z2_a_plain_address_on_a_network_is_a_fault() {
    let text = "[cluster]\nnumber = 9\nnode = 1\nnodes = [\"1=127.0.0.1:7402\", \"2=192.0.2.1:7403\"]\n[link]\n";
    let refused = Config::parse("fanal.toml", text).unwrap_err().to_string();
    for word in ["cluster.nodes", "192.0.2.1:7403", "fanal link ca", "fanal link certificate"] {
        assert!(refused.contains(word), "{refused}");
    }
    Config::parse("fanal.toml", &format!("{text}plain = true")).unwrap();
    Config::parse("fanal.toml", &format!("{text}ca = \"a\"\ncertificate = \"b\"\nkey = \"c\"")).unwrap();
    let half = Config::parse("fanal.toml", &format!("{text}ca = \"a\"\nkey = \"c\"")).unwrap_err().to_string();
    assert!(half.contains("link.ca: there is no link.certificate to it"), "{half}");
    let listen = "[link]\nlisten = \"0.0.0.0:7402\"";
    assert!(Config::parse("fanal.toml", listen).unwrap_err().to_string().contains("link.listen"));
}

/// G5: a certificate for links that ends soon is measured and warned of as the other one is.
#[test]
fn g5_a_link_certificate_that_ends_soon_is_said_to_and_measured() {
    let cluster = Cluster::new();
    let (ca, out) = (cluster.at("ca"), cluster.at("one"));
    let (ca, out) = (ca.to_str().unwrap(), out.to_str().unwrap());
    make(&["link", "certificate", "--ca", ca, "--cluster", "1", "--node", "1", "--out", out, "--days", "5"]);
    let (node, admin) = start(&cluster.config(1, Some("one")));
    let said = &node.node().certificate;
    assert!(said.contains("node.pem; it ends in ") && said.contains("other nodes will refuse it"), "{said}");
    let metrics = Admin::new(admin, None).get("/metrics").unwrap();
    let left = metrics.lines().find_map(|line| line.strip_prefix("fanal_link_certificate_seconds_left ")).expect("it is measured");
    assert!((4 * 86_400..=5 * 86_400).contains(&left.parse::<i64>().unwrap()), "{left}");
}

/// G5: what people and Prometheus are told of the links, at both ends and of two lanes.
#[test]
fn g5_the_links_are_shown_as_a_table_and_measured() {
    let cluster = Cluster::new();
    cluster.certificate(1, "one");
    cluster.certificate(2, "two");
    let mut config = cluster.config(2, Some("two"));
    config.node.cores = support::config(2).node.cores;
    let ((one, at_one), (two, at_two)) = (start(&cluster.config(1, Some("one"))), start(&config));
    let _here = see_each_other(&one, &two);
    for (admin, other, own) in [(at_one, 1, 0), (at_two, 0, 1)] {
        let address = admin.to_string();
        let table = make(&["cluster", "status", "--admin", &address]);
        let line =
            |node: usize| table.lines().find(|line| line.starts_with(&format!("node {} ", node + 1))).expect("it has a line");
        assert!(line(own).contains("this node") && line(own).contains(&cluster.peers[own].address.to_string()), "{table}");
        assert!(line(other).contains(&cluster.peers[other].address.to_string()) && line(other).contains(" found "), "{table}");
        assert!(line(other).contains("2 of 2") && table.contains("inside TLS"), "{table}");
        let status = Admin::new(admin, None).cluster().unwrap();
        assert_eq!((status.cluster, status.node as usize, status.nodes.len()), (1, own + 1, 1));
        assert!(status.nodes[0].epoch.is_some() && status.nodes[0].since_ms.is_some());
        let json = make(&["cluster", "status", "--json", "--admin", &address]);
        assert!(json.contains("\"link_entries_sent\":"), "{json}");
        let metrics = Admin::new(admin, None).get("/metrics").unwrap();
        let value = |name: &str| -> u64 {
            let name = format!("{name}{{node=\"{}\"}} ", other + 1);
            let line = metrics.lines().find_map(|line| line.strip_prefix(&*name));
            line.unwrap_or_else(|| panic!("no {name}in {metrics}")).parse().unwrap()
        };
        assert_eq!((value("fanal_link_lanes_up"), value("fanal_link_found")), (2, 1));
        assert!(value("fanal_link_entries_sent_total") > 0 && value("fanal_link_connections_total") == 2);
        assert!(value("fanal_link_bytes_received_total") > 0);
    }
    let stats = make(&["stats", "--admin", &at_one.to_string()]);
    for counted in ["link_entries_sent ", "link_connections ", "relay_updates ", "relays "] {
        assert!(stats.contains(counted), "{counted}: {stats}");
    }
    let told = Admin::new(at_one, None).cluster().unwrap();
    assert_eq!((told.users, told.relays), (1, 1), "node 1 keeps ann, who watches bob of node 2");
    assert_eq!(Admin::new(at_two, None).cluster().unwrap().publishers_across, 1);
}
