//! Log-ins, accounts and the operator's wishes at a node that is not the user's home (M1, M2): two nodes over real sockets.

mod support;

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::admin::Refusal;
use fanal::base::config::{Config, Secret};
use fanal::base::credentials::{Hash, ITERATIONS, ScramCredentials};
use fanal::base::jid::Bare;
use fanal::base::reason::Reason;
use fanal::client::{Client, Error, Event, LogIn};
use fanal::front::doors::Speaks;
use fanal::node::control::Controller;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;
use support::clusters::peers;
use support::web::Patient;
use support::xmpp::{OPEN, SASL, Xmpp};
use support::*;

/// Two nodes that have found each other, and what speaks with their cores.
struct Pair {
    nodes: Vec<TestNode>,
    controls: Vec<Controller>,
}

/// The nodes' configurations.
fn configs(cores: [usize; 2]) -> Vec<Config> {
    let peers = peers(2);
    let one = |node: usize| {
        let mut config = config(cores[node]);
        (config.cluster.number, config.cluster.node) = (Some(1), Some(node as u16 + 1));
        config.cluster.nodes = peers.clone();
        config.login.token_keys = vec![Secret::new("the same key at every node, for tests").unwrap()];
        (config.login.open_registration, config.login.plain) = (true, true);
        config.listen.xmpp = Some("127.0.0.1:0".parse().unwrap());
        config.listen.ws = Some("127.0.0.1:0".parse().unwrap());
        config
    };
    (0..2).map(one).collect()
}

fn is_out_of_reach(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Unavailable(why) if why.contains(Reason::HomeOutOfReach.text()))
}

impl Pair {
    fn start(cores: [usize; 2]) -> Pair {
        let mut nodes: Vec<TestNode> = configs(cores).iter().map(TestNode::start).collect();
        let controls = nodes.iter_mut().map(|node| node.0.as_mut().unwrap().control()).collect();
        let mut pair = Pair { nodes, controls };
        // The link is up both ways when either node can be asked for users of the other.
        for node in [0, 1] {
            pair.user(node, "visitor");
        }
        pair
    }

    /// A user whose home is this node, and who was made through the other one. The name, which is the password, begins like this.
    fn user(&mut self, home: usize, name: &str) -> String {
        let end = Instant::now() + LONG;
        for n in 0.. {
            let (jid, password) = (format!("{name}{home}{n}@localhost"), format!("{name}{home}{n}"));
            let bare = Bare::new(&jid).unwrap();
            let credentials = ScramCredentials::from_password(&password, &[7; 16], ITERATIONS);
            while let Err(why) = self.controls[1 - home].add_user(&bare, Some(credentials.clone())) {
                assert!(Instant::now() < end && is_out_of_reach(&why), "{why:?}");
            }
            if self.controls[home].users(None, 1000, Some(home as u16 + 1)).unwrap().users.iter().any(|line| line.jid == bare) {
                return password;
            }
            self.controls[1 - home].remove_user(&bare).unwrap();
        }
        unreachable!("every node has users")
    }

    fn logs_in(&self, node: usize, name: &str, how: LogIn<'_>) -> Option<Reason> {
        reason(self.nodes[node].connect().log_in(&jid(name), how, "").map(drop))
    }

    /// By SCRAM, and by PLAIN.
    fn tries(&self, node: usize, name: &str, password: &str) -> [Option<Reason>; 2] {
        [LogIn::Password(password), LogIn::PlainPassword(password)].map(|how| self.logs_in(node, name, how))
    }

    fn xmpp(&self, node: usize) -> Xmpp {
        let mut client = Xmpp(TcpStream::connect(self.door(node, Speaks::Xmpp)).unwrap());
        client.0.set_read_timeout(Some(LONG)).unwrap();
        client.say(OPEN);
        client.until("</stream:features>");
        client
    }

    fn door(&self, node: usize, speaks: Speaks) -> SocketAddr {
        self.nodes[node].node().address(speaks).expect("it's open")
    }

