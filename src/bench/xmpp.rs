//! The users of a benchmark as XMPP clients, for any XMPP server: registered where it is managed or in band (XEP-0077), logged
//! in with SASL PLAIN, subscribed to each other by stanzas.
//!
//! Lives on: the generator's pinned thread. Serves G6. User 5 is `bench-5@domain`; `stanzas` says how it is recognised.

use super::crowd::Access;
use super::dialect::Dialect;
use super::graph::Graph;
use super::progress::Progress;
use super::server::Server;
use super::stanzas::{Scanner, attribute, user};
use super::steps::{Steps, Tally, Until};
use super::talk::Traffic;
use super::wires::Wires;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use std::io;
use std::ops::Range;
use std::time::Duration;

/// Requests of the set-up that are under way at once: servers that hash passwords on the spot are slow.
const UNDER_WAY: u64 = 64;
const PASSWORD: &str = "bench-password";

/// Users of an XMPP server.
pub struct Clients {
    wires: Wires,
    domain: String,
    /// They register themselves.
    in_band: bool,
    came: Came,
    scanner: Scanner,
}

/// Makes the accounts of the users of these numbers. Gives how many were not there before.
///
/// # Errors
/// As `Server::add_user`.
pub fn accounts(server: &Server, users: Range<u32>, progress: &Progress) -> io::Result<u32> {
    server.add_users(users, Some(PASSWORD), progress)
}

/// What comes while the users get in.
struct Came {
    /// The number of the first user.
    first: u32,
    tally: Tally,
    /// What answers a request of the step under way.
    is_answer: fn(&[u8]) -> bool,
    /// Who asked whom to be subscribed, by number.
    asked: Vec<(u32, u32)>,
    /// Length of a presence from a contact.
    presence_bytes: usize,
}

impl Clients {
    /// The users of these numbers; nobody is there yet. Everywhere else they are counted from the first of them.
    ///
    /// # Errors
    /// Accounts can't be made where the server is managed.
    pub fn new(server: &Server, users: Range<u32>, progress: &Progress) -> io::Result<Clients> {
        let in_band = !server.is_managed();
        if !in_band {
            accounts(server, users.clone(), progress)?;
        }
        Clients::of(server.access.clone(), users, in_band)
    }

    /// The same of users who have accounts already, or who register themselves.
    ///
    /// # Errors
    /// The machine can't.
    pub fn of(access: Access, users: Range<u32>, in_band: bool) -> io::Result<Clients> {
        let (first, wires) = (users.start, Wires::to(access.target, access.tls)?);
        let tally = Tally::new(users.len() as u32, UNDER_WAY);
        let came = Came { first, tally, is_answer: |_| false, asked: Vec::new(), presence_bytes: 0 };
        Ok(Clients { wires, domain: access.domain, in_band, came, scanner: Scanner::default() })
    }

    /// The name of a user.
    fn name(&self, user: u32) -> String {
        format!("bench-{}", self.came.first + user)
    }

    fn header(&self) -> String {
        format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
            self.domain
        )
    }

    fn say(&mut self, user: u32, text: &str) -> io::Result<()> {
        self.wires.send(user, text.as_bytes())
    }

    /// Every user says something; `is_answer` tells what answers it.
    fn all_say(
        &mut self,
        what: &'static str,
        progress: &Progress,
        is_answer: fn(&[u8]) -> bool,
        text: impl Fn(&Clients, u32) -> String,
    ) -> io::Result<()> {
        self.came.is_answer = is_answer;
        self.step_of_all(what, progress, |clients, user| clients.say(user, &text(clients, user)))
    }
}

impl Steps for Clients {
    fn tally(&mut self) -> &mut Tally {
        &mut self.came.tally
    }

    /// Grants what is asked for, too.
    fn listen(&mut self, patience: Duration) -> io::Result<usize> {
        let Clients { wires, came, scanner, .. } = self;
        let heard = wires.listen(patience, |conn, bytes| scanner.stanzas(bytes, |stanza| came.sort(conn, stanza)))?;
        for (publisher, subscriber) in std::mem::take(&mut self.came.asked) {
            self.say(publisher, &format!("<presence to='{}@{}' type='subscribed'/>", self.name(subscriber), self.domain))?;
        }
        Ok(heard)
    }
}

impl Came {
    fn sort(&mut self, conn: u32, stanza: &[u8]) {
        if (self.is_answer)(stanza) {
            self.tally.answers += 1;
        } else if stanza.starts_with(b"<stream:error") || stanza.starts_with(b"<failure") || refuses(stanza) {
            self.tally.refuse(String::from_utf8_lossy(stanza));
        } else if stanza.starts_with(b"<presence") {
            let from = attribute(stanza, "from").and_then(user).and_then(|user| user.checked_sub(self.first));
            match (attribute(stanza, "type"), from) {
                (Some(b"subscribe"), Some(from)) => self.asked.push((conn, from)),
                (None, Some(from)) if from != conn => {
                    self.tally.seen += 1;
                    self.presence_bytes = stanza.len();
                }
                _ => {}
            }
        }
    }
}

