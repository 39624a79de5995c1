//! What a client does of its own will, as drawn.

use super::session::{Pending, Said, Session};
use super::{Client, Stage};
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::time::WallClock;
use crate::client::sasl;
use crate::front::token::Scope;
use crate::presence::subscription::Action;
use crate::sim::Env;
use crate::sim::check::kept::Wish;
use crate::sim::counts::Happening;
use crate::sim::node::keys;
use crate::sim::nodes::Nodes;
use crate::wire::encode::{Encoder, LogInFields, MessageFields, PresenceFields, SubscriptionFields, Tag};
use crate::wire::native::{self, Access, MessageKind, Show};

const SHOWS: [Show; 5] = [Show::Available, Show::Chat, Show::Away, Show::ExtendedAway, Show::DoNotDisturb];
/// Kinds of messages that nobody drops without a word.
const KINDS: [MessageKind; 4] = [MessageKind::Normal, MessageKind::Chat, MessageKind::Normal, MessageKind::Get];
/// Contacts that have no account.
const STRANGER: &str = "stranger@sim";

impl Client {
    /// One thing, whatever can be done now.
    pub fn act(&mut self, env: &mut Env, nodes: &mut Nodes) {
        if self.link.is_none() {
            return self.connect(env, nodes);
        }
        if self.stage != Stage::Ready {
            return;
        }
        let streams = if self.trunk { env.mix.streams } else { 1 };
        let stream = if self.trunk { 1 + env.random.below(streams) as u32 } else { 0 };
        match self.sessions.get(&stream) {
            None => self.begin_session(env, stream),
            Some(session) if session.may_ask() => self.act_as(env, stream),
            Some(_) => {}
        }
    }

    fn begin_session(&mut self, env: &mut Env, stream: u32) {
        let request = self.request();
        let tag = Tag { stream, request };
        if !self.lost.is_empty() && env.random.below(1000) < env.mix.acting.resume {
            let at = env.random.below(self.lost.len() as u64) as usize;
            let Session { jid, resource, token, key, .. } = self.lost.swap_remove(at);
            let received = env.memories.post.number(key);
            env.trace.note(env.now, format_args!("client {} resumes {jid}/{resource} on stream {stream}", self.number));
            self.say(env, |encoder, out| encoder.resume(out, tag, jid.as_str(), &token, received));
            let mut session = Session::new(jid, resource);
            session.key = key;
            return self.expect_log_in(stream, request, session, Pending::LogIn { by_password: false, first: None });
        }
        let own: Vec<Bare> = env.users.iter().skip(self.cluster).step_by(env.shape.clusters).cloned().collect();
        let Some(jid) = env.random.pick(&own).cloned() else { return };
        let own = format!("c{}s{stream}", self.number);
        let resource = match env.random.below(1000) {
            n if n < env.mix.acting.same_resource => "desk".to_owned(),
            n if n < 900 => own,
            _ => String::new(),
        };
        let by_password = !self.trunk && env.random.below(1000) < env.mix.acting.password;
        let (mechanism, data) = match by_password {
            true => ("PLAIN", sasl::plain(&jid, "secret").expect("a sound password")),
            false => ("TOKEN", keys().sign(Scope::User(&jid), WallClock(u64::MAX)).expect("there's a key").into_bytes()),
        };
        env.trace.note(env.now, format_args!("client {} logs {jid}/{resource} in on stream {stream}", self.number));
        let present = !resource.is_empty() && env.random.below(1000) < env.mix.acting.present;
        let first = present.then(|| format!("{}.{request}", self.number));
        self.say(env, |encoder, out| {
            let presence = first.as_deref().map_or(Vec::new(), |status| {
                encoder.presence(&PresenceFields { resource: &resource, status, ..PresenceFields::default() })
            });
            let fields = LogInFields {
                jid: jid.as_str(),
                mechanism,
                data: &data,
                resource: &resource,
                presence: &presence,
                ..LogInFields::default()
            };
            encoder.log_in(out, tag, &fields);
        });
        self.expect_log_in(stream, request, Session::new(jid, resource), Pending::LogIn { by_password, first });
    }

    fn expect_log_in(&mut self, stream: u32, request: u32, mut session: Session, log_in: Pending) {
        session.pending.insert(request, log_in);
        self.sessions.insert(stream, session);
    }

