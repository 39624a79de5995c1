//! What a client makes of what it is told.

use super::session::{Pending, Said, Session};
use super::{Client, Stage};
use crate::base::id::{SessionId, UserId};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::WallClock;
use crate::client::codec::Received;
use crate::front::token::Scope;
use crate::presence::subscription;
use crate::sim::Env;
use crate::sim::check::kept::Wish;
use crate::sim::check::messages::SessionKey;
use crate::sim::check::{Broken, Check, Held};
use crate::sim::counts::Happening;
use crate::sim::links::End;
use crate::sim::node::keys;
use crate::wire::decode::ServerFrame;
use crate::wire::encode::{LogInFields, SubscriptionFields, Tag};
use crate::wire::event::Event;
use crate::wire::frame::Chunk;
use crate::wire::native::{self, Action, LoggedIn, Message, MessageKind};

impl Client {
    /// Reads some of what has arrived.
    pub fn hear(&mut self, env: &mut Env) -> Held {
        let Some(number) = self.link else { return Ok(()) };
        if env.now < self.reads_from && !env.calm {
            return Ok(());
        }
        if !env.calm && env.random.below(1000) < env.mix.slow_reader {
            self.reads_from = env.now + env.mix.pause.mul_f64(env.random.unit() * 4.0);
            env.count(Happening::SlowReader);
        }
        let most = if env.calm { usize::MAX } else { 1 + env.random.below(env.mix.piece * 4) as usize };
        let bytes = env.links.read(number, End::Opener, env.now, most);
        let over = env.links.is_over(number, End::Opener, env.now);
        let mut codec = std::mem::take(&mut self.codec);
        let mut chunk = Chunk::new(&bytes);
        while self.link.is_some() {
            match codec.next(&mut chunk) {
                Ok(Some(received)) => self.received(env, received)?,
                Ok(None) => break,
                Err(reason) => {
                    return Check::FramesAreSound.holds(false, || format!("client {} can't read: {reason:?}", self.number));
                }
            }
        }
        self.codec = codec;
        if over {
            env.trace.note(env.now, format_args!("client {}'s connection is closed", self.number));
            self.lose_connection(env);
        }
        Ok(())
    }

    fn received(&mut self, env: &mut Env, Received { tag, frame }: Received<'_>) -> Held {
        match frame {
            ServerFrame::Hello(_) => self.greeted(env),
            ServerFrame::Ping(ping) => self.say(env, |encoder, out| encoder.pong(out, Tag::default(), ping.data())),
            ServerFrame::Done => self.answered(env, tag, None)?,
            ServerFrame::Pong(_) | ServerFrame::BlockList(_) | ServerFrame::LastSeen(_) | ServerFrame::Document(_) => {
                self.answered(env, tag, None)?
            }
            ServerFrame::Error(error) => {
                let reason = Reason::from_number(error.reason());
                Check::FramesAreSound.holds(reason.is_some(), || format!("there is no reason {}", error.reason()))?;
                self.refused(env, tag, reason.expect("just checked"))?;
            }
            ServerFrame::LoggedIn(logged_in) => self.logged_in(env, tag, logged_in)?,
            ServerFrame::Event(event) => self.presence(env, &event)?,
            ServerFrame::EventBatch(batch) => {
                for event in batch.iter() {
                    match event {
                        Ok(event) => self.presence(env, &event)?,
                        Err(reason) => return Check::FramesAreSound.holds(false, || format!("a batch has {reason:?}")),
                    }
                }
            }
            ServerFrame::SubscriptionEvent(event) if event.action() == Action::Subscribe => {
                self.asked_for_approval(env, tag, event.jid())
            }
            ServerFrame::Roster(roster) => {
                self.session(tag)?.hear_roster(tag.request, roster);
                if !roster.more() {
                    self.answered(env, tag, None)?;
                }
            }
            ServerFrame::RosterPush(push) => self.session(tag)?.push(push.item()),
            ServerFrame::Message(message) => self.message(env, tag, message)?,
            ServerFrame::DirectedPresence { from, presence } => self.directed(env, tag, from, presence.fields().status)?,
            ServerFrame::SubscriptionEvent(event) if event.note() == Some(Reason::TooManyRequests.text()) => {
                env.count(Happening::TooManyRequests);
            }
            ServerFrame::SubscriptionEvent(_) | ServerFrame::Transfer(_) => {}
            ServerFrame::BlockPush(_) | ServerFrame::DocumentChanged(_) => {}
            ServerFrame::SaslChallenge(_) | ServerFrame::Authenticated(_) => {
                return Check::FramesAreSound.holds(false, || "half a log-in that nobody asked for".into());
            }
        }
        Ok(())
    }

