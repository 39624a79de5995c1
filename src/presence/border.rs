//! What may cross between clusters: a language of its own, so that nothing else can be said, and the rules for what comes in.
//!
//! Lives on: every core. Serves Z5-Z9, M4. Invariants: no seat crosses; a session that waits for an answer is a number that its own
//! cluster alone understands; who is in another cluster speaks for its own users alone, and to users of this one. Names are looked
//! at by whoever knows whose they are (`Crossing::speaker`); all else is checked here, where it comes in.

use super::control::{
    Arrival, Asker, Content, Control, Directed, EdgeRef, FAREWELL, Fetch, Fetched, Message, News, Question, SessionEvent, Snapshot,
    Wanted, Way, WayKind, WayName,
};
use super::directory::Inquiry;
use super::frame::{self, Events};
use super::lapsed::Lapsed;
use super::passage::BadPassage;
use super::relay::{Compare, Known, SLOT};
use super::subscription::Action;
use crate::base::id::{CoreId, NodeId, Seat, SessionId, UserId, slot_of};
use crate::base::jid::Bare;
use crate::base::limits::{DOCUMENT_NAME_BYTES, INTERESTS, JID_PART_BYTES, Limits, SUBSCRIPTION_EXTENSION_BYTES, TEXT_BYTES};
use crate::base::map::Map;
use crate::base::reason::Reason;
use crate::wire::native::Access;
use crate::wire::presence;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sessions of one publisher of another cluster. At the limit: what says that there are more is refused.
pub const FAR_SESSIONS: usize = 256;
/// What a frame has beside a presence.
pub const FRAME_BYTES: usize = 64;

/// It says what no cluster may, and is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lie;

/// Whoever waits for an answer in another cluster: the core there, and a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ticket {
    pub place: u32,
    pub number: u32,
    /// It's told of success, too.
    pub wants: bool,
}

/// Something on its way from one cluster to another.
#[derive(Debug, Serialize, Deserialize)]
pub enum Crossing {
    Way(Box<Way>),
    WayDone(Box<Arrival>),
    WayForgotten(Box<WayName>),
    Watch { publisher: UserId, subscriber: UserId, nonce: u32, known: Option<u64> },
    Unwatch { publisher: UserId },
    State(Box<State>),
    Refused { publisher: UserId, subscriber: UserId, nonce: u32 },
    Revoke { publisher: UserId, subscriber: UserId },
    Letter(Box<Letter>),
    Question(Box<Asked>),
    Directed(Box<Directed>),
    News(Box<News>),
    Fetch(Box<Fetch>),
    Fetched(Box<Fetched>),
    Reply { ticket: Ticket, answer: Reply },
    Astray(Box<Astray>),
    Lapsed(Box<Lapsed>),
    Inquiry(Box<Inquiry>),
    Obtain { publisher: UserId, session: SessionId },
    Compare { place: u32, number: u32, known: Known },
    Compared { place: u32, number: u32, count: u32 },
    Attention { publisher: UserId, active: bool },
}

/// A publisher's state: a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    pub publisher: UserId,
    pub jid: Bare,
    pub subscriber: UserId,
    pub nonce: u32,
    pub events: Events,
    pub revoked: Vec<UserId>,
}

/// A message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Letter {
    pub from: Bare,
    pub from_resource: String,
    pub to: Bare,
    pub to_resource: Option<String>,
    pub content: Content,
    pub ticket: Ticket,
}

/// A question about a user.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    pub from: Bare,
    pub from_user: UserId,
    pub about: Bare,
    pub what: Wanted,
    pub ticket: Ticket,
}

/// Something that found nobody where it was sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Astray {
    pub jid: Bare,
    /// The cluster that says so.
    pub cluster: u16,
    pub what: Strayed,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Strayed {
    /// What the gateway has a number for.
    Ticket(u32),
    Way(WayName),
    Directed,
}

/// What has come from another cluster, on its way inside this one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entered {
    pub cluster: u16,
    /// It is known that it speaks for a user of that cluster.
    pub vouched: bool,
    pub crossing: Crossing,
}

/// What one cluster answers to a session of another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Error(Reason, String),
    Document { data: Vec<u8>, access: Access },
    LastSeen { seconds: u64, status: String },
}

/// A core of its own cluster, as a number.
pub fn place_of(seat: Seat) -> u32 {
    u32::from(seat.node.0) << 16 | u32::from(seat.core.0)
}

fn seat_of(place: u32) -> Seat {
    Seat { node: NodeId((place >> 16) as u16), core: CoreId(place as u16) }
}