/// An error that answers a request; a registration may find that the account is there already.
fn refuses(stanza: &[u8]) -> bool {
    attribute(stanza, "type") == Some(b"error") && memmem::find(stanza, b"<conflict").is_none()
}

fn is_features(stanza: &[u8]) -> bool {
    stanza.starts_with(b"<stream:features")
}

fn is_settled(stanza: &[u8]) -> bool {
    stanza.starts_with(b"<iq") && (attribute(stanza, "type") == Some(b"result") || memmem::find(stanza, b"<conflict").is_some())
}

fn is_success(stanza: &[u8]) -> bool {
    stanza.starts_with(b"<success")
}

impl Dialect for Clients {
    type Traffic = Presences;

    fn log_in(&mut self, progress: &Progress) -> io::Result<()> {
        let header = self.header();
        self.came.is_answer = is_features;
        self.step_of_all("streams", progress, |clients, user| {
            clients.wires.connect()?;
            clients.say(user, &header)
        })?;
        if self.in_band {
            self.all_say("registrations", progress, is_settled, |clients, user| {
                format!(
                    "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{}</username>\
                     <password>{PASSWORD}</password></query></iq>",
                    clients.name(user)
                )
            })?;
        }
        self.all_say("log-ins", progress, is_success, |clients, user| {
            let proof = STANDARD.encode(format!("\0{}\0{PASSWORD}", clients.name(user)));
            format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{proof}</auth>")
        })?;
        self.all_say("streams", progress, is_features, |_, _| header.clone())?;
        self.all_say("sessions", progress, is_settled, |_, _| {
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>b</resource></bind></iq>".into()
        })
    }

    fn become_available(&mut self, progress: &Progress) -> io::Result<()> {
        // The answer to a ping comes behind what the presence causes.
        let text = "<presence/><iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
        self.all_say("presences", progress, |stanza| stanza.starts_with(b"<iq"), |_, _| text.into())
    }

    fn subscribe(&mut self, graph: &Graph, progress: &Progress) -> io::Result<()> {
        self.came.is_answer = |_| false;
        self.step("subscriptions", Until::Seen(graph.pairs()), progress, |clients, number| {
            let (subscriber, publisher) = graph.subscription(number);
            let text = format!("<presence to='{}@{}' type='subscribe'/>", clients.name(publisher), clients.domain);
            clients.say(subscriber, &text)
        })
    }

    fn begin(self, audience: u32) -> (Wires, Presences) {
        let event_bytes = self.came.presence_bytes + Presences::update(1).len() - "<presence/>".len();
        (self.wires, Presences { first: self.came.first, audience, event_bytes, refusal: None, scanner: Scanner::default() })
    }

    fn last_words() -> Vec<u8> {
        b"<presence type='unavailable'/></stream:stream>".to_vec()
    }
}

/// What the clients say, each on the connection of its own number, and how they hear it. The sequence is the status.
pub struct Presences {
    first: u32,
    audience: u32,
    event_bytes: usize,
    refusal: Option<String>,
    scanner: Scanner,
}

impl Presences {
    fn update(sequence: u32) -> String {
        let show = if sequence.is_multiple_of(2) { "away" } else { "chat" };
        format!("<presence><show>{show}</show><status>{sequence:08}</status></presence>")
    }
}

impl Traffic for Presences {
    fn conn(&self, user: u32) -> u32 {
        user
    }

    fn make(&mut self, _user: u32, sequence: u32, into: &mut Vec<u8>) {
        into.extend_from_slice(Presences::update(sequence).as_bytes());
    }

    #[inline]
    fn recognise(&mut self, conn: u32, bytes: &[u8], mut delivered: impl FnMut(u32, u32, u32)) -> usize {
        let Presences { scanner, first, refusal, .. } = self;
        scanner.stanzas(bytes, |stanza| {
            if let Some((user, sequence)) = scanner.update(stanza) {
                let user = user.wrapping_sub(*first);
                if user != conn {
                    delivered(user, sequence, 1);
                }
            } else if stanza.starts_with(b"<stream:error") {
                *refusal = Some(String::from_utf8_lossy(stanza).into_owned());
            }
        })
    }

    fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    fn audience(&self, _: u32) -> u32 {
        self.audience
    }

    fn event_bytes(&self) -> usize {
        self.event_bytes
    }
}
