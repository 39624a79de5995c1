//! What a client says in JSON, as native frames.
//!
//! Lives on: every core. Pure. Invariant: a message becomes one frame, or a fault and nothing. `schemas/JSON.md` has an example of
//! each; `tests/json_examples.rs` reads them.

use super::Memory;
use super::names;
use super::read::{Fault, Members};
use crate::wire::encode::{Encoder, LogInFields, MessageFields, PresenceFields, SubscriptionFields, Tag};
use crate::wire::native as n;

/// Appends the frame that a message means. `resource`: the session's own, which presence carries.
pub fn message(memory: &mut Memory, text: &str, resource: &str, frames: &mut Vec<u8>) -> Result<(), Fault> {
    let start = frames.len();
    let Memory { encoder, reader } = memory;
    let tape = reader.parse(text)?;
    let mut members = Members::of(tape.as_value(), "a message")?;
    let kind = members.required("type")?;
    let tag = Tag::request(members.number("id", u64::from(u32::MAX))? as u32);
    let heard = Heard { encoder, tag, resource, out: frames };
    let read = heard.read(kind, &mut members).and_then(|()| members.done(kind));
    if read.is_err() {
        frames.truncate(start);
    }
    read
}

/// A message whose type and number are known.
struct Heard<'a> {
    encoder: &'a mut Encoder,
    tag: Tag,
    resource: &'a str,
    out: &'a mut Vec<u8>,
}

impl Heard<'_> {
    fn read(self, kind: &str, m: &mut Members<'_, '_>) -> Result<(), Fault> {
        let Heard { encoder, tag, resource, out } = self;
        match kind {
            "log_in" => return log_in(encoder, tag, m, out),
            "set_presence" => {
                let presence = presence(encoder, resource, m)?.unwrap_or_else(|| available(encoder, resource));
                encoder.set_presence_bytes(out, tag, &presence);
            }
            "directed_presence" => {
                let to = m.required("to")?;
                let presence = presence(encoder, resource, m)?.unwrap_or_else(|| available(encoder, resource));
                encoder.directed_presence(out, tag, to, &presence);
            }
            "message" => return chat(encoder, tag, m, out),
            "bind" => {
                let resource = m.text("resource")?;
                let presence = presence(encoder, resource, m)?.unwrap_or_default();
                encoder.bind(out, tag, resource, &presence);
            }
            "subscription" => {
                let (action, jid) = (n::Action(m.choice("action", names::ACTION)?), m.required("jid")?);
                let (note, extensions) = (m.text("note")?, m.text("extensions")?);
                encoder.subscription(out, tag, &SubscriptionFields { action, jid, user: Default::default(), note, extensions });
            }
            "roster_set" => {
                let (jid, name, groups) = (m.required("jid")?, m.text("name")?, m.texts("groups")?);
                match m.flag("remove", false)? {
                    true => encoder.roster_remove(out, tag, jid),
                    false => encoder.roster_set(out, tag, jid, name, &groups),
                }
            }
            "resume" => {
                let (jid, token, received) = (m.required("jid")?, m.data("token")?, m.number("received", u64::MAX)?);
                encoder.resume(out, tag, jid, &token, received);
            }
            "sasl_response" => encoder.sasl_response(out, tag, &m.data("data")?),
            "log_out" => encoder.log_out(out, tag, m.text("status")?),
            "probe" => encoder.probe(out, tag, m.required("jid")?),
            "roster_get" => encoder.roster_since(out, tag, m.text("version")?),
            "block" => encoder.block(out, tag, m.required("jid")?, m.flag("blocked", true)?),
            "unblock_all" => encoder.block(out, tag, "", false),
            "block_list_get" => encoder.block_list_get(out, tag),
            "ack" => encoder.ack(out, tag, m.number("received", u64::MAX)?),
            "carbons" => encoder.carbons(out, tag, m.flag("enabled", true)?),
            "activity" => encoder.activity(out, tag, m.flag("active", true)?),
            "document_set" => {
                let (name, data) = (m.required("name")?, m.text_or_data("data", "data_base64")?);
                let access = n::Access(m.choice("access", names::ACCESS)?);
                encoder.document_set(out, tag, name, &data, access);
            }
            "document_get" => encoder.document_get(out, tag, m.text("jid")?, m.required("name")?),
            "interests" if m.flag("again", false)? => encoder.interests_again(out, tag),
            "interests" => encoder.interests(out, tag, &m.texts("names")?),
            "register" => encoder.register(out, tag, m.required("jid")?, m.required("password")?),
            "password_set" => encoder.password_set(out, tag, m.required("password")?),
            "account_remove" => encoder.account_remove(out, tag),
            "last_seen_get" => encoder.last_seen_get(out, tag, m.required("jid")?),
            "ping" => encoder.ping(out, tag, 0),
            _ => return Err(Fault::new("this type is unknown: schemas/JSON.md has those there are")),
        }
        Ok(())
    }
}

fn log_in(encoder: &mut Encoder, tag: Tag, m: &mut Members<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (data, resource) = (m.data("data")?, m.text("resource")?);
    let presence = presence(encoder, resource, m)?.unwrap_or_default();
    let fields = LogInFields {
        jid: m.required("jid")?,
        mechanism: m.required("mechanism")?,
        data: &data,
        resource,
        presence: &presence,
        bind_later: m.flag("bind_later", false)?,
        client: m.text("client")?,
        token_for: m.text("token_for")?,
        token_count: m.number("token_count", u64::from(u32::MAX))? as u32,
        token_invalid: m.flag("token_invalid", false)?,
    };
    encoder.log_in(out, tag, &fields);
    Ok(())
}

fn chat(encoder: &mut Encoder, tag: Tag, m: &mut Members<'_, '_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let body = m.text_or_data("body", "body_base64")?;
    let fields = MessageFields {
        to: m.required("to")?,
        id: m.text("message_id")?,
        body: &body,
        kind: n::MessageKind(m.choice("kind", names::MESSAGE_KIND)?),
        extensions: m.text("extensions")?,
        ..MessageFields::default()
    };
    encoder.message(out, tag, &fields);
    Ok(())
}

fn available(encoder: &mut Encoder, resource: &str) -> Vec<u8> {
    encoder.presence(&PresenceFields { resource, ..PresenceFields::default() })
}

/// The member `presence`, as a flatbuffer.
fn presence(encoder: &mut Encoder, resource: &str, m: &mut Members<'_, '_>) -> Result<Option<Vec<u8>>, Fault> {
    let Some(mut m) = m.object("presence")? else { return Ok(None) };
    let payload = m.text_or_data("payload", "payload_base64")?;
    let fields = PresenceFields {
        resource,
        show: n::Show(m.choice("show", names::SHOW)?),
        priority: m.small("priority")?,
        status: m.text("status")?,
        idle_since: m.number("idle_since", u64::MAX)?,
        caps: m.text("caps")?,
        payload: &payload,
        stamp: 0,
        extensions: m.text("extensions")?,
    };
    m.done("presence")?;
    Ok(Some(encoder.presence(&fields)))
}
