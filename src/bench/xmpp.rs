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
use super::talk::Traffic;
use super::wires::Wires;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long the set-up waits for the next answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests of the set-up that are under way at once: servers that hash passwords on the spot are slow.
const UNDER_WAY: u64 = 64;
const PASSWORD: &str = "bench-password";

/// Users of an XMPP server.
pub struct Clients {
    wires: Wires,
    domain: String,
    /// The number of the first one, and how many there are.
    first: u32,
    users: u32,
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

/// What the set-up's requests brought.
#[derive(Default)]
struct Came {
    /// The number of the first user.
    first: u32,
    answers: u64,
    /// Available presences of others.
    seen: u64,
    /// Who asked whom to be subscribed, by number.
    asked: Vec<(u32, u32)>,
    refusal: Option<String>,
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
        let (first, users) = (users.start, users.len() as u32);
        let (wires, came) = (Wires::to(access.target, access.tls)?, Came { first, ..Came::default() });
        Ok(Clients { wires, domain: access.domain, first, users, in_band, came, scanner: Scanner::default() })
    }

    /// The name of a user.
    fn name(&self, user: u32) -> String {
        format!("bench-{}", self.first + user)
    }

    fn header(&self) -> String {
        format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' \
             xmlns:stream='http://etherx.jabber.org/streams'>",
            self.domain
        )
    }

    /// One request of each user, a bounded number under way at once; `is_answer` tells what answers it.
    fn step(
        &mut self,
        what: &'static str,
        progress: &Progress,
        is_answer: fn(&[u8]) -> bool,
        mut write: impl FnMut(&mut Clients, u32) -> io::Result<String>,
    ) -> io::Result<()> {
        let users = u64::from(self.users);
        progress.begin(what, users);
        self.came.answers = 0;
        let mut asked = 0;
        while self.came.answers < users {
            while asked < users && asked - self.came.answers < UNDER_WAY {
                let text = write(self, asked as u32)?;
                self.wires.send(asked as u32, text.as_bytes())?;
                asked += 1;
            }
            self.hear(is_answer)?;
            progress.at(self.came.answers);
        }
        Ok(())
    }

    /// Waits for something and sorts it; grants what is asked for.
    fn hear(&mut self, is_answer: fn(&[u8]) -> bool) -> io::Result<()> {
        let began = Instant::now();
        let Clients { wires, came, scanner, .. } = self;
        let heard = wires.listen(PATIENCE, |conn, bytes| scanner.stanzas(bytes, |stanza| came.sort(conn, stanza, is_answer)))?;
        for (publisher, subscriber) in std::mem::take(&mut self.came.asked) {
            let text = format!("<presence to='{}@{}' type='subscribed'/>", self.name(subscriber), self.domain);
            self.wires.send(publisher, text.as_bytes())?;
        }
        if let Some(refusal) = self.came.refusal.take() {
            return Err(io::Error::other(format!("the server refused: {refusal}")));
        }
        if heard == 0 && began.elapsed() >= PATIENCE {
            return Err(io::Error::other(format!("the server says nothing for {} s: it has stalled", PATIENCE.as_secs())));
        }
        Ok(())
    }
}

impl Came {
    fn sort(&mut self, conn: u32, stanza: &[u8], is_answer: fn(&[u8]) -> bool) {
        if is_answer(stanza) {
            self.answers += 1;
        } else if stanza.starts_with(b"<stream:error") || stanza.starts_with(b"<failure") || refuses(stanza) {
            self.refusal.get_or_insert_with(|| String::from_utf8_lossy(stanza).into_owned());
        } else if stanza.starts_with(b"<presence") {
            let from = attribute(stanza, "from").and_then(user).and_then(|user| user.checked_sub(self.first));
            match (attribute(stanza, "type"), from) {
                (Some(b"subscribe"), Some(from)) => self.asked.push((conn, from)),
                (None, Some(from)) if from != conn => {
                    self.seen += 1;
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
        self.step("streams", progress, is_features, |clients, _| {
            clients.wires.connect()?;
            Ok(header.clone())
        })?;
        if self.in_band {
            self.step("registrations", progress, is_settled, |clients, user| {
                Ok(format!(
                    "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{}</username>\
                     <password>{PASSWORD}</password></query></iq>",
                    clients.name(user)
                ))
            })?;
        }
        self.step("log-ins", progress, is_success, |clients, user| {
            let proof = STANDARD.encode(format!("\0{}\0{PASSWORD}", clients.name(user)));
            Ok(format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{proof}</auth>"))
        })?;
        self.step("streams", progress, is_features, |_, _| Ok(header.clone()))?;
        self.step("sessions", progress, is_settled, |_, _| {
            Ok("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>b</resource></bind></iq>".into())
        })
    }

    fn become_available(&mut self, progress: &Progress) -> io::Result<()> {
        // The answer to a ping comes behind what the presence causes.
        let ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
        self.step("presences", progress, |stanza| stanza.starts_with(b"<iq"), |_, _| Ok(format!("<presence/>{ping}")))
    }

    fn subscribe(&mut self, graph: &Graph, progress: &Progress) -> io::Result<()> {
        let pairs = u64::from(self.users) * u64::from(graph.degree());
        progress.begin("subscriptions", pairs);
        let (mut asked, most) = (0, UNDER_WAY.min(pairs));
        while self.came.seen < pairs {
            while asked < pairs && asked < self.came.seen + most {
                let subscriber = (asked % u64::from(self.users)) as u32;
                let publisher = graph.publisher(subscriber, (asked / u64::from(self.users)) as u32);
                let text = format!("<presence to='{}@{}' type='subscribe'/>", self.name(publisher), self.domain);
                self.wires.send(subscriber, text.as_bytes())?;
                asked += 1;
            }
            self.hear(|_| false)?;
            progress.at(self.came.seen);
        }
        Ok(())
    }

    fn begin(self, audience: u32) -> (Wires, Presences) {
        let event_bytes = self.came.presence_bytes + Presences::update(1).len() - "<presence/>".len();
        (self.wires, Presences { first: self.first, audience, event_bytes, refusal: None, scanner: Scanner::default() })
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

    fn audience(&self) -> u32 {
        self.audience
    }

    fn event_bytes(&self) -> usize {
        self.event_bytes
    }
}
