//! Connections and what comes through their doors: log-in, and each frame turned into a request to the session's home.

use super::connection::{Connection, Doorway, Purse, seconds};
use super::links::Far;
use super::log_in::Outcome;
use super::{EXPECTED, Shard, batch::Adoption, batch::Entry};
use crate::base::id::{ConnId, CoreId, RawSocket};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::front::doors::Speaks;
use crate::front::native::{Door, Incoming};
use crate::front::translate::{HANDSHAKE, Translate};
use crate::metrics::meter::Taken;
use crate::presence::control::{Ask, Asker, Content, Control, EdgeRef, Note, SessionEnd, Update};
use crate::presence::subscription::Action;
use crate::wire::decode::ClientFrame;
use crate::wire::encode::{Greeting, Tag};
use crate::wire::frame::Chunk;
use crate::wire::lines::Marks;
use crate::wire::native;
use crate::wire::presence::PresenceView;
use std::net::IpAddr;

/// Whether to go on with a chunk.
enum Flow {
    Next,
    /// The frame just handed out is for another core, with all that follows.
    Leave(CoreId),
    End(Reason),
}

impl Shard {
    /// A new connection. `None`: the core holds as many as it may, or as many from there.
    pub fn accepted(&mut self, now: Time, peer: IpAddr, listener: usize) -> Option<ConnId> {
        if self.stopping || !self.has_room_for(peer) {
            self.recorder.dropped.count(self.no_room());
            return None;
        }
        let translator = self.settings.doors.open(listener);
        if self.settings.doors.listeners.get(listener) == Some(&Speaks::Link) {
            return Some(self.open_link(now, peer, Far::Unknown(Vec::new()), translator));
        }
        Some(self.open(now, peer, seconds(now), Door::default(), translator))
    }

