//! Who is at the other end: tokens, passwords, trunks, and sessions that are resumed. What comes of it is a request to the user's
//! home, which makes the session.

use super::connection::Doorway;
use super::entrant::{Entrant, Tokens};
use super::hook::Proof;
use super::{PasswordTask, Shard, Whose, Work, Worked};
use crate::base::credentials::ScramCredentials;
use crate::base::hashed::Token;
use crate::base::id::{ConnId, CoreId, SessionId, first_of_life, home_of_slot, slot_of};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::front::Mechanism;
use crate::front::native::Door;
use crate::front::sasl::{self, PlainCheck, Scram, Terms};
use crate::presence::control::{Asker, Attach, Control, EdgeRef, Resume, SessionEnd, UserRef};
use crate::presence::errand::What;
use crate::wire::encode::Tag;
use crate::wire::lines::Marks;
use crate::wire::native;
use crate::wire::presence::PresenceView;
use ahash::RandomState;
use std::collections::HashMap;

/// Longest resource taken, in bytes.
const RESOURCE_BYTES: usize = 255;

/// What the door of a connection must be told, once it's back in its place.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Challenged,
    Authenticated,
    Opened,
    OpenedTrunk,
    Refused,
    Registered,
    /// The home has ended the session; the connection may log in anew.
    Ended,
}

/// A log-in under way on a connection.
struct LogIn {
    entrant: Entrant,
    request: u32,
    waits_for: Step,
}

/// What a log-in under way waits for.
enum Step {
    /// The user's home, which has been asked something.
    Home { nonce: u32, then: Then },
    /// The client's proof.
    Proof(Scram),
    /// Another thread, which checks a password, or the service outside.
    Check,
    /// Another thread, which derives the keys of a new account's password.
    Derive,
    /// Bind, or what comes of one. `create` as in Attach.
    Bind { create: bool },
}

/// What is done with the home's answer.
pub(super) enum Then {
    /// The challenge follows from the keys; with the client's first message.
    Scram(Terms, Vec<u8>),
    /// This password is checked.
    Plain(String),
    Hashed {
        bound: bool,
    },
    /// The client is told its new token. As in `admit`.
    Token {
        create: bool,
        data: Vec<u8>,
    },
    /// The account is there.
    Registered,
}

/// The log-ins under way, by connection: one each, and none outlives its connection.
pub(super) struct LogIns {
    under_way: HashMap<ConnId, LogIn, RandomState>,
    last_nonce: u32,
}

impl LogIns {
    /// `epoch`: of the node's life. An answer to another one's question is none.
    pub(super) fn new(hasher: RandomState, epoch: u32) -> LogIns {
        LogIns { under_way: HashMap::with_hasher(hasher), last_nonce: first_of_life(epoch) }
    }

    /// A connection waits for its user's home. Gives what the answer must name.
    pub(super) fn waits_for_home(&mut self, conn: ConnId, tag: Tag, entrant: Entrant, then: Then) -> u32 {
        self.last_nonce = self.last_nonce.wrapping_add(1);
        let nonce = self.last_nonce;
        self.under_way.insert(conn, LogIn { entrant, request: tag.request, waits_for: Step::Home { nonce, then } });
        nonce
    }

    /// An answer has come; `None`: nobody waits for it any more.
    pub(super) fn go_on(&mut self, conn: ConnId, answered: u32) -> Option<(Entrant, u32, Then)> {
        match self.take(conn, |step| matches!(step, Step::Home { nonce, .. } if *nonce == answered))? {
            LogIn { entrant, request, waits_for: Step::Home { then, .. } } => Some((entrant, request, then)),
            _ => None,
        }
    }

    /// A log-in goes on, if that's what it waits for: so each is decided once, whatever else is heard of it.
    fn take(&mut self, conn: ConnId, waits: impl FnOnce(&Step) -> bool) -> Option<LogIn> {
        self.under_way.get(&conn).filter(|log_in| waits(&log_in.waits_for))?;
        self.under_way.remove(&conn)
    }

    /// Who waits for the homes of such users, and the nonces.
    pub(super) fn waiting(&self, is_meant: impl Fn(&Bare) -> bool) -> Vec<(ConnId, u32)> {
        let waiting = self.under_way.iter().filter(|(_, log_in)| is_meant(&log_in.entrant.jid));
        let waiting = waiting.filter_map(|(&conn, log_in)| match log_in.waits_for {
            Step::Home { nonce, .. } => Some((conn, nonce)),
            _ => None,
        });
        let mut waiting: Vec<(ConnId, u32)> = waiting.collect();
        waiting.sort_unstable_by_key(|(conn, _)| conn.slot);
        waiting
    }

