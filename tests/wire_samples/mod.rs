//! One frame of every kind, with every field filled in: for golden bytes, round trips and as seeds for fuzzing.
#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use fanal::base::id::{SessionId, UserId, Version};
use fanal::base::reason::Reason;
use fanal::wire::encode::{
    Contact, Encoder, Greeting, LogInFields, LoggedInAs, MessageFields, PresenceFields, SubscriptionFields, Tag,
};
use fanal::wire::event::{self, BatchWriter, Head};
use fanal::wire::native::{self, Action, Kind, MessageKind, Show, SubscriptionState};

pub struct Sample {
    pub kind: Kind,
    pub bytes: Vec<u8>,
}

pub const TAG: Tag = Tag { stream: 0, request: 7 };

pub const PRESENCE: PresenceFields<'_> = PresenceFields {
    resource: "phone",
    show: Show::Away,
    priority: -5,
    status: "back at three",
    idle_since: 1_700_000_000_000,
    caps: "http://example.org#q07",
    payload: b"\x00\xff",
    stamp: 0,
    extensions: "<x xmlns='urn:x'/>",
};

pub const LOG_IN: LogInFields<'_> = LogInFields {
    jid: "alice@localhost",
    mechanism: "TOKEN",
    data: b"token",
    resource: "phone",
    presence: b"",
    bind_later: false,
    client: "",
    token_for: "",
    token_count: 0,
    token_invalid: false,
};

pub const LOG_IN_BY_TOKEN: LogInFields<'_> = LogInFields {
    mechanism: "HT-SHA-256-NONE",
    resource: "",
    bind_later: true,
    client: "d4565fa7",
    token_for: "HT-SHA-256-NONE",
    token_count: 3,
    token_invalid: true,
    ..LOG_IN
};

pub const MESSAGE: MessageFields<'_> = MessageFields {
    from: "alice@localhost/phone",
    to: "bob@localhost",
    id: "m1",
    body: b"hello",
    number: 3,
    kind: MessageKind::Chat,
    extensions: "<x xmlns='urn:x'/>",
    stamp: 1_700_000_000_000,
    copy: native::Copy::Sent,
};

pub const SUBSCRIPTION: SubscriptionFields<'_> = SubscriptionFields {
    action: Action::Subscribed,
    jid: "bob@localhost",
    user: UserId(42),
    note: "welcome",
    extensions: "<x xmlns='urn:x'/>",
};

pub const VERSION: &str = "00c0ffee00c0ffee";

pub const LOGGED_IN: LoggedInAs<'_> = LoggedInAs {
    user: UserId(42),
    jid: "alice@localhost/phone",
    session: SessionId(9),
    resume: &[1; 16],
    resume_within_ms: 30_000,
    resumed: true,
    data: b"v=proof",
};

pub const GREETING: Greeting<'_> = Greeting {
    software: "fanal 0.1.0",
    domain: "localhost",
    mechanisms: &["TOKEN", "PLAIN"],
    bindings: &["tls-exporter"],
    max_frame: 65_536,
};

pub const HEAD: Head = Head {
    user: UserId(0x0001_0203_0000_0009),
    version: Version { epoch: 2, sequence: 5 },
    session: SessionId(3),
    show: Show::Away,
    flags: 0,
};

pub fn groups() -> Vec<String> {
    vec!["friends".to_owned(), "work".to_owned()]
}

pub fn contact(groups: &[String]) -> Contact<'_> {
    Contact {
        jid: "bob@localhost",
        user: UserId(42),
        name: "Bob",
        groups,
        subscription: SubscriptionState::Both,
        ask: true,
        approved: true,
        removed: true,
    }
}

fn samples(write: impl FnOnce(&mut Encoder, &mut dyn FnMut(Kind, &mut dyn FnMut(&mut Encoder, &mut Vec<u8>)))) -> Vec<Sample> {
    let mut all = Vec::new();
    write(&mut Encoder::default(), &mut |kind, write| {
        let mut bytes = Vec::new();
        write(&mut Encoder::default(), &mut bytes);
        all.push(Sample { kind, bytes });
    });
    all
}

