//! The XMPP door: a stream of XML becomes a native client's frames, and the server's frames become stanzas.
//!
//! Lives on: the core that owns the connection; [`Memory`] is one per core. Serves C8, G6. Pure. Invariants: every IQ that asks is
//! answered exactly once (RFC 6120 8.2.3); what is sent is well-formed whatever the core or a native client says; a connection
//! between stanzas keeps its JID and some hundred bytes; requests waiting for the core are bounded ([`WAITING`]).
//!
//! One file per duty: `stream` (opening, features, errors, closing), `log_in` (SASL, binding), `sasl2` (both in one go), `stanza`
//! (addresses, errors), `iq`, `roster`, `presence`, `message`, `answers` (what the server's frames become), `management` and
//! `managed` (XEP-0198), `blocking` (XEP-0191), `disco` (XEP-0030), `caps` (XEP-0115), `documents` (XEP-0049, 0054), `nodes`
//! (XEP-0163).

mod answers;
mod blocking;
mod caps;
mod disco;
mod documents;
mod iq;
mod log_in;
mod managed;
mod management;
mod message;
mod names;
mod nodes;
mod presence;
mod reasons;
mod register;
mod roster;
mod sasl2;
mod stanza;
mod stream;

pub use presence::write_form;

use crate::base::reason::Reason;
use crate::front::translate::{Core, Next, Translate};
use crate::wire::encode::{Encoder, Tag};
use crate::wire::form::Form;
use crate::wire::frame;
use crate::wire::xml::{Bounds, Element, Item, Parsers, Reader};
use log_in::Entry;
use management::Counting;
use reasons::{Failure, TOO_BIG, TOO_MANY};
use std::sync::Arc;
use stream::End;
use thin_vec::ThinVec;

/// Requests of one connection that wait for the core's answer. At the limit: `resource-constraint`.
pub const WAITING: usize = 256;

/// Length of the core's token to resume a session.
const TOKEN_BYTES: usize = 16;

/// What a node holds its XMPP clients to.
#[derive(Clone, Debug)]
pub struct Rules {
    pub domain: Box<str>,
    /// Longest stanza, in bytes. RFC 6120 13.12: not below 10,000. At the limit: `policy-violation`.
    pub stanza_bytes: usize,
    pub start_tls: StartTls,
    /// Whether anybody may make an account (XEP-0077).
    pub registration: bool,
    /// Where a stream that did not begin with TLS is to be resumed (XEP-0198), as RFC 6120 4.9.3.19 writes it.
    pub location: Option<Box<str>>,
}

/// Whether a stream that began in clear can be made private (RFC 6120 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartTls {
    No,
    Offered,
    /// Nothing else is done before.
    Required,
}

/// How what is sent is cut into messages.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    /// A byte stream (RFC 6120).
    Stream,
    /// One message for each element (RFC 7395): the function turns what stands from there to the end into one.
    Messages(fn(&mut Vec<u8>, usize)),
}

/// What the XMPP connections of one core share.
#[derive(Default)]
pub struct Memory {
    /// How each presence of the connection that is being translated begins.
    opening: Vec<u8>,
    encoder: Encoder,
    parsers: Parsers,
    streams: management::Streams,
    known: caps::Known,
    /// Stanzas refused for limits of this door's own.
    pub refused: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The stream's opening must come; nobody is logged in.
    Opening,
    /// The core was asked for its mechanisms.
    Greeting,
    /// Nobody is logged in yet.
    Open,
    /// `<proceed/>` was said: TLS comes next.
    Securing,
    /// The core decides on a log-in.
    Deciding,
    /// The client was challenged.
    Challenged,
    /// The log-in succeeded: the stream must be opened anew.
    Proven,
    /// A resource must be bound.
    Unbound,
    /// The core makes the session.
    Binding,
    Bound,
    /// Nothing more is heard.
    Closing,
    /// The stream's end was said: nor is anything more said.
    Closed,
}

/// One XMPP connection.
pub struct Xmpp {
    rules: Arc<Rules>,
    framing: Framing,
    reader: Reader,
    stage: Stage,
    private: bool,
    /// It was so from the first byte (XEP-0368).
    direct: bool,
    /// The client knows roster versions (RFC 6121 2.6).
    versioned: bool,
    /// The number of the last request.
    request: u32,
    /// Roster pushes so far.
    pushes: u32,
    /// What waits for the core's answer, by number of the request.
    waiting: ThinVec<(u32, Question)>,
    /// The stream's language, which its stanzas are in unless they say otherwise (RFC 6120 4.7.4); empty: it has none.
    language: Box<str>,
    /// The full JID; before that the bare one, of whoever wants in.
    jid: Box<str>,
    /// Until a session is bound.
    entry: Option<Box<Entry>>,
    /// Once it has announced what it can do (XEP-0115).
    announced: Option<Box<caps::Announced>>,
    /// While the stream is managed (XEP-0198).
    counting: Option<Box<Counting>>,
    /// What the core takes for the session's own connection when it is resumed, and how long it does.
    token: [u8; TOKEN_BYTES],
    within_ms: u32,
}

