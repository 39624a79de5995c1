//! The users of a benchmark as XMPP clients, for any XMPP server: registered where it is managed or in band (XEP-0077), logged
//! in with SASL PLAIN, subscribed to each other by stanzas.
//!
//! Lives on: the generator's pinned thread. Serves G6. Stanzas are recognised, not parsed: the server is trusted to write
//! well-formed XML, and a figure to be sound only if every delivery was recognised. User 5 is `bench-5@domain`.

use super::crowd::Access;
use super::dialect::Dialect;
use super::graph::Graph;
use super::progress::Progress;
use super::server::Server;
use super::steps::{Steps, Tally, Until};
use super::talk::Traffic;
use super::wires::Wires;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
    is_answer: fn(&str) -> bool,
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
        Ok(Clients { wires, domain: access.domain, in_band, came })
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
        is_answer: fn(&str) -> bool,
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
        let Clients { wires, came, .. } = self;
        let heard = wires.listen(patience, |conn, bytes| stanzas(bytes, |stanza| came.sort(conn, stanza)))?;
        for (publisher, subscriber) in std::mem::take(&mut self.came.asked) {
            self.say(publisher, &format!("<presence to='{}@{}' type='subscribed'/>", self.name(subscriber), self.domain))?;
        }
        Ok(heard)
    }
}

impl Came {
    fn sort(&mut self, conn: u32, stanza: &str) {
        if (self.is_answer)(stanza) {
            self.tally.answers += 1;
        } else if stanza.starts_with("<stream:error") || stanza.starts_with("<failure") || refuses(stanza) {
            self.tally.refuse(stanza);
        } else if stanza.starts_with("<presence") {
            let from = attribute(stanza, "from").and_then(user).and_then(|user| user.checked_sub(self.first));
            match (attribute(stanza, "type"), from) {
                (Some("subscribe"), Some(from)) => self.asked.push((conn, from)),
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
fn refuses(stanza: &str) -> bool {
    attribute(stanza, "type") == Some("error") && !stanza.contains("<conflict")
}

fn is_features(stanza: &str) -> bool {
    stanza.starts_with("<stream:features")
}

fn is_settled(stanza: &str) -> bool {
    stanza.starts_with("<iq") && (attribute(stanza, "type") == Some("result") || stanza.contains("<conflict"))
}

fn is_success(stanza: &str) -> bool {
    stanza.starts_with("<success")
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
        self.all_say("presences", progress, |stanza| stanza.starts_with("<iq"), |_, _| text.into())
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
        (self.wires, Presences { first: self.came.first, audience, event_bytes, refusal: None })
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
        stanzas(bytes, |stanza| {
            if let Some((user, sequence)) = update(stanza) {
                let user = user.wrapping_sub(self.first);
                if user != conn {
                    delivered(user, sequence, 1);
                }
            } else if stanza.starts_with("<stream:error") {
                self.refusal = Some(stanza.to_owned());
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

/// Whose update a presence is, and which.
fn update(stanza: &str) -> Option<(u32, u32)> {
    let user = stanza.starts_with("<presence").then(|| attribute(stanza, "from")).flatten().and_then(user)?;
    let (_, rest) = stanza.split_once("<status>")?;
    let (sequence, _) = rest.split_once('<')?;
    Some((user, sequence.parse().ok()?))
}

/// The number of a user of the benchmark.
fn user(jid: &str) -> Option<u32> {
    jid.strip_prefix("bench-")?.split_once('@')?.0.parse().ok()
}

/// The value of an attribute of the first tag.
fn attribute<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let tag = &stanza[..stanza.find('>')?];
    let (_, rest) = tag
        .match_indices(name)
        .map(|(at, _)| tag.split_at(at))
        .find(|(before, rest)| before.ends_with([' ', '\n']) && rest[name.len()..].starts_with(['=']))?;
    let value = &rest[name.len() + 1..];
    let quote = value.chars().next()?;
    value[1..].split_once(quote).map(|(value, _)| value)
}

/// Hands over the whole stanzas at the start of `bytes`, stream headers and declarations among them; gives the length of all.
fn stanzas(bytes: &[u8], mut each: impl FnMut(&str)) -> usize {
    let mut used = 0;
    while let Some(length) = stanza_bytes(&bytes[used..]) {
        if let Ok(stanza) = std::str::from_utf8(&bytes[used..used + length]) {
            each(stanza.trim_ascii_start());
        }
        used += length;
    }
    used
}

/// Length of the first stanza, with white space before it; `None`: its end has not come.
fn stanza_bytes(bytes: &[u8]) -> Option<usize> {
    const END: &[u8] = b"</presence>";
    if bytes.starts_with(b"<presence ") {
        // Nearly all that comes. No presence has another in it.
        let tag = memchr::memchr(b'>', bytes)?;
        let is_empty = bytes[tag - 1] == b'/';
        return if is_empty { Some(tag + 1) } else { memchr::memmem::find(bytes, END).map(|at| at + END.len()) };
    }
    let (mut depth, mut at) = (0, 0);
    loop {
        let start = at + bytes[at..].iter().position(|&byte| byte == b'<')?;
        let end = start + bytes[start..].iter().position(|&byte| byte == b'>')?;
        let tag = &bytes[start..=end];
        at = end + 1;
        match tag {
            [b'<', b'?' | b'!', ..] => return Some(at),
            [b'<', b'/', ..] => depth -= 1,
            [.., b'/', b'>'] => {}
            _ if tag.starts_with(b"<stream:stream") => return Some(at),
            _ => depth += 1,
        }
        if depth <= 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_are_found_whole_and_told_apart() {
        let text = "<?xml version='1.0'?><stream:stream id='a'><stream:features><a/><b>x</b></stream:features>\n\
                    <presence from='bench-7@d/b' to='bench-8@d'><show>away</show><status>00000042</status></presence><iq";
        let mut found = Vec::new();
        let used = stanzas(text.as_bytes(), |stanza| found.push(stanza.to_owned()));
        assert_eq!(&text[used..], "<iq");
        assert_eq!(found.len(), 4);
        assert!(is_features(&found[2]));
        assert_eq!(update(&found[3]), Some((7, 42)));
        assert_eq!(attribute(&found[3], "to"), Some("bench-8@d"));
        assert_eq!(attribute(&found[3], "o"), None);
    }

    #[test]
    fn a_stanza_that_is_cut_waits_for_its_end() {
        for text in ["<presence from='bench-1@d/b'><status>1</status></presence>", "<presence from='a'/>", "<iq><a/><b>c</b></iq>"]
        {
            for cut in 0..text.len() {
                assert_eq!(stanzas(&text.as_bytes()[..cut], |_| panic!("it is not whole")), 0);
            }
            assert_eq!(stanzas(text.repeat(2).as_bytes(), |stanza| assert_eq!(stanza, text)), 2 * text.len());
        }
    }
}