    /// A connection waits for the keys of a new account.
    pub(super) fn registers(&mut self, conn: ConnId, jid: Bare, request: u32) {
        let entrant = Entrant { jid, resource: String::new(), presence: Vec::new(), bind_later: false, tokens: Tokens::none() };
        self.under_way.insert(conn, LogIn { entrant, request, waits_for: Step::Derive });
    }

    /// A connection waits for what others say of it.
    pub(super) fn waits_for_check(&mut self, conn: ConnId, tag: Tag, entrant: Entrant) {
        self.under_way.insert(conn, LogIn { entrant, request: tag.request, waits_for: Step::Check });
    }

    pub(super) fn is_registering(&self, conn: ConnId) -> bool {
        self.under_way.get(&conn).is_some_and(|log_in| matches!(log_in.waits_for, Step::Derive))
    }

    /// The keys are there, or never will be. Gives who it is and the number of the request.
    pub(super) fn derived(&mut self, conn: ConnId) -> Option<(Entrant, u32)> {
        self.take(conn, |step| matches!(step, Step::Derive)).map(|log_in| (log_in.entrant, log_in.request))
    }

    pub(super) fn forget(&mut self, conn: ConnId) {
        self.under_way.remove(&conn);
    }
}

impl Shard {
    /// A client or a trunk's stream wants to log in. Gives the core to which the connection must go first, if it's another.
    pub(super) fn log_in(
        &mut self,
        now: Time,
        conn: ConnId,
        tag: Tag,
        log_in: native::LogIn<'_>,
        presence: Option<PresenceView<'_>>,
    ) -> Option<CoreId> {
        let data = log_in.data().map_or(&[][..], |data| data.bytes());
        if tag.stream != 0 {
            self.stream_log_in(conn, tag, log_in, presence);
            return None;
        }
        let channel = self.translators.channel(conn.slot);
        let mechanism = log_in.mechanism().and_then(Mechanism::from_name).filter(|m| self.settings.takes(*m, channel));
        let Some(mechanism) = mechanism else {
            self.refuse_log_in(conn, tag, Reason::LogInFailed, "the mechanism is not among those in Hello");
            return None;
        };
        if mechanism == Mechanism::Trunk {
            self.trunk_log_in(now, conn, tag, data);
            return None;
        }
        let entrant = match self.entrant(log_in, presence) {
            Ok(entrant) => entrant,
            Err((reason, detail)) => {
                self.refuse_log_in(conn, tag, reason, detail);
                return None;
            }
        };
        let near = self.near(&entrant.jid);
        if near != self.settings.core {
            return Some(near);
        }
        match mechanism {
            Mechanism::Token => match self.settings.token_keys.verify_user(data, &entrant.jid, self.homes.place.wall(now)) {
                Ok(()) => self.admit(conn, tag, entrant, true, Vec::new()),
                Err(fault) => self.foreign_token(conn, tag, entrant, data, fault),
            },
            Mechanism::Scram { hash, bound } => {
                let terms = Terms { hash, bound, channel: channel.bindings() };
                self.ask_home(conn, tag, entrant, What::Keys, Then::Scram(terms, data.to_vec()));
            }
            Mechanism::Plain => self.plain(conn, tag, entrant, data),
            Mechanism::Hashed { bound } => {
                let channel = channel.bindings().exporter.filter(|_| bound);
                self.hashed(conn, tag, entrant, channel, data);
            }
            Mechanism::Trunk => unreachable!("handled above"),
        }
        None
    }

    fn entrant(&self, log_in: native::LogIn<'_>, presence: Option<PresenceView<'_>>) -> Result<Entrant, (Reason, &'static str)> {
        let (resource, bind_later) = (log_in.resource().unwrap_or_default(), log_in.bind_later());
        if bind_later && (presence.is_some() || !resource.is_empty()) {
            return Err((Reason::BadRequest, "with bind_later, resource and presence come in Bind"));
        }
        fits(resource, presence)?;
        let tokens = Tokens::read(&log_in)?;
        let jid = self.user_of(log_in.jid().unwrap_or_default())?;
        let presence = presence.map_or(Vec::new(), |presence| presence.bytes.to_vec());
        Ok(Entrant { jid, resource: resource.to_owned(), presence, bind_later, tokens })
    }

    pub(super) fn user_of(&self, jid: &str) -> Result<Bare, (Reason, &'static str)> {
        let jid = Bare::new(jid).ok_or((Reason::BadJid, ""))?;
        if jid.domain() == self.settings.domain { Ok(jid) } else { Err((Reason::LogInFailed, "")) }
    }