    pub(super) fn open(
        &mut self,
        now: Time,
        peer: IpAddr,
        accepted: u32,
        door: Door,
        translator: Option<Box<dyn Translate>>,
    ) -> ConnId {
        let limits = &self.settings.limits;
        let conn = self.out.lines.open(Marks { high: limits.high_water_bytes, most: limits.backlog_bytes });
        let index = conn.slot as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
            self.peers.resize(index + 1, peer);
        }
        let connection = Connection {
            generation: conn.generation,
            accepted,
            heard: seconds(now),
            pinged: false,
            slow_since: 0,
            taken: Taken::default(),
            purse: Purse::full(),
            door: Doorway::Here(door),
        };
        self.connections[index] = Some(connection);
        self.peers[index] = peer;
        self.addresses.came(peer);
        self.translators.set(conn, translator);
        conn
    }

    pub(super) fn connection(&mut self, conn: ConnId) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(conn.slot as usize)?.as_mut();
        connection.filter(|connection| connection.generation == conn.generation)
    }

    pub(super) fn trunk_count(&self) -> usize {
        let is_trunk = |connection: &Connection| matches!(&connection.door, Doorway::Here(door) if door.is_trunk());
        self.connections.iter().flatten().filter(|connection| is_trunk(connection)).count()
    }

    /// Bytes from a client.
    pub fn received(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self.connection(conn) else { return };
        connection.pinged = false;
        if connection.heard != seconds(now) {
            connection.heard = seconds(now);
        }
        connection.purse.spend(bytes.len());
        // One byte tells most connections apart from those that begin with TLS.
        let begins = bytes.first() == Some(&HANDSHAKE) && matches!(&connection.door, Doorway::Here(door) if door.is_new());
        if self.translators.has(conn.slot) {
            self.received_in_turn(now, conn, bytes);
        } else if let Some(translator) = begins.then(|| self.settings.doors.open_native_tls()).flatten() {
            self.translators.set(conn, Some(translator));
            self.received_in_turn(now, conn, bytes);
        } else {
            self.received_native(now, conn, bytes);
        }
        if self.connection(conn).is_some_and(|connection| connection.purse.is_spent()) {
            self.charge(now, conn);
        }
        self.work_off(now);
    }

    pub(super) fn received_native(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self.connection(conn) else { return };
        match std::mem::replace(&mut connection.door, Doorway::Closing) {
            Doorway::Here(door) => {
                let frames = self.read(now, conn, door, bytes);
                self.count_taken(conn, frames);
            }
            Doorway::Link(far) => self.received_link(now, conn, far, bytes),
            Doorway::Leaving { to, mut parting, is_link } => match parting.append(bytes) {
                Ok(()) => self.set_door(conn, Doorway::Leaving { to, parting, is_link }),
                Err(reason) => self.end_connection(conn, reason, ""),
            },
            Doorway::Closing => {}
        }
    }

    /// Whether what a connection's client says is still heard.
    pub(super) fn hears(&mut self, conn: ConnId) -> bool {
        self.connection(conn).is_some_and(|connection| !matches!(connection.door, Doorway::Closing))
    }

    pub(super) fn set_door(&mut self, conn: ConnId, door: Doorway) {
        if let Some(connection) = self.connection(conn) {
            connection.door = door;
        }
    }

    /// Gives the number of frames that came.
    fn read(&mut self, now: Time, conn: ConnId, mut door: Door, bytes: &[u8]) -> u32 {
        let mut chunk = Chunk::new(bytes);
        let rules = self.rules;
        let mut frames = 0;
        loop {
            if door.is_trunk() && frames % EXPECTED as u32 == 0 {
                self.expect_streams(conn, &chunk);
            }
            let timed = self.recorder.sample().then(self.settings.clock);
            let next = door.next(&mut chunk, &rules);
            self.decoded(timed);
            let flow = match next {
                Ok(None) => break,
                Ok(Some(incoming)) => {
                    frames += 1;
                    self.taken.units += self.settings.units.of(incoming.bytes);
                    match incoming.frame {
                        ClientFrame::SetPresence(presence) => self.set_presence(now, conn, incoming.tag, presence),
                        _ => self.incoming(now, conn, incoming),
                    }
                }
                Err(reason) => Flow::End(reason),
            };
            match flow {
                Flow::Next => {}
                Flow::Leave(to) => {
                    let parting = Box::new(door.leave(chunk));
                    self.departures.push(conn);
                    self.set_door(conn, Doorway::Leaving { to, parting, is_link: false });
                    return frames;
                }
                Flow::End(reason) => {
                    self.end_connection(conn, reason, "");
                    return frames;
                }
            }
        }
        self.set_door(conn, Doorway::Here(door));
        frames
    }

    /// The way of an update, steps 2 to 4.
    #[inline]
    fn set_presence(&mut self, now: Time, conn: ConnId, tag: Tag, view: PresenceView<'_>) -> Flow {
        let Some((edge, home)) = self.edge.session(conn.slot, tag.stream) else { return self.no_session(conn, tag) };
        let asker = Asker { edge, request: tag.request };
        self.taken.add(Taken { units: 0, publications: 1, published_bytes: view.bytes.len() as u32 });
        let seat = self.out.map.home(home.user);
        if seat == self.out.map.here {
            self.homes.update(now, home.at(), home.session, &view, asker, &mut self.edge, &mut self.out);
            self.applied(now);
        } else if self.out.is_full(seat) {
            self.say_error(conn, tag, Reason::Overloaded, "");
        } else {
            let update = Update { presence: view.bytes.to_vec(), asker };
            self.out.send(seat, Control::Update { at: home.at(), session: home.session, update: Box::new(update) });
        }
        Flow::Next
    }

    fn no_session(&mut self, conn: ConnId, tag: Tag) -> Flow {
        self.say_error(conn, tag, Reason::NotLoggedIn, "");
        Flow::Next
    }

    fn incoming(&mut self, now: Time, conn: ConnId, Incoming { tag, frame, on_trunk, .. }: Incoming<'_>) -> Flow {
        match frame {
            ClientFrame::Hello(_) => self.greet(conn, tag),
            ClientFrame::Ping(ping) => {
                self.frames.clear();
                self.encoder.pong(&mut self.frames, tag, ping.data());
                self.out.lines.append(conn.slot, &self.frames);
                Flow::Next
            }
            ClientFrame::Pong(_) => Flow::Next,
            ClientFrame::LogIn { log_in, presence } => match self.log_in(now, conn, tag, log_in, presence) {
                Some(home) => Flow::Leave(home),
                None => Flow::Next,
            },
            ClientFrame::Register(register) => match self.register(now, conn, tag, register) {
                Some(home) => Flow::Leave(home),
                None => Flow::Next,
            },
            ClientFrame::PasswordSet(set) => {
                self.set_password(conn, tag, set.password());
                Flow::Next
            }
            ClientFrame::Bind { resource, presence } => {
                self.bind(conn, tag, resource, presence);
                Flow::Next
            }
            ClientFrame::Resume(resume) => match self.resume(conn, tag, resume) {
                Some(home) => Flow::Leave(home),
                None => Flow::Next,
            },
            ClientFrame::SaslResponse(response) => {
                self.sasl_response(conn, tag, response.data().map_or(&[][..], |data| data.bytes()));
                Flow::Next
            }
            ClientFrame::LogOut(log_out) => self.log_out(conn, tag, on_trunk, log_out.status().unwrap_or_default()),
            ClientFrame::SetPresence(view) => self.set_presence(now, conn, tag, view),
            ClientFrame::Activity(activity) if tag.stream == 0 => {
                self.out.lines.hold(conn, !activity.active());
                self.edge.set_active(conn.slot, activity.active(), &mut self.out);
                self.ask(conn, tag, Ask::Activity { active: activity.active() })
            }
            _ => match request(frame) {
                Err((reason, detail)) => {
                    self.say_error(conn, tag, reason, &detail);
                    Flow::Next
                }
                Ok(ask) => self.ask(conn, tag, ask),
            },
        }
    }

    fn greet(&mut self, conn: ConnId, tag: Tag) -> Flow {
        let channel = self.translators.channel(conn.slot);
        if !self.settings.doors.admits(self.peers[conn.slot as usize], channel) {
            return Flow::End(Reason::TlsRequired);
        }
        let greeting = Greeting {
            software: concat!("fanal/", env!("CARGO_PKG_VERSION")),
            domain: &self.settings.domain,
            mechanisms: &self.settings.mechanisms(channel),
            bindings: &channel.bindings().kinds().collect::<Vec<_>>(),
            max_frame: self.settings.limits.frame_bytes,
        };
        self.frames.clear();
        self.encoder.greeting(&mut self.frames, tag, &greeting);
        self.out.lines.append(conn.slot, &self.frames);
        Flow::Next
    }

    /// Passes a request to the session's home.
    fn ask(&mut self, conn: ConnId, tag: Tag, ask: Ask) -> Flow {
        let Some((edge, home)) = self.edge.session(conn.slot, tag.stream) else { return self.no_session(conn, tag) };
        let asker = Asker { edge, request: tag.request };
        let seat = self.out.map.home(home.user);
        if self.out.is_full(seat) || !self.note_ask(asker, seat, &ask) {
            self.say_error(conn, tag, Reason::Overloaded, "");
            return Flow::Next;
        }
        self.out.send(seat, Control::Ask { at: home.at(), session: home.session, asker, ask: Box::new(ask) });
        Flow::Next
    }

    fn log_out(&mut self, conn: ConnId, tag: Tag, on_trunk: bool, status: &str) -> Flow {
        let of_trunk = on_trunk && tag.stream == 0;
        let edges = match self.edge.find(conn.slot, tag.stream) {
            Some(edge) => vec![edge],
            None if of_trunk => self.edge.sessions_on(conn.slot),
            None => return self.no_session(conn, tag),
        };
        for edge in edges {
            self.close_session(edge, SessionEnd::LoggedOut { status: status.to_owned() });
        }
        if of_trunk {
            return Flow::End(Reason::LoggedOut);
        }
        if tag.stream == 0 {
            self.session_over(conn);
        }
        if tag.request != 0 {
            self.frames.clear();
            self.encoder.done(&mut self.frames, tag);
            self.out.lines.append(conn.slot, &self.frames);
        }
        Flow::Next
    }

    /// Ends a session here and tells its home.
    pub(super) fn close_session(&mut self, edge: EdgeRef, end: SessionEnd) {
        if let Some(home) = self.edge.close(edge, &mut self.out) {
            let seat = self.out.map.home(home.user);
            self.out.send(seat, Control::Detach { at: home.at(), session: home.session, edge, end });
        }
    }

    /// The home has ended a session: its connection, or its stream of a trunk, hears why.
    pub(super) fn session_ended(&mut self, edge: EdgeRef, reason: Reason) {
        // What has not been attached yet is no session: it's decided by its own answer.
        let Some(session) = self.edge.get(edge).filter(|session| session.home.is_some()) else { return };
        let (conn, stream) = (session.conn, session.stream);
        self.edge.close(edge, &mut self.out);
        self.say_error(conn, Tag::stream(stream), reason, "");
        if stream == 0 {
            self.outcomes.push((conn, Outcome::Ended));
            self.session_over(conn);
        }
    }

    /// Ends a connection: it is told why, everything gathered is sent, then it closes. Its sessions may be resumed, if its protocol
    /// can and but for the reasons that are the client's own doing.
    pub(super) fn end_connection(&mut self, conn: ConnId, reason: Reason, detail: &str) {
        self.say_error(conn, Tag::default(), reason, detail);
        self.drop_sessions(conn, reason);
        self.shut(conn);
    }

    pub(super) fn drop_sessions(&mut self, conn: ConnId, reason: Reason) {
        let blameless = matches!(reason, Reason::ConnectionLost | Reason::NeverReads | Reason::Silent);
        let within_ms = if blameless { self.translators.resumable_ms(conn.slot) } else { 0 };
        for edge in self.edge.sessions_on(conn.slot) {
            self.close_session(edge, if within_ms > 0 { SessionEnd::Lost { within_ms } } else { SessionEnd::Ended });
        }
        self.edge.forget_conn(conn);
        self.log_ins.forget(conn);
    }

    pub(super) fn shut(&mut self, conn: ConnId) {
        self.set_door(conn, Doorway::Closing);
        self.translators.end(conn.slot);
        self.out.lines.close(conn);
    }

    /// Nothing more comes from or goes to a connection.
    pub fn lost(&mut self, now: Time, conn: ConnId) {
        let Some(connection) = self.connection(conn) else { return };
        if let Doorway::Link(Far::Lane(site, lane)) = connection.door {
            self.link_lost(now, conn, site, lane);
        }
        self.settle_last(now, conn);
        self.drop_sessions(conn, Reason::ConnectionLost);
        self.connections[conn.slot as usize] = None;
        self.addresses.went(self.peers[conn.slot as usize]);
        self.handshakes.forget(conn);
        self.translator_lost(now, conn);
        self.work_off(now);
    }

    /// A connection that was asked to leave has stopped here.
    pub fn departed(&mut self, now: Time, conn: ConnId, socket: RawSocket) {
        self.settle_last(now, conn);
        self.log_ins.forget(conn);
        let connection = self.connections[conn.slot as usize].take().expect("a leaving connection is known");
        self.addresses.went(self.peers[conn.slot as usize]);
        match connection.door {
            Doorway::Leaving { to, parting, is_link } => {
                let translator = self.translators.take(conn.slot);
                let (peer, accepted) = (self.peers[conn.slot as usize], connection.accepted);
                let adoption = Adoption { socket, peer, accepted, parting: *parting, is_link, translator };
                self.put_aside(to, Entry::Adopt(Box::new(adoption)));
            }
            Doorway::Here(_) | Doorway::Link(_) | Doorway::Closing => {
                self.translators.set(conn, None);
                self.orphans.push(socket);
            }
        }
    }

    /// A connection comes from another core. What holds for new ones holds for it, too: naming a user who lives here must not be a
    /// way around it.
    pub(super) fn adopt(&mut self, now: Time, adoption: Adoption) {
        let Adoption { socket, peer, accepted, parting, is_link, translator } = adoption;
        let (door, unread) = Door::resume_from(parting);
        let has_room = is_link || self.has_room_for(peer);
        let conn = match is_link {
            true => self.open_link(now, peer, Far::Unknown(Vec::new()), translator),
            false => self.open(now, peer, accepted, door, translator),
        };
        self.adoptions.push((conn, socket));
        match has_room {
            true => self.received_native(now, conn, &unread),
            false => self.end_connection(conn, Reason::TooManyConnections, ""),
        }
        self.work_off(now);
    }
}

