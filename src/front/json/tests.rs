//! What is refused, with which words; and what the translator knows by itself. The good messages stand in `schemas/JSON.md`.

use super::*;
use crate::base::id::UserId;
use crate::base::jid::Bare;
use crate::front::translate::Users;
use crate::wire::decode::ClientFrame;
use crate::wire::encode::LoggedInAs;
use crate::wire::frame::Frame;
use proptest::prelude::*;

/// Nobody is known.
struct Nobody;

impl Users for Nobody {
    fn jid(&self, _: UserId) -> Option<&Bare> {
        None
    }
}

fn said(json: &mut Json, frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Core::with(&Nobody, |core| json.send(frames, core, &mut out));
    out
}

fn fault(text: &str) -> String {
    let mut frames = b"before".to_vec();
    let fault = Json::default().received(text, &mut Memory::default(), &mut frames).expect_err(text);
    assert_eq!(frames, b"before", "a fault leaves nothing behind");
    fault.to_string()
}

fn read<T>(json: &mut Json, text: &str, look: impl FnOnce(ClientFrame<'_>) -> T) -> T {
    let mut frames = Vec::new();
    json.received(text, &mut Memory::default(), &mut frames).expect("a good message");
    let Frame { header, body } = each_whole(&frames).next().expect("a frame");
    look(decode::from_client(header.kind, body).expect("a sound frame"))
}

#[test]
fn a_bad_message_is_told_what_is_wrong_with_it() {
    for (text, part) in [
        ("", "JSON"),
        ("null", "an object"),
        ("{} {}", "JSON"),
        (r#"{"id":1}"#, "type is missing"),
        (r#"{"type":5}"#, "type must be a string"),
        (r#"{"type":"hello"}"#, "unknown"),
        (r#"{"type":"probe","jid":null}"#, "jid is missing"),
        (r#"{"type":"probe","jid":"a@b","id":-1}"#, "id must be a whole number"),
        (r#"{"type":"probe","jid":"a@b","id":4294967296}"#, "id must be a whole number"),
        (r#"{"type":"probe","jid":"a@b","id":1.5}"#, "id must be a whole number"),
        (r#"{"type":"probe","jid":"a@b","jdi":"c@d"}"#, "probe has no member \"jdi\""),
        (r#"{"type":"probe","jid":"a@b","jid":"c@d"}"#, "probe has no member \"jid\""),
        (r#"{"type":"set_presence","presence":{"resource":"x"}}"#, "presence has no member \"resource\""),
        (r#"{"type":"set_presence","presence":{"stamp":5}}"#, "presence has no member \"stamp\""),
        (r#"{"type":"set_presence","presence":[]}"#, "presence must be an object"),
        (r#"{"type":"set_presence","presence":{"show":"busy"}}"#, "show must be one of available, chat, away"),
        (r#"{"type":"set_presence","presence":{"priority":128}}"#, "priority must be"),
        (r#"{"type":"set_presence","presence":{"payload":"a","payload_base64":"YQ=="}}"#, "the same thing"),
        (r#"{"type":"log_in","jid":"a@b","mechanism":"TOKEN","data":"!"}"#, "data must be a string of base64"),
        (r#"{"type":"block","jid":"a@b","blocked":"yes"}"#, "blocked must be true or false"),
        (r#"{"type":"roster_set","jid":"a@b","groups":["x",5]}"#, "groups must be a list"),
        (r#"{"type":"message","to":"a@b","body":"\ud800"}"#, "JSON"),
    ] {
        let said = fault(text);
        assert!(said.contains(part), "{text}: {said}");
    }
}

#[test]
fn depth_members_and_elements_are_bounded() {
    let nested = |levels: usize| format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(fault(&nested(2)).contains("no member \"x\""));
    assert!(fault(&nested(20)).contains("JSON object, at most 4 levels deep"));
    assert!(fault(&nested(30_000)).contains("JSON object, at most 4 levels deep"));
    let members: Vec<String> = (0..20_000).map(|n| format!("\"{n}\":0")).collect();
    assert!(fault(&format!("{{{}}}", members.join(","))).contains("more than 16 members"));
    let groups = vec!["\"x\""; 257].join(",");
    assert!(fault(&format!(r#"{{"type":"roster_set","jid":"a@b","groups":[{groups}]}}"#)).contains("at most 256 strings"));
    assert!(fault(&format!(r#"{{"type":"ping","{}":0}}"#, "x".repeat(60_000))).len() < 100, "a fault is short");
}

#[test]
fn presence_carries_the_resource_of_the_session() {
    let mut json = Json::default();
    let mut frames = Vec::new();
    let fields = LoggedInAs { jid: "alice@localhost/a/b", ..LoggedInAs::default() };
    Encoder::default().logged_in(&mut frames, Tag::default(), &fields);
    said(&mut json, &frames);
    let resource = |frame: ClientFrame<'_>| match frame {
        ClientFrame::SetPresence(presence) => presence.resource.to_owned(),
        ClientFrame::DirectedPresence { presence, .. } => presence.resource.to_owned(),
        ClientFrame::LogIn { presence, .. } => presence.expect("one").resource.to_owned(),
        _ => panic!("not a presence"),
    };
    assert_eq!(read(&mut json, r#"{"type":"set_presence"}"#, resource), "a/b");
    assert_eq!(read(&mut json, r#"{"type":"directed_presence","to":"x@y"}"#, resource), "a/b");
    let log_in = r#"{"type":"log_in","jid":"a@b","mechanism":"TOKEN","resource":"new","presence":{}}"#;
    assert_eq!(read(&mut json, log_in, resource), "new");
}

#[test]
fn an_event_of_somebody_nobody_can_name_is_not_said() {
    let mut frames = Vec::new();
    let head = crate::wire::event::Head {
        user: UserId(5),
        version: crate::base::id::Version { epoch: 1, sequence: 1 },
        session: crate::base::id::SessionId(1),
        show: crate::wire::native::Show::Unavailable,
        flags: 0,
    };
    crate::wire::event::write(&mut frames, head, b"");
    assert!(said(&mut Json::default(), &frames).is_empty());
}

proptest! {
    #[test]
    fn any_body_comes_through_both_ways(body: Vec<u8>, id in ".{0,10}") {
        let mut frames = Vec::new();
        let fields = crate::wire::encode::MessageFields { to: "a@b", id: &id, body: &body, number: 1, ..Default::default() };
        Encoder::default().message(&mut frames, Tag::default(), &fields);
        let out = said(&mut Json::default(), &frames);
        let start = if out[1] == 126 { 4 } else { 2 };
        // What came is sent back as it is, but for what only a server says.
        let text = String::from_utf8(out[start..].to_vec()).unwrap().replacen("\"number\":1,\"from\":\"\",", "", 1);
        let (heard, heard_id) = read(&mut Json::default(), &text, |frame| match frame {
            ClientFrame::Message(message) => {
                (message.body().map_or(Vec::new(), |body| body.bytes().to_vec()), message.id().unwrap_or_default().to_owned())
            }
            _ => panic!("not a message"),
        });
        prop_assert_eq!((heard, heard_id), (body, id));
    }
}