impl Ticket {
    /// What stands in a session's place while something that it asked is in another cluster.
    pub fn edge(here: Seat, number: u32) -> EdgeRef {
        EdgeRef { seat: here, slot: place_of(here), generation: number }
    }

    /// The core that knows it.
    pub fn seat(self) -> Seat {
        seat_of(self.place)
    }

    fn of(asker: Asker) -> Ticket {
        Ticket { place: asker.edge.slot, number: asker.edge.generation, wants: asker.request != 0 }
    }

    fn asker(self, cluster: u16) -> Asker {
        let edge = EdgeRef { seat: Seat::of_cluster(cluster), slot: self.place, generation: self.number };
        Asker { edge, request: u32::from(self.wants) }
    }
}

/// Appends what crosses to another cluster. `None`: such a thing never does.
pub fn encode(control: Control, to: u16, into: Vec<u8>) -> Option<Vec<u8>> {
    let crossing = Crossing::of(control, to)?;
    Some(postcard::to_extend(&crossing, into).expect("crossings are plain values, and memory takes them all"))
}

/// Reads what has come from another cluster.
///
/// # Errors
/// It is nothing that crosses.
pub fn decode(bytes: &[u8]) -> Result<Crossing, BadPassage> {
    match postcard::take_from_bytes(bytes) {
        Ok((crossing, [])) => Ok(crossing),
        _ => Err(BadPassage),
    }
}

impl Crossing {
    fn of(control: Control, to: u16) -> Option<Crossing> {
        Some(match control {
            Control::Way(mut way) => {
                way.knows.retain(|(cluster, _)| *cluster == to);
                Crossing::Way(way)
            }
            Control::WayDone(arrival) => Crossing::WayDone(arrival),
            Control::WayForgotten(name) => Crossing::WayForgotten(name),
            Control::Watch { publisher, subscriber, nonce, known, .. } => Crossing::Watch { publisher, subscriber, nonce, known },
            Control::Unwatch { publisher, .. } => Crossing::Unwatch { publisher },
            Control::Snapshot(snapshot) => {
                let Snapshot { publisher, jid, subscriber, nonce, events, mut revoked, .. } = *snapshot;
                // Whom else the publisher has revoked is no business of that cluster.
                revoked.retain(|user| user.cluster() == to);
                Crossing::State(Box::new(State { publisher, jid, subscriber, nonce, events, revoked }))
            }
            Control::Refused { publisher, subscriber, nonce, .. } => Crossing::Refused { publisher, subscriber, nonce },
            Control::Revoke { publisher, subscriber, .. } => Crossing::Revoke { publisher, subscriber },
            Control::Message(message) => {
                let Message { from, from_resource, to, to_resource, content, asker, .. } = *message;
                let (from_resource, ticket) = (from_resource.into(), Ticket::of(asker));
                Crossing::Letter(Box::new(Letter { from, from_resource, to, to_resource, content, ticket }))
            }
            Control::Question(question) => {
                let Question { from, from_user, about, what, asker } = *question;
                Crossing::Question(Box::new(Asked { from, from_user, about, what, ticket: Ticket::of(asker) }))
            }
            Control::Directed(directed) => Crossing::Directed(directed),
            Control::News(news) => Crossing::News(news),
            Control::Fetch(fetch) => Crossing::Fetch(fetch),
            Control::Fetched(fetched) => Crossing::Fetched(fetched),
            Control::ToSession { edge, event } => {
                let ticket = Ticket { place: edge.slot, number: edge.generation, wants: false };
                Crossing::Reply { ticket, answer: Reply::of(event)? }
            }
            Control::Astray(astray) => Crossing::Astray(astray),
            Control::Lapsed(lapsed) => Crossing::Lapsed(lapsed),
            Control::Directory(inquiry) => Crossing::Inquiry(inquiry),
            Control::Obtain { publisher, session, .. } => Crossing::Obtain { publisher, session },
            Control::Compare(compare) => {
                let Compare { place, number, known, .. } = *compare;
                Crossing::Compare { place, number, known }
            }
            Control::Compared { place, number, count } => Crossing::Compared { place, number, count },
            Control::Attention { publisher, active, .. } => Crossing::Attention { publisher, active },
            _ => return None,
        })
    }