/// A frame as a request to the home.
fn request(frame: ClientFrame<'_>) -> Result<Ask, (Reason, String)> {
    let bare = |text: &str| Bare::new(text).ok_or_else(|| (Reason::BadJid, format!("{text:?}")));
    let either = |text: &str| match Bare::with_resource(text) {
        Some((jid, resource)) => Ok((jid, resource.map(str::to_owned))),
        None => Err((Reason::BadJid, format!("{text:?}"))),
    };
    Ok(match frame {
        ClientFrame::Message(message) => {
            let (to, resource) = either(message.to().unwrap_or_default())?;
            let body = message.body().map(|body| body.bytes().to_vec()).unwrap_or_default();
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            let (id, extensions) = (text(message.id()), text(message.extensions()));
            Ask::Message { to, resource, content: Content { kind: message.kind(), id, body, extensions } }
        }
        ClientFrame::DirectedPresence { to, presence } => {
            let (to, resource) = either(to)?;
            Ask::Directed { to, resource, show: presence.show, presence: presence.bytes.to_vec() }
        }
        ClientFrame::Probe(probe) => Ask::Probe { publisher: bare(probe.jid())? },
        ClientFrame::Subscription(subscription) => Ask::Subscription {
            action: action(subscription.action()),
            contact: bare(subscription.jid())?,
            note: Note {
                text: subscription.note().unwrap_or_default().to_owned(),
                extensions: subscription.extensions().unwrap_or_default().to_owned(),
            },
        },
        ClientFrame::RosterGet(get) => Ask::RosterGet { after: None, kept: get.version().unwrap_or_default().to_owned() },
        ClientFrame::Activity(_) => return Err((Reason::BadRequest, "the sessions of a trunk are always active".into())),
        ClientFrame::DocumentSet(set) => Ask::DocumentSet {
            name: set.name().to_owned(),
            data: set.data().map(|data| data.bytes().to_vec()).unwrap_or_default(),
            access: set.access(),
        },
        ClientFrame::DocumentGet(get) => {
            let jid = get.jid().filter(|jid| !jid.is_empty()).map(bare).transpose()?;
            Ask::DocumentGet { jid, name: get.name().to_owned() }
        }
        ClientFrame::Interests(interests) => Ask::Interests {
            names: (!interests.again()).then(|| interests.names().into_iter().flatten().map(str::to_owned).collect()),
        },
        ClientFrame::AccountRemove => Ask::AccountRemove,
        ClientFrame::Carbons(carbons) => Ask::Carbons { enabled: carbons.enabled() },
        ClientFrame::LastSeenGet(get) => Ask::LastSeen { jid: bare(get.jid())? },
        ClientFrame::RosterSet(set) if set.remove() => Ask::RosterRemove { contact: bare(set.jid())? },
        ClientFrame::RosterSet(set) => Ask::RosterSet {
            contact: bare(set.jid())?,
            name: set.name().unwrap_or_default().to_owned(),
            groups: set.groups().into_iter().flatten().map(str::to_owned).collect(),
        },
        ClientFrame::Block(block) if block.jid().is_empty() && !block.blocked() => Ask::UnblockAll,
        ClientFrame::Block(block) => Ask::Block { jid: bare(block.jid())?, blocked: block.blocked() },
        ClientFrame::BlockListGet => Ask::BlockListGet,
        ClientFrame::Ack(ack) => Ask::Ack { received: ack.received() },
        ClientFrame::Hello(_)
        | ClientFrame::Ping(_)
        | ClientFrame::Pong(_)
        | ClientFrame::LogIn { .. }
        | ClientFrame::Register(_)
        | ClientFrame::PasswordSet(_)
        | ClientFrame::Bind { .. }
        | ClientFrame::SaslResponse(_)
        | ClientFrame::Resume(_)
        | ClientFrame::LogOut(_)
        | ClientFrame::SetPresence(_) => unreachable!("the caller handles these itself"),
    })
}

fn action(action: native::Action) -> Action {
    Action::from_number(action.0).expect("decode checked the range")
}
