//! Accounts that people make and change themselves (XEP-0077). A password's keys are derived on another thread: it takes a
//! millisecond.
//!
//! Invariants: an account is made only where the operator lets people make them, and only so many from one address in a minute; a
//! session has one password under way at most.

use super::addresses::network;
use super::log_in::Then;
use super::{PasswordTask, Shard, Whose, Work, Worked};
use crate::base::credentials::ScramCredentials;
use crate::base::id::{ConnId, CoreId};
use crate::base::jid::Bare;
use crate::base::limits::PASSWORD_BYTES;
use crate::base::reason::Reason;
use crate::base::time::Time;
use crate::presence::control::{Ask, Asker, Control};
use crate::presence::errand::What;
use crate::wire::encode::Tag;
use crate::wire::native;
use std::collections::BTreeMap;
use std::net::IpAddr;

const MINUTE_NS: u64 = 60_000_000_000;
/// Addresses that are kept apart in a minute. At the limit: `too_many_registrations`.
const ADDRESSES: usize = 65_536;

/// New accounts of this minute, by address.
#[derive(Default)]
pub(super) struct Registrations {
    minute: u64,
    counts: BTreeMap<IpAddr, u32>,
}

impl Registrations {
    /// Counts one. False: it's too many.
    fn take(&mut self, now: Time, peer: IpAddr, most: u32) -> bool {
        let minute = now.0 / MINUTE_NS;
        if minute != self.minute {
            (self.minute, self.counts) = (minute, BTreeMap::new());
        }
        let peer = network(peer);
        if self.counts.len() >= ADDRESSES && !self.counts.contains_key(&peer) {
            return false;
        }
        let count = self.counts.entry(peer).or_default();
        *count += 1;
        *count <= most
    }
}

fn check_password(password: &str) -> Result<(), (Reason, &'static str)> {
    match password.len() {
        0 => Err((Reason::BadRequest, "the password is empty")),
        bytes if bytes > PASSWORD_BYTES => Err((Reason::TooLarge, "the password")),
        _ => Ok(()),
    }
}

impl Shard {
    /// Somebody wants an account. Gives the core to which the connection must go first, if it's another.
    pub(super) fn register(&mut self, now: Time, conn: ConnId, tag: Tag, register: native::Register<'_>) -> Option<CoreId> {
        match self.may_register(register) {
            Err((reason, detail)) => self.refuse_log_in(conn, tag, reason, detail),
            Ok(jid) if self.near(&jid) != self.settings.core => return Some(self.near(&jid)),
            Ok(jid) if self.homes.by_name(&jid).is_some() => self.refuse_log_in(conn, tag, Reason::UserExists, ""),
            Ok(jid) => {
                let most = self.settings.limits.registrations_per_minute.div_ceil(u32::from(self.settings.cores));
                if self.registrations.take(now, self.peers[conn.slot as usize], most) {
                    self.derive(Whose::Connection(conn), register.password());
                    self.log_ins.registers(conn, jid, tag.request);
                } else {
                    self.refuse_log_in(conn, tag, Reason::TooManyRegistrations, "");
                }
            }
        }
        None
    }

    fn may_register(&self, register: native::Register<'_>) -> Result<Bare, (Reason, &'static str)> {
        if !self.settings.open_registration {
            return Err((Reason::RegistrationClosed, ""));
        }
        check_password(register.password())?;
        self.user_of(register.jid())
    }

    /// A session gives its account another password.
    pub(super) fn set_password(&mut self, conn: ConnId, tag: Tag, password: &str) {
        let Some((edge, _)) = self.edge.session(conn.slot, tag.stream) else {
            return self.say_error(conn, tag, Reason::NotLoggedIn, "");
        };
        if let Err((reason, detail)) = self.may_set(password) {
            return self.say_error(conn, tag, reason, detail);
        }
        if self.deriving.contains(&edge) {
            return self.say_error(conn, tag, Reason::TooManyPending, "one password at a time");
        }
        self.deriving.push(edge);
        self.derive(Whose::Session(Asker { edge, request: tag.request }), password);
    }

    /// A password kept here would take its user away from the service outside.
    fn may_set(&self, password: &str) -> Result<(), (Reason, &'static str)> {
        if self.settings.hook {
            return Err((Reason::RegistrationClosed, "passwords are kept elsewhere"));
        }
        check_password(password)
    }

    fn derive(&mut self, whose: Whose, password: &str) {
        let work = Work::Derive { password: password.to_owned(), salt: self.secrets.bytes16() };
        self.checks.push(PasswordTask { whose, work });
    }

    /// The other thread has done something with a password; `None`: it had too much to do.
    pub fn worked(&mut self, now: Time, whose: Whose, worked: Option<Worked>) {
        match (whose, worked) {
            (Whose::Connection(conn), Some(Worked::Derived(credentials))) => self.register_with(conn, Some(credentials)),
            (Whose::Connection(conn), None) if self.log_ins.is_registering(conn) => self.register_with(conn, None),
            (Whose::Connection(conn), worked) => self.checked(conn, worked),
            (Whose::Session(asker), Some(Worked::Derived(credentials))) => self.change_password(asker, Some(credentials)),
            (Whose::Session(asker), _) => self.change_password(asker, None),
        }
        self.work_off(now);
    }

    fn register_with(&mut self, conn: ConnId, credentials: Option<Box<ScramCredentials>>) {
        let Some((entrant, request)) = self.log_ins.derived(conn) else { return };
        let tag = Tag::request(request);
        match credentials {
            None => self.refuse_log_in(conn, tag, Reason::Overloaded, ""),
            Some(_) => self.ask_home(conn, tag, entrant, What::Create(credentials), Then::Registered),
        }
    }

    fn change_password(&mut self, asker: Asker, credentials: Option<Box<ScramCredentials>>) {
        self.deriving.retain(|edge| *edge != asker.edge);
        let Some(home) = self.edge.get(asker.edge).and_then(|session| session.home) else { return };
        let seat = self.out.map.home(home.user);
        match credentials {
            Some(credentials) if !self.out.is_full(seat) => {
                let ask = Box::new(Ask::Credentials(credentials));
                self.out.send(seat, Control::Ask { at: home.at(), session: home.session, asker, ask });
            }
            _ => self.request_failed(asker.edge, asker.request, Reason::Overloaded, ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_new_accounts_in_a_minute_and_a_network_is_one_address() {
        let mut registrations = Registrations::default();
        let mut take = |seconds: u64, peer: &str| registrations.take(Time(seconds * 1_000_000_000), peer.parse().unwrap(), 2);
        assert_eq!([take(1, "10.0.0.1"), take(2, "::ffff:10.0.0.1"), take(3, "10.0.0.1")], [true, true, false]);
        assert_eq!([take(4, "2001:db8::1"), take(4, "2001:db8::2"), take(4, "2001:db8::3")], [true, true, false]);
        assert!(take(5, "2001:db8:0:1::3") && take(6, "10.0.0.2"));
        assert!(take(61, "10.0.0.1"), "another minute");
    }
}