    fn act_as(&mut self, env: &mut Env, stream: u32) {
        let acting = env.mix.acting.clone();
        let weights = [
            acting.presence,
            acting.subscription,
            acting.roster,
            acting.block,
            acting.message,
            acting.directed,
            acting.probe,
            acting.ping,
            acting.log_out,
            acting.nonsense,
            acting.activity,
            acting.carbons,
            acting.documents,
        ];
        match env.draw(&weights) {
            0 => self.change_presence(env, stream),
            1 => self.subscribe(env, stream),
            2 => self.tend_roster(env, stream),
            3 => self.block(env, stream),
            4 => self.write(env, stream),
            5 => self.direct(env, stream),
            6 => {
                let jid = self.somebody(env);
                env.trace.note(env.now, format_args!("client {} probes {jid}", self.number));
                self.ask(env, stream, Pending::Other, |encoder, out, tag| encoder.probe(out, tag, jid.as_str()));
            }
            7 => self.ask(env, stream, Pending::Other, |encoder, out, tag| encoder.ping(out, tag, 7)),
            8 => self.ask(env, stream, Pending::LogOut, |encoder, out, tag| encoder.log_out(out, tag, "bye")),
            10 => {
                let active = env.random.one_in(3);
                self.set_active(env, stream, active);
            }
            11 => {
                let enabled = !env.random.one_in(3);
                self.ask(env, stream, Pending::Other, |encoder, out, tag| encoder.carbons(out, tag, enabled));
            }
            12 => self.keep_or_read(env, stream),
            _ => {
                let mut noise = vec![0; 1 + env.random.below(40) as usize];
                env.random.fill(&mut noise);
                self.say(env, |_, out| out.extend(noise));
            }
        }
    }

    /// Sends a request that is to be answered.
    fn ask(&mut self, env: &mut Env, stream: u32, pending: Pending, write: impl FnOnce(&mut Encoder, &mut Vec<u8>, Tag)) {
        let tag = Tag { stream, request: self.request() };
        env.trace.note(env.now, format_args!("client {} {tag:?} asks: {pending:?}", self.number));
        self.sessions.get_mut(&stream).expect("a session asks").pending.insert(tag.request, pending);
        self.say(env, |encoder, out| write(encoder, out, tag));
    }

    /// Asks for a change that is to be kept.
    pub(super) fn wish(
        &mut self,
        env: &mut Env,
        stream: u32,
        contact: &Bare,
        wish: Wish,
        write: impl FnOnce(&mut Encoder, &mut Vec<u8>, Tag),
    ) {
        let Some(session) = self.sessions.get(&stream).filter(|session| session.may_ask()) else { return };
        env.trace.note(env.now, format_args!("client {} as {} wishes {contact}: {wish:?}", self.number, session.jid));
        let id = env.memories.wishes.ask(&session.jid, contact, wish);
        self.ask(env, stream, Pending::Wish(id), write);
    }

    fn somebody(&mut self, env: &mut Env) -> Bare {
        match env.random.one_in(30) {
            true => Bare::new(STRANGER).expect("a JID"),
            false => env.random.pick(&env.users).expect("there are users").clone(),
        }
    }

    /// Goes online, changes its status, or goes offline.
    pub fn change_presence(&mut self, env: &mut Env, stream: u32) {
        let offline = !env.calm && env.random.one_in(6);
        let status = format!("{}.{}", self.number, self.requests);
        let show = if offline { Show::Unavailable } else { *env.random.pick(&SHOWS).expect("there are some") };
        let priority = env.random.below(4) as i8 - 1;
        let quiet = !offline && env.random.one_in(2);
        let session = self.sessions.get_mut(&stream).expect("a session changes its presence");
        session.said = if offline { Said::Offline } else { Said::Online(status.clone()) };
        let resource = session.resource.clone();
        let fields = PresenceFields { resource: &resource, show, priority, status: &status, ..PresenceFields::default() };
        if quiet {
            env.trace.note(env.now, format_args!("client {} stream {stream} is {show:?} {status}", self.number));
            return self.say(env, |encoder, out| encoder.set_presence(out, Tag::stream(stream), &fields));
        }
        let pending = if offline { Pending::GoOffline } else { Pending::Other };
        self.ask(env, stream, pending, |encoder, out, tag| encoder.set_presence(out, tag, &fields));
    }

