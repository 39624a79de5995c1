//! What users may know of each other beyond presence: when somebody was last here (XEP-0012), and documents. Whoever may not know
//! can't tell that from there being nothing to know.

use super::Homes;
use super::reply::{refuse, tell};
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::base::time::{Time, WallClock};
use crate::presence::control::{Asker, Control, Message, Question, SessionEvent, UserRef, Wanted};
use crate::presence::farewell;
use crate::presence::outbox::Outbox;
use crate::presence::user::User;
use crate::wire::native::Access;

impl Homes {
    /// Passes a question to the home of whom it is about.
    pub(super) fn ask_about(&mut self, at: UserRef, asker: Asker, about: Bare, what: Wanted, out: &mut Outbox) {
        let home = out.map.home_of(&about);
        if out.is_full(home) {
            return refuse(asker, Reason::Overloaded, "", out);
        }
        let user = self.get(at).expect("the caller found it");
        let question = Question { from: user.jid.clone(), from_user: user.id, about, what, asker };
        out.send(home, Control::Question(Box::new(question)));
    }

    /// A question about a user of this core.
    pub fn question(&mut self, now: Time, question: Question, out: &mut Outbox) {
        let wall = self.place.wall(now);
        let asker = question.asker;
        let user = self.by_name(&question.about).and_then(|at| self.get(at));
        let answer = match &question.what {
            Wanted::LastSeen => last_seen(user, &question, wall),
            Wanted::Document(name) => document(user, &question, name),
        };
        match answer {
            Ok(event) => {
                self.counters.document_reads += u64::from(matches!(question.what, Wanted::Document(_)));
                tell(asker, event, out);
            }
            Err(reason) => refuse(asker, reason, question.about.to_string(), out),
        }
    }

    /// Whether the core may keep so much more. What is being stored now is not counted yet; it's bounded per user.
    pub(super) fn has_room_for(&self, data: &[u8]) -> bool {
        data.is_empty() || self.document_bytes + data.len() <= self.place.limits.document_bytes_per_core as usize
    }

    /// Bytes of the documents of users of this core.
    pub fn document_bytes(&self) -> usize {
        self.document_bytes
    }
}

/// Whether a session may be asked (RFC 6120 13.10.2, RFC 6121 11): its answer says that it's there, so only by who knows that
/// already, the user's own sessions, subscribers, and those it has sent directed presence. Others are answered as if it were not
/// there.
pub(super) fn may_ask(user: &User, question: &Message) -> bool {
    let Message { from, from_resource, to_resource, .. } = question;
    let was_told = |(to, resource): &(Bare, Option<String>)| {
        to == from && resource.as_ref().is_none_or(|resource| *resource == **from_resource)
    };
    let named = user.sessions.iter().find(|session| to_resource.as_deref() == Some(&*session.resource));
    let directed = named.and_then(|session| session.extra.as_ref()).is_some_and(|extra| extra.directed.iter().any(was_told));
    user.jid == *from || directed || user.approves_name(from)
}

fn last_seen(user: Option<&User>, question: &Question, now: WallClock) -> Result<SessionEvent, Reason> {
    let sees = |user: &&User| user.jid == question.from || user.approves(question.from_user);
    let user = user.filter(sees).ok_or(Reason::NotAuthorized)?;
    let (seconds, status) = match user.last() {
        _ if user.has_available() => (0, String::new()),
        Some(last) => (now.0.saturating_sub(last.stamp.0) / 1000, farewell::status(&last.presence).unwrap_or_default()),
        None => return Err(Reason::NotFound),
    };
    Ok(SessionEvent::LastSeen { request: question.asker.request, jid: user.jid.clone(), seconds, status })
}

fn document(user: Option<&User>, question: &Question, name: &str) -> Result<SessionEvent, Reason> {
    let user = user.ok_or(Reason::NotFound)?;
    let found =
        user.documents().iter().find(|document| *document.name == *name && !document.is_hidden()).ok_or(Reason::NotFound)?;
    let (request, jid) = (question.asker.request, user.jid.clone());
    let access = if jid == question.from { found.access } else { Access::default() };
    let answer = || SessionEvent::Document { request, jid, name: name.to_owned(), data: found.data.to_vec(), access };
    may_read(user, found.access, &question.from, question.from_user).then(answer).ok_or(Reason::NotFound)
}

/// Whether a user may read a document of another one.
pub(super) fn may_read(user: &User, access: Access, from: &Bare, from_user: UserId) -> bool {
    match access {
        _ if user.jid == *from => true,
        Access::Everyone => !user.has_blocked(from),
        Access::Contacts => user.approves(from_user),
        _ => false,
    }
}