    pub(super) fn scram_first(
        &mut self,
        conn: ConnId,
        tag: Tag,
        entrant: Entrant,
        terms: Terms,
        data: &[u8],
        credentials: &ScramCredentials,
    ) {
        let nonce = self.nonce();
        match Scram::start(terms, data, &entrant.jid, credentials, nonce) {
            None => self.refuse_log_in(conn, tag, Reason::LogInFailed, ""),
            Some((scram, challenge)) => {
                self.log_ins.under_way.insert(conn, LogIn { entrant, request: tag.request, waits_for: Step::Proof(scram) });
                self.outcomes.push((conn, Outcome::Challenged));
                self.frames.clear();
                self.encoder.sasl_challenge(&mut self.frames, tag, &challenge);
                self.out.lines.append(conn.slot, &self.frames);
            }
        }
    }

    pub(super) fn sasl_response(&mut self, conn: ConnId, tag: Tag, data: &[u8]) {
        let finished = self.log_ins.under_way.remove(&conn).and_then(|log_in| match log_in.waits_for {
            Step::Proof(scram) => Some((scram.finish(data)?, log_in.entrant)),
            Step::Home { .. } | Step::Check | Step::Derive | Step::Bind { .. } => None,
        });
        match finished {
            None => self.refuse_log_in(conn, tag, Reason::LogInFailed, ""),
            Some((signature, entrant)) => self.admit(conn, tag, entrant, false, signature),
        }
    }

    fn plain(&mut self, conn: ConnId, tag: Tag, entrant: Entrant, data: &[u8]) {
        match sasl::plain_password(data, &entrant.jid).map(str::to_owned) {
            Some(password) => self.ask_home(conn, tag, entrant, What::Keys, Then::Plain(password)),
            None => self.refuse_log_in(conn, tag, Reason::LogInFailed, ""),
        }
    }

    /// A password takes a millisecond to check: another thread does it. Of a user who has none, the service is asked.
    pub(super) fn check_plain(
        &mut self,
        conn: ConnId,
        tag: Tag,
        entrant: Entrant,
        password: String,
        credentials: ScramCredentials,
        known: bool,
    ) {
        if self.settings.hook && !known {
            return self.ask_hook(conn, tag, entrant, Proof::Password(password));
        }
        let check = PlainCheck::new(password, credentials);
        self.log_ins.waits_for_check(conn, tag, entrant);
        self.checks.push(PasswordTask { whose: Whose::Connection(conn), work: Work::Check(check) });
    }

    /// Others have said whether somebody may log in. `None`: they have too much to do.
    pub(super) fn checked(&mut self, conn: ConnId, worked: Option<Worked>) {
        let (outcome, create) = match worked {
            Some(Worked::Checked(right)) => (if right { Ok(()) } else { Err(Reason::LogInFailed) }, false),
            Some(Worked::Judged { verdict, nanos }) => (self.judged(verdict, nanos), true),
            Some(Worked::Derived(_)) | None => (Err(Reason::Overloaded), false),
        };
        // It may have gone meanwhile.
        let waiting = self.log_ins.take(conn, |step| matches!(step, Step::Check));
        let Some(LogIn { entrant, request, .. }) = waiting else { return };
        let tag = Tag { stream: 0, request };
        match outcome {
            Ok(()) => self.admit(conn, tag, entrant, create, Vec::new()),
            Err(reason) => self.refuse_log_in(conn, tag, reason, ""),
        }
    }

    fn trunk_log_in(&mut self, now: Time, conn: ConnId, tag: Tag, token: &[u8]) {
        match self.settings.trunk_keys.verify_trunk(token, self.homes.place.wall(now)) {
            Err(_) => self.refuse_log_in(conn, tag, Reason::LogInFailed, ""),
            Ok(_) => {
                let limits = &self.settings.limits;
                self.out.lines.set_marks(conn, Marks { high: limits.trunk_high_water_bytes, most: limits.trunk_backlog_bytes });
                self.outcomes.push((conn, Outcome::OpenedTrunk));
                self.frames.clear();
                self.encoder.done(&mut self.frames, tag);
                self.out.lines.append(conn.slot, &self.frames);
            }
        }
    }