    /// Says which messages have come.
    pub fn acknowledge(&mut self, env: &mut Env, stream: u32) {
        let received = env.memories.post.number(self.sessions[&stream].key);
        self.say(env, |encoder, out| encoder.ack(out, Tag::stream(stream), received));
    }

    /// Somebody looks at the client, or nobody does.
    pub fn set_active(&mut self, env: &mut Env, stream: u32, active: bool) {
        env.counts.add(Happening::Inactive, u64::from(!active && stream == 0));
        self.ask(env, stream, Pending::Other, |encoder, out, tag| encoder.activity(out, tag, active));
    }

    /// A document of one's own is kept or removed, or somebody's is read.
    fn keep_or_read(&mut self, env: &mut Env, stream: u32) {
        let (jid, name) = (self.somebody(env), if env.random.one_in(2) { "card" } else { "notes" });
        if env.random.one_in(2) {
            return self.ask(env, stream, Pending::Other, |encoder, out, tag| encoder.document_get(out, tag, jid.as_str(), name));
        }
        let (data, access) = (vec![7; env.random.below(40) as usize], Access(env.random.below(3) as u8));
        self.ask(env, stream, Pending::Other, |encoder, out, tag| encoder.document_set(out, tag, name, &data, access));
    }

    fn subscribe(&mut self, env: &mut Env, stream: u32) {
        let contact = self.somebody(env);
        let action = match env.random.below(10) {
            0..5 => Action::Subscribe,
            5..8 => Action::Subscribed,
            8 => Action::Unsubscribe,
            _ => Action::Unsubscribed,
        };
        self.wish(env, stream, &contact, Wish::Subscription(action), |encoder, out, tag| {
            let fields = SubscriptionFields {
                action: native::Action(action as u8),
                jid: contact.as_str(),
                user: UserId::NOBODY,
                note: "hi",
                extensions: "",
            };
            encoder.subscription(out, tag, &fields);
        });
    }

    fn tend_roster(&mut self, env: &mut Env, stream: u32) {
        let contact = self.somebody(env);
        match env.random.below(6) {
            0 | 1 => self.ask(env, stream, Pending::Other, |encoder, out, tag| encoder.roster_get(out, tag)),
            2 => self.wish(env, stream, &contact, Wish::Remove, |encoder, out, tag| {
                encoder.roster_remove(out, tag, contact.as_str());
            }),
            _ => {
                let name = format!("n{}.{}", self.number, self.requests);
                self.wish(env, stream, &contact, Wish::Name(name.clone()), |encoder, out, tag| {
                    encoder.roster_set(out, tag, contact.as_str(), &name, &["friends"]);
                });
            }
        }
    }

    fn block(&mut self, env: &mut Env, stream: u32) {
        let jid = self.somebody(env);
        match env.random.below(5) {
            0 => self.ask(env, stream, Pending::Other, |encoder, out, tag| encoder.block_list_get(out, tag)),
            n => {
                let blocked = n < 3;
                self.wish(env, stream, &jid, Wish::Block(blocked), |encoder, out, tag| {
                    encoder.block(out, tag, jid.as_str(), blocked);
                });
            }
        }
    }

    fn write(&mut self, env: &mut Env, stream: u32) {
        let full = env.random.one_in(2);
        let to = match (full, self.somebody(env)) {
            (true, jid) => format!("{jid}/desk"),
            (false, jid) => jid.to_string(),
        };
        let letter = env.memories.post.written(self.sessions[&stream].key, full);
        let id = letter.to_string();
        let kind = *env.random.pick(&KINDS).expect("there are some");
        let fields = MessageFields { to: &to, id: &id, body: id.as_bytes(), kind, ..MessageFields::default() };
        self.ask(env, stream, Pending::Letter(letter), |encoder, out, tag| encoder.message(out, tag, &fields));
    }

    fn direct(&mut self, env: &mut Env, stream: u32) {
        let to = self.somebody(env);
        let show = if env.random.one_in(4) { Show::Unavailable } else { Show::Available };
        let resource = self.sessions[&stream].resource.clone();
        let sent = env.memories.wishes.now().to_string();
        let fields = PresenceFields { resource: &resource, show, status: &sent, ..PresenceFields::default() };
        self.ask(env, stream, Pending::Other, |encoder, out, tag| {
            let presence = encoder.presence(&fields);
            encoder.directed_presence(out, tag, to.as_str(), &presence);
        });
    }
}
