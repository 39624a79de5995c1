//! IQ stanzas to the server and to the client's own account (RFC 6120 8.2.3): each that asks gets one answer.

use super::disco::{ACCOUNT, SERVER};
use super::reasons::{BAD_JID, BAD_REQUEST, ELSEWHERE, FORBIDDEN, Failure, NO_SERVICE, TOO_MANY};
use super::stanza::{Address, IqKind, iq_kind};
use super::{Mark, Question, Turn, Xmpp, names};
use crate::base::jid::Bare;
use crate::wire::encode::Tag;
use crate::wire::native::LastSeen;
use crate::wire::xml::{self, Element};

/// Before the number of a ping of ours.
pub(super) const PING_ID: &str = "ping-";
/// Before the number of a question about what the client can do.
pub(super) const CAPS_ID: &str = "caps-";
/// Before the number of a roster push.
pub(super) const PUSH_ID: &str = "push-";
/// Seconds of a day, an hour, a minute.
const DAY: u64 = 86_400;

/// A question of this client, to be answered.
#[derive(Clone, Copy)]
pub(super) struct Asked<'e> {
    pub id: &'e str,
    /// Whom it was sent to, as the client wrote it.
    pub to: &'e str,
    pub sets: bool,
    pub payload: &'e Element,
}

impl Xmpp {
    pub(super) fn iq(&mut self, element: &Element, turn: &mut Turn<'_, '_>) {
        let attribute = |name| element.attribute(name).unwrap_or_default();
        let sets = match iq_kind(element) {
            Some(kind @ (IqKind::Result | IqKind::Error)) => return self.answered(element, kind, turn),
            Some(kind) => kind == IqKind::Set,
            None => return self.refuse(element, BAD_REQUEST, turn),
        };
        let mut payloads = element.children();
        let (Some(payload), None) = (payloads.next(), payloads.next()) else { return self.refuse(element, BAD_REQUEST, turn) };
        let (id, to) = (attribute("id"), attribute("to"));
        if id.is_empty() {
            return self.refuse(element, BAD_REQUEST.saying("an iq needs an id"), turn);
        }
        let asked = Asked { id, to, sets, payload };
        match self.address(element) {
            Address::Own => self.of_account(asked, turn),
            Address::Server => self.of_server(asked, turn),
            Address::User(user) => self.of_user(asked, &user, turn),
            Address::Session(..) => self.session_asked(element, turn),
            Address::Nowhere => self.fail(asked, NO_SERVICE, turn),
            Address::Elsewhere => self.fail(asked, ELSEWHERE, turn),
            Address::Malformed => self.fail(asked, BAD_JID, turn),
        }
    }

    /// Answers to the server's own questions, and to other clients'.
    fn answered(&mut self, element: &Element, kind: IqKind, turn: &mut Turn<'_, '_>) {
        let id = element.attribute("id").unwrap_or_default();
        match self.address(element) {
            Address::Session(..) => self.session_answered(element, kind, turn),
            Address::Own | Address::Server => {
                if let Some(number) = id.strip_prefix(CAPS_ID) {
                    return self.describes(number, element, kind, turn);
                }
                let data = id.strip_prefix(PING_ID).and_then(|data| u64::from_str_radix(data, 16).ok());
                if let Some(data) = data {
                    turn.frame(|encoder, frames| encoder.pong(frames, Tag::default(), data));
                }
            }
            _ => {}
        }
    }