    /// What the JSON door answers to a log-in by PLAIN.
    fn json(&self, node: usize, name: &str, password: &str) -> String {
        let door = self.door(node, Speaks::WebSocket);
        let url = format!("ws://{door}/ws").parse().unwrap();
        let request = tungstenite::client::ClientRequestBuilder::new(url).with_sub_protocol("fanal.json.v1");
        let socket = TcpStream::connect(door).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut page = tungstenite::client(request, Patient(socket)).expect("the upgrade succeeds").0;
        let data = BASE64_STANDARD.encode(format!("\0{name}\0{password}"));
        let log_in = format!(r#"{{"type":"log_in","id":1,"jid":"{}","mechanism":"PLAIN","data":"{data}"}}"#, jid(name));
        page.send(tungstenite::Message::text(log_in)).unwrap();
        loop {
            match page.read().expect("the connection lives") {
                tungstenite::Message::Text(text) if text.contains(r#""id":1"#) => return text.to_string(),
                _ => {}
            }
        }
    }
}

fn jid(name: &str) -> String {
    format!("{name}@localhost")
}

fn reason(result: Result<(), Error>) -> Option<Reason> {
    result.err().map(|error| error.reason().expect("the node says why"))
}

/// SASL 1, with PLAIN.
fn auth(name: &str, password: &str) -> String {
    format!("<auth {SASL} mechanism='PLAIN'>{}</auth>", BASE64_STANDARD.encode(format!("\0{name}\0{password}")))
}

/// SASL 2, by a client with a name.
fn authenticate(mechanism: &str, data: &[u8], wishes: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{}</initial-response>\
         <user-agent id='telescope'/><bind xmlns='urn:xmpp:bind:0'/>{wishes}</authenticate>",
        BASE64_STANDARD.encode(data)
    )
}

/// M2.
#[test]
fn m2_a_password_or_a_token_made_of_it_is_good_at_every_node_and_a_wrong_one_at_none() {
    for cores in [[1, 1], [2, 1]] {
        let mut pair = Pair::start(cores);
        let name = pair.user(1, "ann");
        for node in [0, 1] {
            assert_eq!(pair.tries(node, &name, &name), [None; 2]);
            assert_eq!(pair.tries(node, &name, "another"), [Some(Reason::LogInFailed); 2]);
            assert_eq!(pair.tries(node, "nobody", "another"), [Some(Reason::LogInFailed); 2]);
            assert!(pair.json(node, &name, &name).contains(r#""type":"logged_in""#));
            assert!(pair.json(node, &name, "another").contains("log_in_failed"));
            let mut client = pair.nodes[node].connect();
            client.remember_as("telescope");
            client.log_in(&jid(&name), LogIn::Password(&name), "").unwrap();
            let mut token = client.hashed_token().expect("a token").clone();
            for other in [1 - node, node] {
                let mut again = pair.nodes[other].connect();
                again.remember_as("telescope");
                again.log_in(&jid(&name), LogIn::Hashed(&token), "").unwrap();
                assert_eq!(
                    reason(pair.nodes[other].connect().log_in(&jid(&name), LogIn::Hashed(&token), "").map(drop)),
                    Some(Reason::LogInFailed),
                    "a second time"
                );
                token = again.hashed_token().expect("it goes on counting").clone();
            }
        }
    }
}

/// M2.
#[test]
fn m2_xmpp_clients_log_in_at_a_node_that_is_not_their_home_by_password_and_by_token() {
    let mut pair = Pair::start([1, 1]);
    let name = pair.user(1, "ann");
    let mut client = pair.xmpp(0);
    client.say(&auth(&name, "another"));
    assert!(client.until("</failure>").contains("<not-authorized"));
    client.say(&auth(&name, &name));
    client.until("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    let wanted = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
    let mut client = pair.xmpp(0);
    client.say(&authenticate("PLAIN", format!("\0{name}\0{name}").as_bytes(), wanted));
    let heard = client.until("</success>");
    let token = heard.split_once("token='").and_then(|(_, rest)| rest.split_once('\'')).expect("a token").0;
    let proof = |token: &str| Hash::Sha256.hmac(token.as_bytes(), &[b"Initiator"]);
    for (node, token, answer) in [(0, token, "</success>"), (1, token, "</success>"), (0, "another", "</failure>")] {
        let data = [name.as_bytes(), b"\0", &proof(token)].concat();
        let mut client = pair.xmpp(node);
        client.say(&authenticate("HT-SHA-256-NONE", &data, "<fast xmlns='urn:xmpp:fast:0'/>"));
        client.until(answer);
    }
}

/// M2.
#[test]
fn m2_accounts_are_made_changed_and_removed_through_any_node() {
    for cores in [[1, 1], [1, 2]] {
        let mut pair = Pair::start(cores);
        let (name, other) = (pair.user(1, "ann"), pair.user(1, "bob"));
        pair.controls[0].remove_user(&Bare::new(&jid(&name)).unwrap()).unwrap();
        assert_eq!(pair.logs_in(0, &name, LogIn::Password(&name)), Some(Reason::LogInFailed));
        let why = pair.controls[0].remove_user(&Bare::new(&jid(&name)).unwrap()).unwrap_err();
        assert!(matches!(&why, Refusal::Missing(why) if why.contains("there is no user")), "{why:?}");
        let mut client: Client = pair.nodes[0].connect();
        assert_eq!(reason(client.register(&jid(&other), "anything")), Some(Reason::UserExists));
        assert_eq!(reason(client.register(&jid(&name), "secret")), None);
        client.log_in(&jid(&name), LogIn::Password("secret"), "desk").unwrap();
        assert!(pair.controls[1].users(None, 1000, Some(2)).unwrap().users.iter().any(|line| line.jid.as_str() == jid(&name)));
        assert_eq!(pair.controls[0].transfer(&Bare::new(&jid(&name)).unwrap(), "elsewhere:1").unwrap(), 1);
        client.set_password("better").unwrap();
        let tried = ["secret", "better"].map(|password| pair.logs_in(0, &name, LogIn::Password(password)));
        assert_eq!(tried, [Some(Reason::LogInFailed), None]);
        client.remove_account().unwrap();
        until(&mut client, |event| match event {
            Event::Refused(refusal) if refusal.reason() == Some(Reason::AccountRemoved) => Some(()),
            _ => None,
        });
        assert_eq!(pair.logs_in(1, &name, LogIn::Password("better")), Some(Reason::LogInFailed));
    }
}

/// M2: whether there is such a user can't be told from the answer.
#[test]
fn m2_while_the_home_is_away_every_log_in_and_every_account_of_it_is_refused_for_that_reason() {
    let mut pair = Pair::start([1, 1]);
    let (name, gone) = (pair.user(1, "ann"), pair.user(1, "bob"));
    pair.controls[0].remove_user(&Bare::new(&jid(&gone)).unwrap()).unwrap();
    pair.controls.pop();
    pair.nodes.pop().unwrap().stop();
    for name in [&name, &gone] {
        assert_eq!(pair.tries(0, name, name), [Some(Reason::HomeOutOfReach); 2]);
        assert_eq!(reason(pair.nodes[0].connect().register(&jid(name), "secret")), Some(Reason::HomeOutOfReach));
        assert!(pair.json(0, name, name).contains("home_out_of_reach"));
        let mut client = pair.xmpp(0);
        client.say(&auth(name, name));
        assert!(client.until("</failure>").contains("<temporary-auth-failure"));
        let bare = Bare::new(&jid(name)).unwrap();
        for result in [pair.controls[0].add_user(&bare, None), pair.controls[0].remove_user(&bare)] {
            assert!(is_out_of_reach(&result.unwrap_err()));
        }
    }
}
