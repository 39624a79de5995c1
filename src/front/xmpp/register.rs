//! Accounts that people make, change and remove themselves (XEP-0077), where the operator lets them.

use super::iq::Asked;
use super::reasons::{BAD_REQUEST, NOT_ACCEPTABLE, failure};
use super::stanza::{IqKind, iq_kind};
use super::stream::End;
use super::{Mark, Question, Stage, Turn, Xmpp, names};
use crate::base::jid::Bare;
use crate::base::reason::Reason;
use crate::wire::xml::{self, Element};

const FORM: &[u8] = b"<instructions>Choose a user name and a password.</instructions><username/><password/>";

/// What stands in a form.
fn field(form: &Element, name: &str) -> String {
    form.child(name, names::REGISTER).map(Element::text).unwrap_or_default()
}

impl Xmpp {
    /// Whether an element of a stream that nobody has logged in on is about a new account.
    pub(super) fn is_registration(&self, element: &Element) -> bool {
        let open = self.rules.registration && self.stage == Stage::Open && !self.must_be_private();
        open && element.is("iq", names::CLIENT) && element.child("query", names::REGISTER).is_some()
    }

    pub(super) fn registration(&mut self, element: &Element, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let id = element.attribute("id").unwrap_or_default();
        let form = element.child("query", names::REGISTER).expect("the caller looked");
        match iq_kind(element) {
            Some(IqKind::Get) => turn.say(Mark::Words, |out| self.write_registered(out, id, Some(FORM))),
            Some(IqKind::Set) => {
                let (name, password) = (field(form, "username"), field(form, "password"));
                let jid = Bare::new(&format!("{name}@{}", self.rules.domain)).filter(|_| !name.contains(['@', '/']));
                let Some(jid) = jid.filter(|_| !password.is_empty()) else {
                    turn.say(Mark::Words, |out| self.write_early_failure(out, id, NOT_ACCEPTABLE));
                    return Ok(());
                };
                self.stage = Stage::Deciding;
                let tag = self.ask(Question::Register { id: id.into() }).expect("nothing else waits before a log-in");
                turn.frame(|encoder, frames| encoder.register(frames, tag, jid.as_str(), &password));
            }
            _ => turn.say(Mark::Words, |out| self.write_early_failure(out, id, BAD_REQUEST)),
        }
        Ok(())
    }

    /// The core has made the account, or not.
    pub(super) fn registered(&mut self, id: &str, refused: Option<Reason>, out: &mut Vec<u8>) {
        self.stage = Stage::Open;
        self.message_out(out, |this, out| match refused {
            None => this.write_registered(out, id, None),
            Some(reason) => this.write_early_failure(out, id, failure(reason)),
        });
    }

    fn write_registered(&self, out: &mut Vec<u8>, id: &str, form: Option<&[u8]>) {
        self.open_tag(out, "iq");
        xml::attribute(out, "type", "result");
        xml::attribute(out, "id", id);
        out.push(b'>');
        if let Some(form) = form {
            write_query(out, form);
        }
        out.extend_from_slice(b"</iq>");
    }

    /// Who has logged in asks about the own account, changes its password or removes it.
    pub(super) fn own_registration(&mut self, asked: Asked<'_>, turn: &mut Turn<'_, '_>) {
        let own = self.bare().split_once('@').map_or("", |(local, _)| local).to_owned();
        if !asked.sets {
            return self.result(asked, turn, |out| {
                let mut form = b"<registered/><username>".to_vec();
                xml::text(&mut form, &own);
                form.extend_from_slice(b"</username><password/>");
                write_query(out, &form);
            });
        }
        let removes = asked.payload.child("remove", names::REGISTER).is_some();
        let password = field(asked.payload, "password");
        if !removes && (password.is_empty() || field(asked.payload, "username") != own) {
            return self.fail(asked, NOT_ACCEPTABLE, turn);
        }
        let question = Question::Iq { id: asked.id.into(), from: asked.to.into() };
        let Some(tag) = self.ask_for(asked, turn, question) else { return };
        turn.frame(|encoder, frames| match removes {
            true => encoder.account_remove(frames, tag),
            false => encoder.password_set(frames, tag, &password),
        });
    }
}

fn write_query(out: &mut Vec<u8>, form: &[u8]) {
    out.extend_from_slice(b"<query xmlns='jabber:iq:register'>");
    out.extend_from_slice(form);
    out.extend_from_slice(b"</query>");
}