    /// What the server answers for the client's own account.
    fn of_account(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>) {
        match (asked.payload.namespace.as_str(), asked.payload.name.as_str(), asked.sets) {
            (names::ROSTER, "query", false) => self.roster_get(asked, turn),
            (names::ROSTER, "query", true) => self.roster_set(asked, turn),
            (names::BLOCKING, "blocklist", false) => self.block_list(asked, turn),
            (names::BLOCKING, "block", true) => self.block(asked, true, turn),
            (names::BLOCKING, "unblock", true) => self.block(asked, false, turn),
            (names::CARBONS, "enable", true) => self.carbons(asked, true, turn),
            (names::CARBONS, "disable", true) => self.carbons(asked, false, turn),
            (names::SESSION, "session", true) => self.result(asked, turn, |_| {}),
            (names::BIND, "bind", true) => self.fail(asked, Failure::new("cancel", "not-allowed"), turn),
            (names::PING, "ping", false) => self.result(asked, turn, |_| {}),
            (names::DISCO_INFO | names::DISCO_ITEMS, "query", false) => self.disco(asked, &ACCOUNT, turn),
            (names::LAST, "query", false) => {
                let own = self.bare().to_owned();
                self.last_seen(asked, &own, turn);
            }
            _ if self.documents(asked, true, turn) => {}
            // Without an address, what else there is to ask is asked of the server.
            _ if asked.to.is_empty() => self.of_server(asked, turn),
            _ => self.fail(asked, NO_SERVICE, turn),
        }
    }

    fn of_server(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>) {
        match (asked.payload.namespace.as_str(), asked.payload.name.as_str(), asked.sets) {
            (names::PING, "ping", false) => self.result(asked, turn, |_| {}),
            (names::DISCO_INFO | names::DISCO_ITEMS, "query", false) => self.disco(asked, &SERVER, turn),
            (names::SESSION, "session", true) => self.result(asked, turn, |_| {}),
            (names::VERSION, "query", false) => self.result(asked, turn, |out| {
                out.extend_from_slice(b"<query xmlns='jabber:iq:version'><name>fanal</name><version>");
                out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
                out.extend_from_slice(b"</version></query>");
            }),
            (names::TIME, "time", false) => {
                let utc = utc(turn.core.wall_ms);
                self.result(asked, turn, |out| {
                    out.extend_from_slice(
                        format!("<time xmlns='urn:xmpp:time'><tzo>+00:00</tzo><utc>{utc}</utc></time>").as_bytes(),
                    );
                });
            }
            (names::LAST, "query", false) => {
                let seconds = turn.core.uptime_ms / 1000;
                self.result(asked, turn, |out| write_last(out, seconds, ""));
            }
            (names::REGISTER, "query", _) if self.rules.registration => self.own_registration(asked, turn),
            _ => self.fail(asked, NO_SERVICE, turn),
        }
    }

    /// What the server answers for another user's account, so that nobody learns who exists.
    fn of_user(&mut self, asked: Asked<'_>, user: &Bare, turn: &mut Turn<'_, '_>) {
        match (asked.payload.namespace.as_str(), asked.payload.name.as_str(), asked.sets) {
            (names::DISCO_INFO, "query", false) => self.disco_of_user(asked, user, turn),
            (names::DISCO_ITEMS, "query", false) => self.disco(asked, &ACCOUNT, turn),
            (names::ROSTER, _, _) => self.fail(asked, FORBIDDEN, turn),
            (names::LAST, "query", false) => self.last_seen(asked, user.as_str(), turn),
            _ if self.documents(asked, false, turn) => {}
            _ => self.fail(asked, NO_SERVICE, turn),
        }
    }

    /// XEP-0012.
    fn last_seen(&mut self, asked: Asked<'_>, user: &str, turn: &mut Turn<'_, '_>) {
        let question = Question::LastSeen { id: asked.id.into(), from: asked.to.into() };
        let Some(tag) = self.ask_for(asked, turn, question) else { return };
        turn.frame(|encoder, frames| encoder.last_seen_get(frames, tag, user));
    }

    pub(super) fn write_last_seen(&self, out: &mut Vec<u8>, id: &str, from: &str, seen: &LastSeen<'_>) {
        self.write_result(out, id, from, |out| write_last(out, seen.seconds(), seen.status().unwrap_or_default()));
    }