    /// As it is said inside. `from`: the cluster that it has come from.
    pub fn enter(self, from: u16) -> Control {
        let (seat, slot) = (Seat::of_cluster(from), SLOT);
        match self {
            Crossing::Way(way) => {
                let knows = way.knows.iter().map(|(_, last)| (0, *last)).collect();
                Control::Way(Box::new(Way { cluster: from, knows, ..*way }))
            }
            Crossing::WayDone(arrival) => {
                let Arrival { name, before } = *arrival;
                Control::WayDone(Box::new(Arrival { name: WayName { cluster: from, ..name }, before }))
            }
            Crossing::WayForgotten(name) => Control::WayForgotten(Box::new(WayName { cluster: from, ..*name })),
            Crossing::Watch { publisher, subscriber, nonce, known } => {
                Control::Watch { publisher, subscriber, seat, slot, nonce, known }
            }
            Crossing::Unwatch { publisher } => Control::Unwatch { publisher, seat, slot },
            Crossing::State(state) => {
                let State { publisher, jid, subscriber, nonce, events, revoked } = *state;
                Control::Snapshot(Box::new(Snapshot { publisher, jid, subscriber, slot, nonce, events, behind: 0, revoked }))
            }
            Crossing::Refused { publisher, subscriber, nonce } => Control::Refused { publisher, subscriber, slot, nonce },
            Crossing::Revoke { publisher, subscriber } => Control::Revoke { publisher, subscriber, slot },
            Crossing::Letter(letter) => {
                let Letter { from: sender, from_resource, to, to_resource, content, ticket } = *letter;
                let message = Message::new((sender, from_resource.into()), (to, to_resource), content, ticket.asker(from));
                Control::Message(Box::new(message))
            }
            Crossing::Question(asked) => {
                let Asked { from: asks, from_user, about, what, ticket } = *asked;
                Control::Question(Box::new(Question { from: asks, from_user, about, what, asker: ticket.asker(from) }))
            }
            Crossing::Directed(directed) => Control::Directed(directed),
            Crossing::News(news) => Control::News(news),
            Crossing::Fetch(fetch) => Control::Fetch(fetch),
            Crossing::Fetched(fetched) => Control::Fetched(fetched),
            Crossing::Reply { ticket, answer } => Control::Reply { number: ticket.number, cluster: from, answer },
            Crossing::Astray(astray) => Control::Astray(Box::new(Astray { cluster: from, ..*astray })),
            Crossing::Lapsed(lapsed) => Control::Lapsed(Box::new(Lapsed { cluster: from, ..*lapsed })),
            Crossing::Inquiry(inquiry) => Control::Directory(Box::new(inquiry.by(from))),
            Crossing::Obtain { publisher, session } => Control::Obtain { publisher, session, seat },
            Crossing::Compare { place, number, known } => Control::Compare(Box::new(Compare { seat, place, number, known })),
            Crossing::Compared { place, number, count } => Control::Compared { place, number, count },
            Crossing::Attention { publisher, active } => Control::Attention { publisher, seat, slot, active },
        }
    }

    /// Whose name it comes under: a user who must be of the cluster that it comes from.
    pub fn speaker(&self) -> Option<&Bare> {
        match self {
            Crossing::Way(way) => Some(&way.from),
            Crossing::WayDone(arrival) => Some(&arrival.name.to),
            Crossing::State(state) => Some(&state.jid),
            Crossing::Letter(letter) => Some(&letter.from),
            Crossing::Question(asked) => Some(&asked.from),
            Crossing::Directed(directed) => Some(&directed.from),
            Crossing::Fetch(fetch) => Some(&fetch.from),
            _ => None,
        }
    }

    /// Whoever waits for an answer to it, in the cluster that it has come from.
    pub fn asker(&self, from: u16) -> Option<Asker> {
        match self {
            Crossing::Letter(letter) => Some(letter.ticket.asker(from)),
            Crossing::Question(asked) => Some(asked.ticket.asker(from)),
            _ => None,
        }
    }

    /// Whether it may come from somebody who does not exist: the last words of a user who went, or a denial in the place of one;
    /// and that something has arrived for such a user, which nobody else can say.
    pub fn takes_leave(&self) -> bool {
        match self {
            Crossing::Way(way) => way.kind.takes_leave(),
            Crossing::WayDone(_) => true,
            _ => false,
        }
    }

    /// The name of the user of this cluster whom it is for, if it's a name that says it.
    pub fn addressee(&self) -> Option<&Bare> {
        match self {
            Crossing::Way(way) => Some(&way.to),
            Crossing::Letter(letter) => Some(&letter.to),
            Crossing::Question(asked) => Some(&asked.about),
            Crossing::Directed(directed) => Some(&directed.to),
            _ => None,
        }
    }