/// What a request to the core was about.
enum Question {
    Hello,
    LogIn,
    Bind {
        id: Box<str>,
    },
    Resume,
    Register {
        id: Box<str>,
    },
    /// An IQ whose success has nothing to tell.
    Iq {
        id: Box<str>,
        from: Box<str>,
    },
    Roster(Box<roster::Gathering>),
    BlockList {
        id: Box<str>,
        from: Box<str>,
    },
    Block(Box<blocking::Blocking>),
    Document(Box<documents::Shelf>),
    Node(Box<nodes::Visit>),
    Published {
        id: Box<str>,
        from: Box<str>,
        node: Box<str>,
        item: Box<str>,
    },
    /// When a user was last here.
    LastSeen {
        id: Box<str>,
        from: Box<str>,
    },
    /// What another user's account is.
    Account {
        id: Box<str>,
        from: Box<str>,
        node: Box<str>,
    },
    Message {
        id: Box<str>,
        to: Box<str>,
    },
    /// An IQ to another session: it is that session that answers, unless it isn't there.
    Asking {
        id: Box<str>,
        to: Box<str>,
    },
    Presence {
        id: Box<str>,
        to: Box<str>,
    },
}

/// Where a connection's words go, while bytes are read.
struct Turn<'a, 'c> {
    core: &'a mut Core<'c>,
    frames: &'a mut Vec<u8>,
    replies: &'a mut Vec<u8>,
}

/// What a `RAW` frame holds: the number of its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Mark {
    /// Neither a stanza nor the end.
    Words = 0,
    Stanza = 1,
    /// The last that is said.
    Last = 2,
    /// From here on, stanzas are counted.
    Enabled = 3,
    /// A presence event without its addressee ([`Form::Xmpp`]).
    Presence = 4,
}

impl Xmpp {
    /// A connection over a byte stream.
    pub fn new(rules: Arc<Rules>) -> Xmpp {
        Xmpp::framed(rules, Framing::Stream)
    }

    /// A connection over WebSocket; `frame` turns what stands from a place to the end into one text message.
    pub fn over_messages(rules: Arc<Rules>, frame: fn(&mut Vec<u8>, usize)) -> Xmpp {
        Xmpp::framed(rules, Framing::Messages(frame))
    }

    fn framed(rules: Arc<Rules>, framing: Framing) -> Xmpp {
        Xmpp {
            rules,
            framing,
            reader: Reader::default(),
            stage: Stage::Opening,
            private: false,
            direct: false,
            versioned: false,
            request: 0,
            pushes: 0,
            waiting: ThinVec::new(),
            language: Box::default(),
            jid: Box::default(),
            entry: None,
            announced: None,
            counting: None,
            token: [0; TOKEN_BYTES],
            within_ms: 0,
        }
    }

    /// One text message of a connection over WebSocket, instead of `Translate::received`.
    ///
    /// Errors: as there.
    pub fn received_message(
        &mut self,
        text: &str,
        core: &mut Core<'_>,
        frames: &mut Vec<u8>,
        replies: &mut Vec<u8>,
    ) -> Result<Next, Reason> {
        let mut turn = Turn { core, frames, replies };
        let read = self.read_message(text, &mut turn);
        self.concluded(read, replies)
    }

    fn concluded(&mut self, read: Result<(), End>, replies: &mut Vec<u8>) -> Result<Next, Reason> {
        match read {
            Ok(()) if self.stage == Stage::Securing => Ok(Next::Secure),
            Ok(()) => Ok(Next::Here),
            Err(end) => {
                self.end(&end, replies);
                Err(end.reason)
            }
        }
    }

    fn read(&mut self, mut bytes: &[u8], turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let bounds = Bounds { stanza_bytes: self.rules.stanza_bytes };
        loop {
            match self.stage {
                Stage::Greeting | Stage::Deciding | Stage::Binding => return self.hold(bytes),
                Stage::Securing | Stage::Closing | Stage::Closed => return Ok(()),
                _ => {}
            }
            match self.reader.next(&mut bytes, bounds, &mut turn.core.xmpp.parsers)? {
                None => return Ok(()),
                Some(item) => self.item(item, turn)?,
            }
        }
    }

    fn read_message(&mut self, text: &str, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        if matches!(self.stage, Stage::Closing | Stage::Closed) {
            return Ok(());
        }
        if text.len() > self.rules.stanza_bytes {
            return Err(crate::wire::xml::Fault::TooLarge.into());
        }
        if self.waits() {
            return self.hold_message(text);
        }
        let item = self.message_item(Element::parse(text.as_bytes())?);
        self.item(item, turn)
    }

    fn item(&mut self, item: Item, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        match item {
            Item::Header(header) => self.opened(&header, turn),
            Item::Element(element) => match self.stage {
                Stage::Bound => self.in_session(&element, turn),
                Stage::Unbound => self.before_session(&element, turn),
                _ => self.before_log_in(&element, turn),
            },
            Item::End => {
                self.forget_stream(turn.core);
                self.stage = Stage::Closing;
                self.write_closing(turn.replies);
                Err(End::GOOD_BYE)
            }
        }
    }