    /// A trunk vouches for its users.
    fn stream_log_in(&mut self, conn: ConnId, tag: Tag, log_in: native::LogIn<'_>, presence: Option<PresenceView<'_>>) {
        let refusal = match self.entrant(log_in, presence) {
            Err(refusal) => Some(refusal),
            Ok(entrant) if entrant.bind_later => Some((Reason::BadRequest, "a trunk's streams are bound at once")),
            Ok(entrant) => {
                let full = self.out.refusal(self.out.map.home_of(&entrant.jid)).map(|reason| (reason, ""));
                let refusal = full.or_else(|| self.stream_refusal(conn, tag));
                if refusal.is_none() {
                    self.attach(conn, tag, entrant, true, Vec::new());
                }
                refusal
            }
        };
        if let Some((reason, detail)) = refusal {
            self.say_error(conn, tag, reason, detail);
        }
    }

    /// Why no session can have this stream.
    fn stream_refusal(&self, conn: ConnId, tag: Tag) -> Option<(Reason, &'static str)> {
        if tag.stream > self.settings.limits.streams_per_trunk {
            return Some((Reason::TooManyStreams, "the stream's number"));
        }
        self.edge.find(conn.slot, tag.stream).map(|_| (Reason::StreamInUse, ""))
    }

    /// The client is who it says.
    pub(super) fn admit(&mut self, conn: ConnId, tag: Tag, entrant: Entrant, create: bool, data: Vec<u8>) {
        if !entrant.bind_later {
            return self.attach(conn, tag, entrant, create, data);
        }
        match entrant.tokens.wanted.filter(|_| self.token_life() > 0) {
            None => self.authenticated(conn, tag, entrant, create, &data, None),
            Some(bound) => {
                let what = What::Issue { client: entrant.tokens.client.clone(), bound };
                self.ask_home(conn, tag, entrant, what, Then::Token { create, data });
            }
        }
    }

    /// The client hears that it may bind a session, and its new token.
    pub(super) fn authenticated(
        &mut self,
        conn: ConnId,
        tag: Tag,
        entrant: Entrant,
        create: bool,
        data: &[u8],
        token: Option<&Token>,
    ) {
        let log_in = LogIn { entrant, request: tag.request, waits_for: Step::Bind { create } };
        self.log_ins.under_way.insert(conn, log_in);
        self.outcomes.push((conn, Outcome::Authenticated));
        self.frames.clear();
        let token = token.map(|token| (token.text.as_str(), token.until.0));
        self.encoder.authenticated(&mut self.frames, tag, data, token);
        self.out.lines.append(conn.slot, &self.frames);
    }

    /// A client that has proved who it is wants its session. It may try again until it has one.
    pub(super) fn bind(&mut self, conn: ConnId, tag: Tag, resource: &str, presence: Option<PresenceView<'_>>) {
        if let Err((reason, detail)) = fits(resource, presence) {
            return self.refuse_log_in(conn, tag, reason, detail);
        }
        let Some(LogIn { entrant, waits_for: Step::Bind { create }, .. }) = self.log_ins.under_way.get(&conn) else {
            unreachable!("the door lets nobody bind who was not admitted")
        };
        let presence = presence.map_or(Vec::new(), |presence| presence.bytes.to_vec());
        let (jid, create) = (entrant.jid.clone(), *create);
        self.attach(
            conn,
            tag,
            Entrant { jid, resource: resource.to_owned(), presence, bind_later: false, tokens: Tokens::none() },
            create,
            Vec::new(),
        );
    }

    fn attach(&mut self, conn: ConnId, tag: Tag, entrant: Entrant, create: bool, data: Vec<u8>) {
        let home = self.out.map.home_of(&entrant.jid);
        // A node that is not found yet may not know that what it is told now is no part of a life that it takes for lost.
        if let Some(reason) = self.out.refusal(home).filter(|_| home.node != self.out.map.here.node) {
            return self.refuse_log_in(conn, tag, reason, "");
        }
        let edge = self.edge.open(conn, tag.stream);
        let asker = Asker { edge, request: tag.request };
        self.note_log_in(asker, home, &entrant.jid);
        let Entrant { jid, resource, presence, .. } = entrant;
        self.out.send(home, Control::Attach(Box::new(Attach { jid, resource, create, asker, data, presence })));
    }

    /// The core of this node that a user's connection goes to: all that needs no other node is there.
    pub(super) fn near(&self, jid: &Bare) -> CoreId {
        home_of_slot(slot_of(jid.as_str()), self.settings.cores)
    }

