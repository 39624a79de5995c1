//! One user's session over one connection, blocking.
//!
//! Lives on: the thread of its owner. What arrives while an answer is awaited is kept for `next_event`.

use super::connection::{Connection, Error, wrong};
use super::inbox::Inbox;
use super::sasl::{SaslError, Scram, Showing, plain, token_mechanism};
use super::tls::Tls;
use super::tokens::{Tokens, Wish};
use super::values::{Answer, Contact, Document, Event, Greeting, HashedToken, LastSeen, LoggedIn, Presence, Roster};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::wire::encode::{Encoder, LogInFields, MessageFields, PresenceFields, SubscriptionFields, Tag};
use crate::wire::native::{Access, Action};
use std::time::{Duration, Instant};

/// How to prove who we are.
#[derive(Clone, Copy)]
pub enum LogIn<'a> {
    /// A token of the operator's log-in service.
    Token(&'a str),
    /// A password, which SCRAM-SHA-256 proves without sending it, and which makes the server prove itself too. Inside TLS 1.3 the
    /// proof holds for this very connection (-PLUS).
    Password(&'a str),
    /// A password sent as it is (PLAIN).
    PlainPassword(&'a str),
    /// The token of an earlier log-in. The server proves that it has it too.
    Hashed(&'a HashedToken),
}

/// One user's session.
pub struct Client {
    connection: Connection,
    address: String,
    tls: Option<Tls>,
    greeting: Greeting,
    logged_in: Option<LoggedIn>,
    tokens: Tokens,
}

impl Client {
    /// Connects to a node's native address, `host:port`. `timeout` is the longest wait for the connection and for each answer.
    pub fn connect(address: &str, timeout: Duration) -> Result<Client, Error> {
        Client::open(address, None, timeout)
    }

    /// The same, inside TLS; so are the connections of `resume` and `follow`.
    pub fn connect_tls(address: &str, tls: &Tls, timeout: Duration) -> Result<Client, Error> {
        Client::open(address, Some(tls.clone()), timeout)
    }

    fn open(address: &str, tls: Option<Tls>, timeout: Duration) -> Result<Client, Error> {
        let (connection, greeting) = Connection::open(address, tls.as_ref(), timeout, Inbox::of_session())?;
        let address = address.to_owned();
        Ok(Client { connection, address, tls, greeting, logged_in: None, tokens: Tokens::default() })
    }

    /// What the server said of itself.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Who we are.
    pub fn logged_in(&self) -> Option<&LoggedIn> {
        self.logged_in.as_ref()
    }

    /// Makes an account, where the node lets people make them. `log_in` may follow.
    pub fn register(&mut self, jid: &str, password: &str) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.register(out, tag, jid, password))
    }

    /// Gives our account another password.
    pub fn set_password(&mut self, password: &str) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.password_set(out, tag, password))
    }

    /// Removes our account, and ends all its sessions.
    pub fn remove_account(&mut self) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.account_remove(out, tag))
    }

    /// From now on a log-in also brings a token that lets this client in again without its password, if the server gives any:
    /// `hashed_token` is it. `client` is what this program on this machine calls itself, always the same.
    pub fn remember_as(&mut self, client: &str) {
        self.tokens.wish(Wish::Bring(client.to_owned()));
    }

    /// The next log-in voids all tokens of this client.
    pub fn forget_as(&mut self, client: &str) {
        self.tokens.wish(Wish::Void(client.to_owned()));
    }

    /// The token for the next log-in, which may come after the program has ended. Each log-in changes it, so keep it after each.
    pub fn hashed_token(&self) -> Option<&HashedToken> {
        self.tokens.kept.as_ref()
    }

    /// Logs in. The server makes up an empty `resource`. The session is not seen by anybody until `set_presence`.
    pub fn log_in(&mut self, jid: &str, how: LogIn<'_>, resource: &str) -> Result<&LoggedIn, Error> {
        self.enter(jid, how, resource, b"")
    }

    /// Logs in and tells everybody subscribed to us, in one round trip; with hashed tokens, in two. `resource` may not be empty;
    /// the presence's is filled in.
    ///
    /// Errors: `Refused` with `WrongResource` when it is empty.
    pub fn log_in_with(&mut self, jid: &str, how: LogIn<'_>, resource: &str, presence: &Presence) -> Result<&LoggedIn, Error> {
        let presence = self.connection.encoder.presence(&PresenceFields { resource, ..presence.fields() });
        self.enter(jid, how, resource, &presence)
    }

    /// Proves who we are; `bind` then makes the session. For those who learn the resource between the two.
    pub fn authenticate(&mut self, jid: &str, how: LogIn<'_>) -> Result<(), Error> {
        let shown = if let LogIn::Hashed(token) = how { Some(token) } else { None };
        let said = self.tokens.begin(shown, token_mechanism(self.connection.binding(), &self.greeting.mechanisms));
        match self.prove(jid, how, said.fields()) {
            Ok(Answer::Authenticated(_, given)) => {
                self.tokens.end(said, given);
                Ok(())
            }
            Ok(other) => Err(wrong(&other)),
            Err(error) => {
                if shown.is_some() && matches!(error.reason(), Some(Reason::LogInFailed | Reason::TokenExpired)) {
                    self.tokens.kept = None;
                }
                Err(error)
            }
        }
    }

    /// After `authenticate`: the session. It may be tried again with another resource when this one is refused.
    pub fn bind(&mut self, resource: &str) -> Result<&LoggedIn, Error> {
        self.bind_with(resource, b"")
    }

    fn bind_with(&mut self, resource: &str, presence: &[u8]) -> Result<&LoggedIn, Error> {
        let answer = self.connection.request(0, |encoder, out, tag| encoder.bind(out, tag, resource, presence))?;
        self.logged_in_as(answer)
    }

    /// A log-in that says something of hashed tokens has two steps.
    fn enter(&mut self, jid: &str, how: LogIn<'_>, resource: &str, presence: &[u8]) -> Result<&LoggedIn, Error> {
        if self.tokens.has_wish() || matches!(how, LogIn::Hashed(_)) {
            self.authenticate(jid, how)?;
            return self.bind_with(resource, presence);
        }
        let answer = self.prove(jid, how, LogInFields { resource, presence, ..LogInFields::default() })?;
        self.logged_in_as(answer)
    }

    fn prove(&mut self, jid: &str, how: LogIn<'_>, fields: LogInFields<'_>) -> Result<Answer, Error> {
        let user = Bare::new(jid).ok_or_else(|| Error::BadJid(jid.to_owned()))?;
        let fields = LogInFields { jid: user.as_str(), ..fields };
        self.connection.inbox.new_session(0);
        match how {
            LogIn::Token(token) => self.ask_in(LogInFields { mechanism: "TOKEN", data: token.as_bytes(), ..fields }),
            LogIn::PlainPassword(password) => {
                let data = plain(&user, password)?;
                self.ask_in(LogInFields { mechanism: "PLAIN", data: &data, ..fields })
            }
            LogIn::Password(password) => self.scram(&user, password, fields),
            LogIn::Hashed(token) => {
                let showing = Showing::of(token, &user, self.connection.binding())?;
                let answer = self.ask_in(LogInFields { mechanism: showing.mechanism, data: &showing.message, ..fields })?;
                checked(answer, |data| showing.check(data))
            }
        }
    }

    fn ask_in(&mut self, fields: LogInFields<'_>) -> Result<Answer, Error> {
        self.connection.request(0, |encoder, out, tag| encoder.log_in(out, tag, &fields))
    }

    fn scram(&mut self, user: &Bare, password: &str, fields: LogInFields<'_>) -> Result<Answer, Error> {
        let (scram, first) = Scram::start(user, password, self.connection.binding(), &self.greeting.mechanisms)?;
        let challenge = self.ask_in(LogInFields { mechanism: scram.mechanism(), data: &first, ..fields })?;
        let Answer::Challenge(challenge) = challenge else { return Err(wrong(&challenge)) };
        let (proof, response) = scram.respond(&challenge)?;
        let answer = self.connection.request(0, |encoder, out, tag| encoder.sasl_response(out, tag, &response))?;
        checked(answer, |data| proof.check(data))
    }

    fn logged_in_as(&mut self, answer: Answer) -> Result<&LoggedIn, Error> {
        match answer {
            Answer::LoggedIn(logged_in) => Ok(self.logged_in.insert(logged_in)),
            other => Err(wrong(&other)),
        }
    }

    /// Goes on with the session over a new connection to the same node, after the old one broke.
    ///
    /// Errors: `Refused` with `ResumeFailed` when the session has ended: connect and log in anew.
    pub fn resume(&mut self) -> Result<&LoggedIn, Error> {
        let address = self.address.clone();
        self.follow(&address)
    }

    /// Gets back in after the connection broke: goes on with the session, or if that has ended, logs in anew by the token, under
    /// the same resource. `resumed` in what comes of it tells which: of a new session, presence is to be set and the roster asked
    /// for.
    ///
    /// Errors: `Refused` with `ResumeFailed` when the session has ended and there is no token; with another reason when the token
    /// is no longer good.
    pub fn reconnect(&mut self) -> Result<&LoggedIn, Error> {
        if let Err(error) = self.resume().map(drop) {
            let (Some(Reason::ResumeFailed), Some(token)) = (error.reason(), self.tokens.kept.clone()) else { return Err(error) };
            let was = self.logged_in.clone().ok_or(error)?;
            self.log_in(was.bare_jid(), LogIn::Hashed(&token), was.resource())?;
        }
        self.logged_in.as_ref().ok_or(Error::NotLoggedIn)
    }

    /// Goes on with the session at another node, as `Event::Transfer` asks. What waits in `next_event` stays there.
    pub fn follow(&mut self, address: &str) -> Result<&LoggedIn, Error> {
        let LoggedIn { resume, .. } = self.logged_in.clone().ok_or(Error::NotLoggedIn)?;
        let bare = self.logged_in.as_ref().map_or("", LoggedIn::bare_jid).to_owned();
        let timeout = self.connection.timeout;
        let (mut connection, greeting) = Connection::open(address, self.tls.as_ref(), timeout, Inbox::of_session())?;
        // The new connection goes on where the old one was: events not yet asked for, versions, messages received.
        std::mem::swap(&mut connection.inbox, &mut self.connection.inbox);
        connection.inbox.reconnected();
        (self.connection, self.greeting, self.address) = (connection, greeting, address.to_owned());
        let received = self.connection.inbox.received(0);
        let answer = self.connection.request(0, |encoder, out, tag| encoder.resume(out, tag, &bare, &resume, received))?;
        self.logged_in_as(answer)
    }

    /// Tells everybody subscribed to us. The resource is filled in.
    pub fn set_presence(&mut self, presence: &Presence) -> Result<(), Error> {
        let presence = self.own(presence)?;
        self.done(|encoder, out, tag| encoder.set_presence(out, tag, &presence.fields()))
    }

    /// Tells one user or session only (RFC 6121 4.6). The resource is filled in.
    pub fn set_directed_presence(&mut self, to: &str, presence: &Presence) -> Result<(), Error> {
        let presence = self.own(presence)?;
        self.done(|encoder, out, tag| {
            let presence = encoder.presence(&presence.fields());
            encoder.directed_presence(out, tag, to, &presence);
        })
    }

    fn own(&self, presence: &Presence) -> Result<Presence, Error> {
        let resource = self.logged_in.as_ref().ok_or(Error::NotLoggedIn)?.resource().to_owned();
        Ok(Presence { resource, ..presence.clone() })
    }

    /// Asks to be told of a user's presence.
    pub fn subscribe(&mut self, jid: &str, note: &str) -> Result<(), Error> {
        self.subscription(Action::Subscribe, jid, note)
    }

    /// Lets a user be told of ours, who asked or may ask later.
    pub fn approve(&mut self, jid: &str) -> Result<(), Error> {
        self.subscription(Action::Subscribed, jid, "")
    }

    /// Refuses a user who asked, or takes an approval back.
    pub fn deny(&mut self, jid: &str) -> Result<(), Error> {
        self.subscription(Action::Unsubscribed, jid, "")
    }

    /// Wants to be told of a user's presence no longer.
    pub fn unsubscribe(&mut self, jid: &str) -> Result<(), Error> {
        self.subscription(Action::Unsubscribe, jid, "")
    }

    fn subscription(&mut self, action: Action, jid: &str, note: &str) -> Result<(), Error> {
        self.send_subscription(&SubscriptionFields { action, jid, note, ..SubscriptionFields::default() })
    }

    /// A subscription stanza, whole.
    pub fn send_subscription(&mut self, fields: &SubscriptionFields<'_>) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.subscription(out, tag, fields))
    }

    pub fn roster(&mut self) -> Result<Vec<Contact>, Error> {
        Ok(self.roster_since("")?.contacts)
    }

    /// The roster, unless it still has this version, which we have kept (RFC 6121 2.6).
    pub fn roster_since(&mut self, version: &str) -> Result<Roster, Error> {
        match self.connection.request(0, |encoder, out, tag| encoder.roster_since(out, tag, version))? {
            Answer::Roster(roster) => Ok(roster),
            other => Err(wrong(&other)),
        }
    }

    /// Keeps a document at the server; without data, removes it.
    pub fn set_document(&mut self, name: &str, data: &[u8], access: Access) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.document_set(out, tag, name, data, access))
    }

    /// A document of a user; of our own when `jid` is empty.
    pub fn document(&mut self, jid: &str, name: &str) -> Result<Document, Error> {
        match self.connection.request(0, |encoder, out, tag| encoder.document_get(out, tag, jid, name))? {
            Answer::Document(document) => Ok(document),
            other => Err(wrong(&other)),
        }
    }

    /// The names of documents to hear of from now on, our own and those of users whose presence we see. They come as events.
    pub fn set_interests(&mut self, names: &[&str]) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.interests(out, tag, names))
    }

    /// All of them are to come once more: some may have been missed.
    pub fn tell_again(&mut self) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.interests_again(out, tag))
    }

    /// When a user was last here, whose presence we may see.
    pub fn last_seen(&mut self, jid: &str) -> Result<LastSeen, Error> {
        match self.connection.request(0, |encoder, out, tag| encoder.last_seen_get(out, tag, jid))? {
            Answer::LastSeen(seen) => Ok(seen),
            other => Err(wrong(&other)),
        }
    }

    /// Names and groups a contact.
    pub fn set_contact(&mut self, jid: &str, name: &str, groups: &[&str]) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.roster_set(out, tag, jid, name, groups))
    }

    /// Removes a contact, and both subscriptions with it.
    pub fn remove_contact(&mut self, jid: &str) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.roster_remove(out, tag, jid))
    }

    /// Neither hears from a user nor is heard by one who is blocked.
    pub fn block(&mut self, jid: &str) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.block(out, tag, jid, true))
    }

    pub fn unblock(&mut self, jid: &str) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.block(out, tag, jid, false))
    }

    pub fn unblock_all(&mut self) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.block(out, tag, "", false))
    }

    /// Whom we have blocked. From then on, changes of that come as events.
    pub fn block_list(&mut self) -> Result<Vec<String>, Error> {
        match self.connection.request(0, |encoder, out, tag| encoder.block_list_get(out, tag))? {
            Answer::BlockList(jids) => Ok(jids),
            other => Err(wrong(&other)),
        }
    }

    /// Sends a message to a user (a bare JID) or to one session (a full one). `id` is our own name for it.
    pub fn send_message(&mut self, to: &str, id: &str, body: &[u8]) -> Result<(), Error> {
        self.send(&MessageFields { to, id, body, ..MessageFields::default() })
    }

    /// Sends a message of any kind. An answer to it, of the kinds Result and Failure, is a message too.
    pub fn send(&mut self, message: &MessageFields<'_>) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.message(out, tag, message))
    }

    /// Whether we want copies of what our other sessions send and receive (XEP-0280).
    pub fn set_carbons(&mut self, enabled: bool) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.carbons(out, tag, enabled))
    }

    /// Whether somebody looks at us (XEP-0352): while nobody does, no presence comes, and then only the newest.
    pub fn set_active(&mut self, active: bool) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.activity(out, tag, active))
    }

    /// Asks for a user's presence now; it comes as events.
    pub fn probe(&mut self, jid: &str) -> Result<(), Error> {
        self.done(|encoder, out, tag| encoder.probe(out, tag, jid))
    }

    /// Returns once the server has answered; everything it sent before that is in `next_event`.
    pub fn ping(&mut self) -> Result<(), Error> {
        match self.connection.request(0, |encoder, out, tag| encoder.ping(out, tag, u64::from(tag.request)))? {
            Answer::Pong => Ok(()),
            other => Err(wrong(&other)),
        }
    }

    fn done(&mut self, write: impl FnOnce(&mut Encoder, &mut Vec<u8>, Tag)) -> Result<(), Error> {
        match self.connection.request(0, write)? {
            Answer::Done => Ok(()),
            other => Err(wrong(&other)),
        }
    }

    /// The next thing the server tells; `None` when there was nothing for that long.
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some((_, event)) = self.connection.inbox.events.pop_front() {
                return Ok(Some(event));
            }
            if !self.connection.receive(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Ends the session; `status` is the last anybody hears of it. Returns when the server has said so or closed.
    pub fn log_out(mut self, status: &str) -> Result<(), Error> {
        let ended = self.connection.request(0, |encoder, out, tag| encoder.log_out(out, tag, status));
        match ended {
            Ok(_) | Err(Error::Closed) => Ok(()),
            Err(error) if error.reason() == Some(crate::base::reason::Reason::LoggedOut) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The socket's own local address, for tests and logs.
    pub fn local_address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.connection.local_address()
    }

    /// Breaks the connection without logging out. `resume` goes on.
    pub fn break_connection(&mut self) {
        self.connection.break_off();
    }
}

/// A log-in's answer, if the server has proved itself by the data that came with it.
fn checked(answer: Answer, check: impl FnOnce(&[u8]) -> Result<(), SaslError>) -> Result<Answer, Error> {
    if let Answer::LoggedIn(LoggedIn { data, .. }) | Answer::Authenticated(data, _) = &answer {
        check(data)?;
    }
    Ok(answer)
}