    /// The session a frame is for.
    fn session(&mut self, tag: Tag) -> Result<&mut Session, Broken> {
        let number = self.number;
        let open = self.sessions.get_mut(&tag.stream).filter(|session| session.open);
        let what = || format!("client {number} has no session on stream {} that this frame could be for", tag.stream);
        open.ok_or_else(|| Broken { check: Check::FramesAreSound, what: what() })
    }

    fn greeted(&mut self, env: &mut Env) {
        self.stage = Stage::Ready;
        if self.trunk {
            let request = self.request();
            self.stage = Stage::Authorising(request);
            let token = keys().sign(Scope::Trunk("sim"), WallClock(u64::MAX)).expect("there's a key");
            let log_in = LogInFields { mechanism: "TRUNK", data: token.as_bytes(), ..LogInFields::default() };
            self.say(env, |encoder, out| encoder.log_in(out, Tag::request(request), &log_in));
        }
    }

    fn logged_in(&mut self, env: &mut Env, tag: Tag, logged_in: LoggedIn<'_>) -> Held {
        let user = UserId(logged_in.user());
        let home = env.shape.home_of(user);
        let life = (home, env.lives[home]);
        let Some(session) = self.sessions.get_mut(&tag.stream).filter(|session| !session.open) else {
            return Check::FramesAreSound.holds(false, || format!("nobody logs in on stream {}", tag.stream));
        };
        session.open = true;
        session.forget_pieces();
        let mut said = if logged_in.resumed() { Said::Unsure } else { Said::Offline };
        if let Some(Pending::LogIn { by_password, first }) = session.pending.remove(&tag.request)
            && !logged_in.resumed()
        {
            env.counts.add(Happening::PasswordLogIn, u64::from(by_password));
            env.counts.add(Happening::StreamLogIn, u64::from(tag.stream != 0));
            env.counts.add(Happening::PresentLogIn, u64::from(first.is_some()));
            said = first.map_or(said, Said::Online);
        }
        let session_id = SessionId(logged_in.session());
        let key = match logged_in.resumed() {
            true => session.key,
            false => SessionKey { log_in: env.memories.post.next_log_in(), life, user, session: session_id },
        };
        let same = (key.user, key.session) == (user, session_id);
        Check::FramesAreSound.holds(same, || format!("{user:?} {session_id:?} was resumed for {:?}", session.key))?;
        session.key = key;
        session.resumed = logged_in.resumed();
        session.token = logged_in.resume().map_or(Vec::new(), |token| token.bytes().to_vec());
        session.resource = logged_in.jid().split_once('/').map_or("", |(_, resource)| resource).to_owned();
        session.said = said;
        let line = format_args!("client {} stream {} is {} as {key:?}", self.number, tag.stream, logged_in.jid());
        env.trace.note(env.now, line);
        Ok(())
    }

    fn answered(&mut self, env: &mut Env, tag: Tag, refused: Option<Reason>) -> Held {
        if self.stage == Stage::Authorising(tag.request) {
            self.stage = Stage::Ready;
            return Check::FramesAreSound.holds(refused.is_none(), || format!("a trunk was refused: {refused:?}"));
        }
        let Some(session) = self.sessions.get_mut(&tag.stream) else { return Ok(()) };
        let Some(pending) = session.pending.remove(&tag.request) else {
            let undone = session.letters.get(&tag.request).filter(|_| refused.is_some());
            return Check::EachMessageArrivesOrReturns
                .holds(undone.is_none(), || format!("message {undone:?} was confirmed, and then refused: {refused:?}"));
        };
        match pending {
            Pending::LogIn { .. } => _ = self.sessions.remove(&tag.stream),
            Pending::LogOut => {
                self.sessions.remove(&tag.stream);
            }
            Pending::GoOffline if refused.is_none() => session.forget_others(),
            Pending::Wish(wish) => env.memories.wishes.answer(&wish, refused.is_none()),
            Pending::Letter(letter) if refused.is_some() => {
                env.memories.post.returned(letter);
                env.count(Happening::MessageReturned);
            }
            Pending::Letter(letter) => {
                env.memories.post.confirmed(letter);
                session.letters.insert(tag.request, letter);
            }
            Pending::GoOffline | Pending::Other => {}
        }
        Ok(())
    }