    /// Answers a question with a payload, which may be empty.
    pub(super) fn result(&self, asked: Asked<'_>, turn: &mut Turn<'_, '_>, payload: impl FnOnce(&mut Vec<u8>)) {
        turn.say(Mark::Stanza, |out| self.write_result(out, asked.id, asked.to, payload));
    }

    pub(super) fn write_result(&self, out: &mut Vec<u8>, id: &str, from: &str, payload: impl FnOnce(&mut Vec<u8>)) {
        self.open_stanza(out, "iq", "result", id, from);
        out.push(b'>');
        payload(out);
        out.extend_from_slice(b"</iq>");
    }

    pub(super) fn fail(&self, asked: Asked<'_>, failure: Failure, turn: &mut Turn<'_, '_>) {
        turn.count(failure);
        turn.say(Mark::Stanza, |out| self.write_failure(out, "iq", asked.id, asked.to, failure));
    }

    /// Asks the core for a client; when too much waits already, the client hears so.
    pub(super) fn ask_for(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>, question: Question) -> Option<Tag> {
        let tag = self.ask(question);
        if tag.is_none() {
            self.fail(asked, TOO_MANY, turn);
        }
        tag
    }
}

/// XEP-0012.
fn write_last(out: &mut Vec<u8>, seconds: u64, status: &str) {
    out.extend_from_slice(b"<query xmlns='jabber:iq:last'");
    xml::attribute(out, "seconds", &seconds.to_string());
    out.push(b'>');
    xml::text(out, status);
    out.extend_from_slice(b"</query>");
}

/// XEP-0082: a time as text, from milliseconds since 1970.
pub(super) fn utc(ms: u64) -> String {
    let (days, second) = (ms / 1000 / DAY, ms / 1000 % DAY);
    // Days are counted from a 1st of March, so that the leap day is a year's last; 400 years have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z", second / 3600, second / 60 % 60, second % 60, ms % 1000)
}

/// The time that such a text says. `None`: it's none. Time zones other than UTC are taken too.
pub(super) fn read_utc(text: &str) -> Option<u64> {
    let (date, time) = text.trim().split_once('T')?;
    let mut parts = date.splitn(3, '-').map(str::parse::<u64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let zone = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let mut parts = clock.splitn(3, ':');
    let (hour, minute, second) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?, parts.next()?);
    let (second, fraction) = second.split_once('.').unwrap_or((second, ""));
    let second = second.parse::<u64>().ok()?;
    let ms = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 24
        || minute > 59
        || second > 60
    {
        return None;
    }
    let (shifted, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days =
        shifted / 400 * 146_097 + shifted % 400 * 365 + shifted % 400 / 4 - shifted % 400 / 100 + (153 * month + 2) / 5 + day - 1;
    let local = (days.checked_sub(719_468)? * DAY + hour * 3600 + minute * 60 + second) * 1000 + ms;
    let offset = match zone.split_at(1) {
        ("Z", "") => return Some(local),
        (_, offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            (hours.parse::<u64>().ok()?.min(24) * 60 + minutes.parse::<u64>().ok()?.min(60)) * 60_000
        }
    };
    if zone.starts_with('+') { local.checked_sub(offset) } else { local.checked_add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_234_567_890_123, "2009-02-13T23:31:30.123Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(utc(ms), text);
            assert_eq!(read_utc(text), Some(ms));
        }
        assert_eq!(read_utc("2009-02-14T01:31:30.1+02:00"), Some(1_234_567_890_100));
        assert_eq!(read_utc("2009-02-13T21:31:30-02:00"), Some(1_234_567_890_000));
        for broken in
            ["", "T", "2009-02-13", "2009-13-01T00:00:00Z", "x-02-13T00:00:00Z", "2009-02-13T00:00Z", "1970-01-01T00:00:00+01:00"]
        {
            assert_eq!(read_utc(broken), None, "{broken}");
        }
    }
}