    /// The core that it is for; this one, if it's for several (`spread`).
    pub fn target(&self, map: &Map) -> Seat {
        match self {
            Crossing::WayDone(arrival) => map.home_of(&arrival.name.from),
            Crossing::WayForgotten(name) => map.home_of(&name.to),
            Crossing::Watch { publisher, .. }
            | Crossing::Unwatch { publisher }
            | Crossing::Obtain { publisher, .. }
            | Crossing::Attention { publisher, .. }
            | Crossing::Refused { publisher, .. }
            | Crossing::Revoke { publisher, .. } => map.gateway(*publisher),
            Crossing::State(state) => map.gateway(state.publisher),
            Crossing::Fetch(fetch) => map.gateway(fetch.publisher),
            Crossing::Fetched(fetched) => map.gateway(fetched.fetch.from_user),
            Crossing::Reply { ticket, .. } => ticket.seat(),
            Crossing::Compared { place, .. } => seat_of(*place),
            Crossing::Astray(astray) => map.home_of(&astray.jid),
            Crossing::News(_) | Crossing::Lapsed(_) | Crossing::Compare { .. } => map.here,
            Crossing::Inquiry(inquiry) => map.home_of(inquiry.jid()),
            Crossing::Way(way) => map.home_of(&way.to),
            Crossing::Letter(letter) => map.home_of(&letter.to),
            Crossing::Question(asked) => map.home_of(&asked.about),
            Crossing::Directed(directed) => map.home_of(&directed.to),
        }
    }

    /// The same for all that it's for: news for users of several cores are several.
    pub fn spread(self, map: &Map) -> Vec<(Seat, Crossing)> {
        match self {
            Crossing::News(news) => {
                let mut by_home: BTreeMap<Seat, Vec<UserId>> = BTreeMap::new();
                let News { publisher, name, subscribers } = *news;
                subscribers.into_iter().for_each(|user| by_home.entry(map.gateway(user)).or_default().push(user));
                let news = |subscribers| Crossing::News(Box::new(News { publisher, name: name.clone(), subscribers }));
                by_home.into_iter().map(|(home, subscribers)| (home, news(subscribers))).collect()
            }
            Crossing::Compare { place, number, known } => {
                let mut by_home: BTreeMap<Seat, Vec<(UserId, u64)>> = BTreeMap::new();
                known.0.into_iter().for_each(|one| by_home.entry(map.gateway(one.0)).or_default().push(one));
                let compare = |known| Crossing::Compare { place, number, known: Known(known) };
                by_home.into_iter().map(|(home, known)| (home, compare(known))).collect()
            }
            one => vec![(one.speaker().map_or_else(|| one.target(map), |jid| map.home_of(jid)), one)],
        }
    }