    fn refused(&mut self, env: &mut Env, tag: Tag, reason: Reason) -> Held {
        env.trace.note(env.now, format_args!("client {} {tag:?} is refused: {reason:?}", self.number));
        if reason == Reason::Overloaded
            && let Some(session) = self.sessions.get_mut(&tag.stream)
        {
            // It may have been a change of presence that was not made.
            session.said = Said::Unsure;
        }
        if tag.request != 0 {
            return self.answered(env, tag, Some(reason));
        }
        let noticed = env.shape.is_gentle && reason == Reason::HomeOutOfReach;
        Check::ShortBreaksGoUnnoticed.holds(!noticed, || format!("client {} lost {tag:?} to a short break", self.number))?;
        if matches!(reason, Reason::Replaced | Reason::AccountRemoved | Reason::HomeOutOfReach) {
            self.sessions.remove(&tag.stream);
        }
        Ok(())
    }

    fn presence(&mut self, env: &mut Env, event: &Event<'_>) -> Held {
        let streams: Vec<u32> = event.streams.iter().collect();
        let fits = self.trunk != streams.is_empty();
        Check::FramesAreSound.holds(fits, || format!("client {} got an event for streams {streams:?}", self.number))?;
        let (number, streams) = (self.number, if self.trunk { streams } else { vec![0] });
        for stream in streams {
            let session = self.session(Tag::stream(stream))?;
            let (who, head) = (session.key.user, event.head);
            let (by, of, version) = ((number, stream), (head.user.0, head.session.0), (head.version.epoch, head.version.sequence));
            env.trace.note(env.now, format_args!("client {by:?} sees {of:?} {:?} {version:?} {}", head.show, head.flags));
            session.see(event, env.memories.approvals.ends(head.user, who))?;
            env.memories.approvals.received(who, event)?;
        }
        Ok(())
    }

    fn message(&mut self, env: &mut Env, tag: Tag, message: Message<'_>) -> Held {
        let letter = message.id().and_then(|id| id.parse().ok());
        Check::FramesAreSound.holds(letter.is_some(), || format!("nobody wrote a message {:?}", message.id()))?;
        let session = self.session(tag)?;
        let (key, resumed) = (session.key, session.resumed);
        let home = key.user.home(env.shape.cores[env.shape.home_of(key.user)]);
        let (waited, copy) = (message.stamp() != 0, message.copy() != native::Copy::None);
        let ordered = env.memories.post.taken(key, home, letter.expect("just checked"), &message)?;
        env.counts.add(Happening::Carbon, u64::from(copy));
        env.counts.add(Happening::MessageWaited, u64::from(waited));
        env.counts.add(Happening::QuestionTaken, u64::from(message.kind() == MessageKind::Get));
        env.count(Happening::MessageTaken);
        env.counts.add(Happening::MessageOrdered, u64::from(ordered));
        env.counts.add(Happening::MessageResumed, u64::from(resumed));
        if env.calm || env.random.below(1000) < env.mix.acting.acknowledge {
            self.say(env, |encoder, out| encoder.ack(out, Tag::stream(tag.stream), message.number()));
        }
        Ok(())
    }

    /// Directed presence needs no approval, but a user who is blocked has none.
    fn directed(&mut self, env: &mut Env, tag: Tag, from: &str, sent: &str) -> Held {
        env.count(Happening::Directed);
        let session = self.session(tag)?;
        let from = Bare::with_resource(from).map(|(bare, _)| bare);
        Check::FramesAreSound.holds(from.is_some(), || "directed presence of nobody".into())?;
        let (Some(from), Ok(sent)) = (from, sent.parse()) else { return Ok(()) };
        env.memories.wishes.reached(&session.jid, &from, sent)
    }

    /// Somebody wants to subscribe.
    fn asked_for_approval(&mut self, env: &mut Env, tag: Tag, jid: &str) {
        let drawn = env.random.below(1000);
        let action = match drawn {
            _ if env.calm => return,
            n if n < env.mix.acting.approve => Action::Subscribed,
            n if n < env.mix.acting.approve + env.mix.acting.deny => Action::Unsubscribed,
            _ => return,
        };
        let contact = Bare::new(jid).expect("the node names users by JIDs");
        let wish = Wish::Subscription(subscription::Action::from_number(action.0).expect("one of the four"));
        self.wish(env, tag.stream, &contact, wish, |encoder, out, tag| {
            encoder.subscription(out, tag, &SubscriptionFields { action, jid, user: UserId::NOBODY, note: "", extensions: "" });
        });
    }
}