    /// A client goes on with a session whose connection broke.
    pub(super) fn resume(&mut self, conn: ConnId, tag: Tag, resume: native::Resume<'_>) -> Option<CoreId> {
        let jid = match self.user_of(resume.jid()) {
            Ok(jid) => jid,
            Err((reason, detail)) => {
                self.refuse_log_in(conn, tag, reason, detail);
                return None;
            }
        };
        let near = self.near(&jid);
        if tag.stream == 0 && near != self.settings.core {
            return Some(near);
        }
        let home = self.out.map.home_of(&jid);
        if let Some(reason) = self.out.refusal(home) {
            self.refuse_log_in(conn, tag, reason, "");
            return None;
        }
        if let Some((reason, detail)) = self.stream_refusal(conn, tag) {
            self.say_error(conn, tag, reason, detail);
            return None;
        }
        let asker = Asker { edge: self.edge.open(conn, tag.stream), request: tag.request };
        self.note_log_in(asker, home, &jid);
        let resume = Resume { jid, token: resume.token().bytes().to_vec(), received: resume.received(), asker };
        self.out.send(home, Control::Resume(Box::new(resume)));
        None
    }

    /// A log-in has failed: a connection of its own may try again, a few times.
    pub(super) fn refuse_log_in(&mut self, conn: ConnId, tag: Tag, reason: Reason, detail: &str) {
        self.say_error(conn, tag, reason, detail);
        if tag.stream == 0 {
            self.outcomes.push((conn, Outcome::Refused));
        }
    }

    /// A request failed at the home; a log-in among them leaves no session behind.
    pub(super) fn request_failed(&mut self, edge: EdgeRef, request: u32, reason: Reason, detail: &str) {
        let Some(session) = self.edge.get(edge) else { return };
        let (conn, tag) = (session.conn, Tag { stream: session.stream, request });
        if session.home.is_some() {
            return self.say_error(conn, tag, reason, detail);
        }
        self.edge.close(edge, &mut self.out);
        self.refuse_log_in(conn, tag, reason, detail);
    }

    pub(super) fn log_in_ended(&mut self, conn: ConnId, stream: u32) {
        if stream == 0 {
            self.log_ins.forget(conn);
            self.out.lines.set_form(conn, self.translators.form(conn.slot));
            self.outcomes.push((conn, Outcome::Opened));
        }
    }

    /// A connection's session is over: from now on the client has as long as a new one for its log-in.
    pub(super) fn session_over(&mut self, conn: ConnId) {
        self.out.lines.hold(conn, false);
        if let Some(connection) = self.connection(conn) {
            connection.accepted = connection.heard;
        }
    }

    /// A session came into being whose connection has gone meanwhile.
    pub(super) fn detach_unseen(&mut self, edge: EdgeRef, at: UserRef, session: SessionId) {
        let home = self.out.map.home(at.user);
        self.out.send(home, Control::Detach { at, session, edge, end: SessionEnd::Ended });
    }

    /// Tells the doors what came of their log-ins, in order: a session may be opened and ended in one go.
    pub(super) fn tell_doors(&mut self) {
        for (conn, outcome) in std::mem::take(&mut self.outcomes) {
            let rules = self.rules;
            let Some(door) = self.door(conn) else { continue };
            match outcome {
                Outcome::Challenged => door.challenged(),
                Outcome::Authenticated => door.authenticated(),
                Outcome::Opened => door.opened(),
                Outcome::OpenedTrunk => door.opened_trunk(),
                Outcome::Registered => door.registered(),
                Outcome::Ended => door.ended(),
                Outcome::Refused => {
                    if let Err(reason) = door.refused(&rules) {
                        self.end_connection(conn, reason, "");
                    }
                }
            }
        }
    }

    fn door(&mut self, conn: ConnId) -> Option<&mut Door> {
        match &mut self.connection(conn)?.door {
            Doorway::Here(door) => Some(door),
            _ => None,
        }
    }

    fn nonce(&mut self) -> [u8; crate::front::sasl::NONCE_BYTES] {
        let (a, b) = (self.secrets.bytes16(), self.secrets.bytes16());
        let mut nonce = [0; crate::front::sasl::NONCE_BYTES];
        nonce[..16].copy_from_slice(&a);
        nonce[16..].copy_from_slice(&b[..crate::front::sasl::NONCE_BYTES - 16]);
        nonce
    }
}

/// Whether a session may have this resource, and this first presence.
fn fits(resource: &str, presence: Option<PresenceView<'_>>) -> Result<(), (Reason, &'static str)> {
    if resource.len() > RESOURCE_BYTES || resource.chars().any(char::is_control) {
        return Err((Reason::BadRequest, "the resource is too long or has control characters"));
    }
    if presence.is_some_and(|presence| resource.is_empty() || presence.resource != resource) {
        return Err((Reason::WrongResource, "a log-in's presence must name the resource wanted"));
    }
    Ok(())
}