    /// Looks at what can be seen without asking anybody: whose numbers they are, and how much it is.
    ///
    /// # Errors
    /// No cluster may say that, or not this one.
    pub fn check(&self, from: u16, map: &Map, limits: &Limits) -> Result<(), Lie> {
        let theirs = |user: UserId| user.cluster() == from && user.serial() != 0;
        let named = |user: UserId, jid: &Bare| theirs(user) && user.slot() == slot_of(jid.as_str());
        let ours = |user: UserId| user.cluster() == map.cluster;
        let maybe = |user: UserId, of: &dyn Fn(UserId) -> bool| user == UserId::NOBODY || of(user);
        let frame = limits.frame_bytes as usize;
        let short = |resource: &str| resource.len() <= JID_PART_BYTES && !resource.chars().any(char::is_control);
        let sound = match self {
            Crossing::Way(way) => {
                let denial = way.from_user == UserId::NOBODY && way.kind == WayKind::Stanza(Action::Unsubscribed);
                let fits = way.note.text.len() <= TEXT_BYTES && way.note.extensions.len() <= SUBSCRIPTION_EXTENSION_BYTES;
                let is_sent = way.sequence != FAREWELL && way.knows.len() <= 1;
                (denial || named(way.from_user, &way.from)) && maybe(way.to_user, &ours) && fits && is_sent
            }
            Crossing::WayDone(_) | Crossing::WayForgotten(_) | Crossing::Astray(_) | Crossing::Lapsed(_) => true,
            Crossing::Watch { publisher, subscriber, .. } => ours(*publisher) && maybe(*subscriber, &theirs),
            Crossing::Unwatch { publisher } | Crossing::Obtain { publisher, .. } | Crossing::Attention { publisher, .. } => {
                ours(*publisher)
            }
            Crossing::State(state) => {
                let fits = |event: &[u8]| frame::head(event).user == state.publisher && event.len() <= frame + FRAME_BYTES;
                let all_fit = state.events.iter().all(fits) && state.events.iter().count() <= FAR_SESSIONS;
                named(state.publisher, &state.jid) && maybe(state.subscriber, &ours) && all_fit
            }
            Crossing::Refused { publisher, .. } | Crossing::Revoke { publisher, .. } => theirs(*publisher),
            Crossing::Letter(letter) => {
                let Content { id, body, extensions, .. } = &letter.content;
                let resources = short(&letter.from_resource) && letter.to_resource.as_deref().is_none_or(short);
                resources && id.len() + body.len() + extensions.len() <= frame
            }
            Crossing::Question(asked) => {
                let fits = !matches!(&asked.what, Wanted::Document(name) if name.len() > DOCUMENT_NAME_BYTES);
                named(asked.from_user, &asked.from) && fits
            }
            Crossing::Directed(directed) => {
                let resources = short(&directed.from_resource) && directed.to_resource.as_deref().is_none_or(short);
                resources && directed.presence.len() <= frame && presence::read(&directed.presence).is_ok()
            }
            Crossing::News(news) => {
                theirs(news.publisher) && news.name.len() <= DOCUMENT_NAME_BYTES && news.subscribers.iter().all(|user| ours(*user))
            }
            Crossing::Fetch(fetch) => {
                let fits = fetch.names.len() <= INTERESTS && fetch.names.iter().all(|(name, _)| name.len() <= DOCUMENT_NAME_BYTES);
                ours(fetch.publisher) && named(fetch.from_user, &fetch.from) && fits
            }
            Crossing::Fetched(fetched) => {
                let bytes: usize = fetched.documents.iter().map(|(_, data)| data.len()).sum();
                let fits = bytes <= limits.document_bytes_per_user as usize && fetched.documents.len() <= INTERESTS;
                theirs(fetched.fetch.publisher) && ours(fetched.fetch.from_user) && fits
            }
            Crossing::Reply { ticket, answer } => {
                let fits = match answer {
                    Reply::Done => true,
                    Reply::Error(reason, detail) => !reason.closes() && detail.len() <= TEXT_BYTES,
                    Reply::Document { data, .. } => data.len() <= limits.document_bytes_per_user as usize,
                    Reply::LastSeen { status, .. } => status.len() <= frame,
                };
                fits && map.has(ticket.seat())
            }
            Crossing::Compare { known, .. } => known.0.iter().all(|(user, _)| ours(*user)),
            Crossing::Compared { place, .. } => map.has(seat_of(*place)),
            Crossing::Inquiry(inquiry) => inquiry.check(from, map),
        };
        if sound { Ok(()) } else { Err(Lie) }
    }
}

impl Reply {
    /// `None`: it answers nothing that is asked across.
    fn of(event: SessionEvent) -> Option<Reply> {
        Some(match event {
            SessionEvent::Done { .. } => Reply::Done,
            SessionEvent::Error { reason, mut detail, .. } => {
                let end = detail.floor_char_boundary(TEXT_BYTES);
                detail.truncate(end);
                Reply::Error(reason, detail)
            }
            SessionEvent::Document { data, access, .. } => Reply::Document { data, access },
            SessionEvent::LastSeen { seconds, status, .. } => Reply::LastSeen { seconds, status },
            _ => return None,
        })
    }

    /// What the session is told that has sent this; `None`: it has asked something else.
    pub fn event(self, sent: &Control) -> Option<SessionEvent> {
        Some(match (self, sent) {
            (Reply::Done, Control::Message(message)) => SessionEvent::Done { request: message.asker.request },
            (Reply::Error(reason, detail), _) => SessionEvent::Error { request: asker_of(sent)?.request, reason, detail },
            (answer, Control::Question(question)) => {
                let (request, jid) = (question.asker.request, question.about.clone());
                match (answer, &question.what) {
                    (Reply::Document { data, access }, Wanted::Document(name)) => {
                        SessionEvent::Document { request, jid, name: name.clone(), data, access }
                    }
                    (Reply::LastSeen { seconds, status }, Wanted::LastSeen) => {
                        SessionEvent::LastSeen { request, jid, seconds, status }
                    }
                    _ => return None,
                }
            }
            _ => return None,
        })
    }
}

/// Whoever waits for an answer to it.
pub fn asker_of(control: &Control) -> Option<Asker> {
    match control {
        Control::Message(message) => Some(message.asker),
        Control::Question(question) => Some(question.asker),
        _ => None,
    }
}