    /// What a bound session says.
    fn in_session(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        if element.namespace.as_str() == names::MANAGEMENT {
            return self.manage(element, turn);
        }
        if element.namespace.as_str() == names::ACTIVITY {
            return self.activity(element, turn);
        }
        if element.namespace.as_str() != names::CLIENT {
            return Err(End::saying("unsupported-stanza-type", "this server knows no such element here", Reason::BadRequest));
        }
        self.check_sender(element)?;
        match element.name.as_str() {
            "presence" => self.presence(element, turn),
            "message" => self.message(element, turn),
            "iq" => self.iq(element, turn),
            _ => return Err(End::new("unsupported-stanza-type", Reason::BadRequest)),
        }
        self.count_handled(turn)
    }

    /// XEP-0352: whether somebody looks at the client.
    fn activity(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let active = match element.name.as_str() {
            "active" => true,
            "inactive" => false,
            _ => return Err(End::new("unsupported-stanza-type", Reason::BadRequest)),
        };
        turn.frame(|encoder, frames| encoder.activity(frames, Tag::default(), active));
        Ok(())
    }

    /// Whether the core must answer before anything more is read.
    fn waits(&self) -> bool {
        matches!(self.stage, Stage::Greeting | Stage::Deciding | Stage::Binding)
    }

    /// A number for a request whose answer leads back to the question. `None`: too many wait already.
    fn ask(&mut self, question: Question) -> Option<Tag> {
        if self.waiting.len() >= WAITING {
            return None;
        }
        self.request = self.request % (NOBODY - 1) + 1;
        self.waiting.push((self.request, question));
        Some(Tag::request(self.request))
    }

    /// The question that an answer is to.
    fn asked(&mut self, request: u32) -> Option<Question> {
        let at = self.waiting.iter().position(|(number, _)| *number == request)?;
        let (_, question) = self.waiting.swap_remove(at);
        if self.waiting.is_empty() {
            self.waiting = ThinVec::new();
        }
        Some(question)
    }

    /// The part of the JID before the resource.
    fn bare(&self) -> &str {
        self.jid.split_once('/').map_or(&*self.jid, |(bare, _)| bare)
    }

    fn resource(&self) -> &str {
        self.jid.split_once('/').map_or("", |(_, resource)| resource)
    }
}

/// The number of requests whose outcome nobody wants to know.
const NOBODY: u32 = u32::MAX;

impl Turn<'_, '_> {
    /// Writes a native frame.
    fn frame(&mut self, write: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        write(&mut self.core.xmpp.encoder, self.frames);
    }

    /// Counts what was refused for a limit of this door's own.
    fn count(&mut self, failure: Failure) {
        self.core.xmpp.refused += u64::from(matches!(failure, TOO_MANY | TOO_BIG));
    }

    /// Says something without asking the core.
    fn say(&mut self, mark: Mark, write: impl FnOnce(&mut Vec<u8>)) {
        frame::write_raw(self.replies, mark as u32, write);
    }
}

impl Translate for Xmpp {
    fn received(&mut self, bytes: &[u8], core: &mut Core<'_>, frames: &mut Vec<u8>, replies: &mut Vec<u8>) -> Result<Next, Reason> {
        let mut turn = Turn { core, frames, replies };
        let read = self.read(bytes, &mut turn);
        self.concluded(read, replies)
    }

    fn send(&mut self, frames: &[u8], core: &mut Core<'_>, out: &mut Vec<u8>) {
        self.translate(frames, core, out);
        self.go_on(core, out);
        self.tell_stream(core, out);
    }

    fn lost(&mut self, core: &mut Core<'_>) {
        if let Some(counting) = &self.counting {
            core.xmpp.streams.lost(counting, core.wall_ms);
        }
    }

    /// RFC 6121 4.5.2: who is lost is unavailable, unless XEP-0198 lets them come back.
    fn resumable_ms(&self) -> u32 {
        self.counting.as_ref().map_or(0, |counting| counting.within_ms)
    }

    fn form(&self) -> Form {
        Form::Xmpp
    }

    fn secured(&mut self) {
        self.private = true;
        self.direct = self.stage == Stage::Opening;
        self.stage = Stage::Opening;
        self.reader = Reader::default();
        self.entry = None;
        self.waiting = ThinVec::new();
    }

    fn heap_bytes(&self) -> usize {
        let waiting = self.waiting.capacity() * size_of::<(u32, Question)>();
        let entry = self.entry.as_ref().map_or(0, |entry| entry.heap_bytes());
        let counting = self.counting.as_ref().map_or(0, |_| size_of::<Counting>());
        let entry = entry + self.announced.as_ref().map_or(0, |announced| announced.heap_bytes());
        size_of::<Xmpp>() + self.reader.heap_bytes() + self.jid.len() + self.language.len() + waiting + entry + counting
    }
}