pub fn of_client() -> Vec<Sample> {
    samples(|encoder, add| {
        let presence = encoder.presence(&PRESENCE);
        add(Kind::Hello, &mut |e, out| e.hello(out, TAG, "a client"));
        add(Kind::Ping, &mut |e, out| e.ping(out, TAG, 0x0102_0304_0506_0708));
        add(Kind::Pong, &mut |e, out| e.pong(out, TAG, 0x0102_0304_0506_0708));
        add(Kind::Message, &mut |e, out| e.message(out, TAG, &MESSAGE));
        add(Kind::LogIn, &mut |e, out| e.log_in(out, TAG, &LOG_IN));
        add(Kind::LogIn, &mut |e, out| e.log_in(out, TAG, &LogInFields { presence: &presence, ..LOG_IN }));
        add(Kind::LogIn, &mut |e, out| e.log_in(out, TAG, &LOG_IN_BY_TOKEN));
        add(Kind::Bind, &mut |e, out| e.bind(out, TAG, "phone", &presence));
        add(Kind::SaslResponse, &mut |e, out| e.sasl_response(out, TAG, b"response"));
        add(Kind::Resume, &mut |e, out| e.resume(out, TAG, "alice@localhost", &[1; 16], 3));
        add(Kind::LogOut, &mut |e, out| e.log_out(out, TAG, "gone home"));
        add(Kind::SetPresence, &mut |e, out| e.set_presence(out, TAG, &PRESENCE));
        add(Kind::DirectedPresence, &mut |e, out| e.directed_presence(out, TAG, "bob@localhost", &presence));
        add(Kind::Probe, &mut |e, out| e.probe(out, TAG, "bob@localhost"));
        add(Kind::Subscription, &mut |e, out| e.subscription(out, TAG, &SUBSCRIPTION));
        add(Kind::RosterGet, &mut |e, out| e.roster_get(out, TAG));
        add(Kind::RosterGet, &mut |e, out| e.roster_since(out, TAG, VERSION));
        add(Kind::RosterSet, &mut |e, out| e.roster_set(out, TAG, "bob@localhost", "Bob", &groups()));
        add(Kind::RosterSet, &mut |e, out| e.roster_remove(out, TAG, "bob@localhost"));
        add(Kind::Block, &mut |e, out| e.block(out, TAG, "bob@localhost", false));
        add(Kind::Block, &mut |e, out| e.block(out, TAG, "", false));
        add(Kind::BlockListGet, &mut |e, out| e.block_list_get(out, TAG));
        add(Kind::Ack, &mut |e, out| e.ack(out, TAG, 3));
        add(Kind::DocumentSet, &mut |e, out| e.document_set(out, TAG, "card", b"data", native::Access::Contacts));
        add(Kind::DocumentGet, &mut |e, out| e.document_get(out, TAG, "bob@localhost", "card"));
        add(Kind::Register, &mut |e, out| e.register(out, TAG, "alice@localhost", "secret"));
        add(Kind::PasswordSet, &mut |e, out| e.password_set(out, TAG, "secret"));
        add(Kind::AccountRemove, &mut |e, out| e.account_remove(out, TAG));
        add(Kind::Carbons, &mut |e, out| e.carbons(out, TAG, true));
        add(Kind::Activity, &mut |e, out| e.activity(out, TAG, true));
        add(Kind::Interests, &mut |e, out| e.interests(out, TAG, &["card", "mood"]));
        add(Kind::Interests, &mut |e, out| e.interests_again(out, TAG));
        add(Kind::LastSeenGet, &mut |e, out| e.last_seen_get(out, TAG, "bob@localhost"));
    })
}

pub fn of_server() -> Vec<Sample> {
    samples(|encoder, add| {
        let presence = encoder.presence(&PRESENCE);
        let mut body = Vec::new();
        event::body(&mut body, HEAD, &presence);
        let groups = groups();
        add(Kind::Hello, &mut |e, out| e.greeting(out, TAG, &GREETING));
        add(Kind::Ping, &mut |e, out| e.ping(out, TAG, 1));
        add(Kind::Pong, &mut |e, out| e.pong(out, TAG, 1));
        add(Kind::Message, &mut |e, out| e.message(out, Tag::default(), &MESSAGE));
        add(Kind::SaslChallenge, &mut |e, out| e.sasl_challenge(out, TAG, b"challenge"));
        add(Kind::LoggedIn, &mut |e, out| e.logged_in(out, TAG, &LOGGED_IN));
        add(Kind::Authenticated, &mut |e, out| e.authenticated(out, TAG, b"v=proof", None));
        add(Kind::Authenticated, &mut |e, out| e.authenticated(out, TAG, b"v=proof", Some(("secret", 1_700_000_000_000))));
        add(Kind::Done, &mut |e, out| e.done(out, TAG));
        add(Kind::DirectedPresence, &mut |e, out| e.directed_from(out, TAG, "alice@localhost/desk", &presence));
        add(Kind::Error, &mut |e, out| e.error(out, TAG, Reason::LogInFailed, ""));
        add(Kind::Event, &mut |_, out| event::write(out, HEAD, &presence));
        add(Kind::Event, &mut |_, out| event::write(out, Head { show: Show::Unavailable, ..HEAD }, b""));
        add(Kind::Event, &mut |_, out| event::splice(out, &body, &[1, 2, 3]));
        add(Kind::EventBatch, &mut |_, out| {
            let mut batch = BatchWriter::start(out);
            batch.push(out, &body, &[]);
            batch.push(out, &body, &[4, 5]);
            batch.finish(out);
        });
        add(Kind::SubscriptionEvent, &mut |e, out| e.subscription_event(out, Tag::default(), &SUBSCRIPTION));
        add(Kind::Roster, &mut |e, out| e.roster(out, TAG, [contact(&groups), contact(&[])], Some(VERSION)));
        add(Kind::Roster, &mut |e, out| e.roster(out, TAG, [contact(&[])], None));
        add(Kind::Roster, &mut |e, out| e.roster_unchanged(out, TAG, VERSION));
        add(Kind::RosterPush, &mut |e, out| e.roster_push(out, Tag::default(), &contact(&groups), VERSION));
        add(Kind::Document, &mut |e, out| e.document(out, TAG, "bob@localhost", "card", b"data", native::Access::Contacts));
        add(Kind::DocumentChanged, &mut |e, out| e.document_changed(out, Tag::default(), "bob@localhost", "card", b"data"));
        add(Kind::LastSeen, &mut |e, out| e.last_seen(out, TAG, "bob@localhost", 90, "gone home"));
        add(Kind::BlockList, &mut |e, out| e.block_list(out, TAG, &["carol@localhost"]));
        add(Kind::BlockPush, &mut |e, out| e.block_push(out, Tag::default(), "carol@localhost", true));
        add(Kind::Transfer, &mut |e, out| e.transfer(out, Tag::default(), "127.0.0.1:5290"));
    })
}
