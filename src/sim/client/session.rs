//! What a client knows of one of its sessions.

use crate::base::id::{SessionId, UserId, Version};
use crate::base::jid::Bare;
use crate::sim::check::kept::WishId;
use crate::sim::check::messages::SessionKey;
use crate::sim::check::{Check, Held};
use crate::wire::event::{Event, LAST};
use crate::wire::native::{Roster, RosterItem, Show};
use std::collections::BTreeMap;

/// What a request that waits for its answer was about.
#[derive(Clone, Debug)]
pub enum Pending {
    LogIn {
        by_password: bool,
        /// The status of the first presence, if it came along.
        first: Option<String>,
    },
    LogOut,
    /// The session goes offline: with the answer it knows of nobody.
    GoOffline,
    Wish(WishId),
    Letter(usize),
    Other,
}

/// What the client last said of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// The connection broke, so it's not known what the node has heard.
    Unsure,
    Offline,
    Online(String),
}

/// Another session's state, as far as it is known here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub version: Version,
    pub show: Show,
    pub status: String,
}

/// What was told last of a session: under which version, whether it was that it's gone, and how often that came again.
#[derive(Default, Debug)]
struct Told {
    version: Version,
    has_gone: bool,
    again: usize,
}

/// A contact as the roster and its pushes tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    pub subscription: u8,
    pub ask: bool,
    pub approved: bool,
    pub name: String,
}

#[derive(Debug)]
pub struct Session {
    pub jid: Bare,
    /// Whether it is logged in.
    pub open: bool,
    /// Whether it was resumed: answers to what was asked before may have been lost.
    pub resumed: bool,
    pub key: SessionKey,
    pub resource: String,
    pub token: Vec<u8>,
    pub said: Said,
    pub pending: BTreeMap<u32, Pending>,
    /// Messages whose sending was confirmed, by request.
    pub letters: BTreeMap<u32, usize>,
    pub view: BTreeMap<(UserId, SessionId), Seen>,
    told: BTreeMap<(UserId, SessionId), Told>,
    pub roster: Option<BTreeMap<String, Known>>,
    /// Rosters of which pieces have come, by request.
    pieces: BTreeMap<u32, BTreeMap<String, Known>>,
}

impl Session {
    pub fn new(jid: Bare, resource: String) -> Session {
        let key = SessionKey { log_in: 0, life: (0, 0), user: UserId::NOBODY, session: SessionId(0) };
        Session {
            jid,
            open: false,
            resumed: false,
            key,
            resource,
            token: Vec::new(),
            said: Said::Unsure,
            pending: BTreeMap::new(),
            letters: BTreeMap::new(),
            view: BTreeMap::new(),
            told: BTreeMap::new(),
            roster: None,
            pieces: BTreeMap::new(),
        }
    }

    /// Whether requests that want an answer may be sent.
    pub fn may_ask(&self) -> bool {
        self.open && !self.pending.values().any(|pending| matches!(pending, Pending::LogOut))
    }

    /// An event arrives: of each session of a publisher the newest state counts. `ends`: how often one of both has let the other
    /// see no more, each of which may have been told as farewells to whoever did not hear of the sessions in between.
    pub fn see(&mut self, event: &Event<'_>, ends: usize) -> Held {
        let head = event.head;
        if head.flags & LAST != 0 {
            return Ok(());
        }
        let place = (head.user, head.session);
        let Told { version: last, has_gone, again } = self.told.entry(place).or_default();
        Check::VersionsOnlyGrow.holds(head.version >= *last, || format!("{} heard {head:?} after {last:?}", self.key.user.0))?;
        let is_gone = head.show == Show::Unavailable;
        // Under another epoch it's another session.
        *again += usize::from(is_gone && *has_gone && head.version.epoch == last.epoch);
        Check::NobodyGoesTwice
            .holds(*again <= ends, || format!("{:?} heard again that {head:?} is gone, {ends} ends", self.key))?;
        (*last, *has_gone) = (head.version, is_gone);
        if is_gone {
            self.view.remove(&place);
        } else {
            let status = event.presence.map_or(String::new(), |presence| presence.fields().status.to_owned());
            self.view.insert(place, Seen { version: head.version, show: head.show, status });
        }
        Ok(())
    }

    /// A piece of a roster arrives: with the last one the roster is known.
    pub fn hear_roster(&mut self, request: u32, roster: Roster<'_>) {
        let mut items = self.pieces.remove(&request).unwrap_or_default();
        items.extend(roster.items().into_iter().flatten().map(|item| (item.jid().to_owned(), known(item))));
        match roster.more() {
            true => _ = self.pieces.insert(request, items),
            false => self.roster = Some(items),
        }
    }

    /// A contact has changed: the pieces that have come already may be older.
    pub fn push(&mut self, item: RosterItem<'_>) {
        for roster in self.roster.iter_mut().chain(self.pieces.values_mut()) {
            match item.removed() {
                true => _ = roster.remove(item.jid()),
                false => _ = roster.insert(item.jid().to_owned(), known(item)),
            }
        }
    }

    /// It is offline, and knows of nobody.
    pub fn forget_others(&mut self) {
        self.view.clear();
        self.told.values_mut().for_each(|told| told.has_gone = false);
    }

    /// The session goes on over another connection: what the old one did not finish does not come.
    pub fn forget_pieces(&mut self) {
        self.pieces.clear();
    }
}

pub fn known(item: RosterItem<'_>) -> Known {
    let name = item.name().unwrap_or_default().to_owned();
    Known { subscription: item.subscription().0, ask: item.ask(), approved: item.approved(), name }
}
