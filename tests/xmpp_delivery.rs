//! RFC 6121 8.5, every cell: who gets a stanza, by its kind and type, its address, and the recipient's resources.
mod xmpp_world;

use xmpp_world::*;

/// Bob's resources, with their priorities (without one: connected, and not available); whom a message is to; and what becomes of
/// one of type normal, chat, groupchat, headline and error: the resources that get it, or E, an error; O, it waits; -, nothing.
const MESSAGES: [(&str, &str, [&str; 5]); 21] = [
    // 8.5.1: no such user.
    ("", "nobody@example.org", ["E", "E", "E", "-", "-"]),
    ("", "nobody@example.org/x", ["E", "E", "E", "-", "-"]),
    // 8.5.2.2.1: no available resources.
    ("", "bob@example.org", ["O", "O", "E", "-", "-"]),
    ("c", "bob@example.org", ["O", "O", "E", "-", "-"]),
    ("n-1", "bob@example.org", ["O", "O", "E", "-", "-"]),
    // 8.5.2.1.1: some.
    ("a0", "bob@example.org", ["a", "a", "E", "a", "-"]),
    ("a0 n-1", "bob@example.org", ["a", "a", "E", "a", "-"]),
    ("a0 c", "bob@example.org", ["a", "a", "E", "a", "-"]),
    ("a3 b1", "bob@example.org", ["a", "a", "E", "a b", "-"]),
    ("a1 b1", "bob@example.org", ["a b", "a b", "E", "a b", "-"]),
    // 8.5.3.1: the resource is there.
    ("c", "bob@example.org/c", ["c", "c", "c", "c", "c"]),
    ("n-1", "bob@example.org/n", ["n", "n", "n", "n", "n"]),
    ("a0", "bob@example.org/a", ["a", "a", "a", "a", "a"]),
    ("a3 b1", "bob@example.org/b", ["b", "b", "b", "b", "b"]),
    // 8.5.3.2.1: it is not.
    ("", "bob@example.org/x", ["E", "O", "E", "-", "-"]),
    ("c", "bob@example.org/x", ["E", "O", "E", "-", "-"]),
    ("n-1", "bob@example.org/x", ["E", "O", "E", "-", "-"]),
    ("a0", "bob@example.org/x", ["E", "a", "E", "-", "-"]),
    ("a0 n-1", "bob@example.org/x", ["E", "a", "E", "-", "-"]),
    ("a3 b1", "bob@example.org/x", ["E", "a", "E", "-", "-"]),
    ("a1 b1", "bob@example.org/x", ["E", "a b", "E", "-", "-"]),
];

/// The same of directed presence, available and unavailable (8.5.1, 8.5.2.1.2, 8.5.2.2.2, 8.5.3.1, 8.5.3.2.2), and of questions and
/// answers (8.5.2.1.3, 8.5.2.2.3, 8.5.3.1, 8.5.3.2.3).
const OTHERS: [(&str, &str, &str, &str, &str); 12] = [
    // Resources, to, presence, get and set, result and error.
    ("", "nobody@example.org", "-", "E", "-"),
    ("", "nobody@example.org/x", "-", "E", "-"),
    ("", "bob@example.org", "-", "E", "-"),
    ("", "bob@example.org/x", "-", "E", "-"),
    ("c", "bob@example.org", "-", "E", "-"),
    ("c", "bob@example.org/c", "c", "c", "c"),
    ("n-1", "bob@example.org", "n", "E", "-"),
    ("n-1", "bob@example.org/n", "n", "n", "n"),
    ("a3 b1", "bob@example.org", "a b", "E", "-"),
    ("a3 b1", "bob@example.org/b", "b", "b", "b"),
    ("a3 b1", "bob@example.org/x", "-", "E", "-"),
    ("a3 n-1 c", "bob@example.org", "a n", "E", "-"),
];

/// Alice, whom bob sees, and bob with these resources.
struct Cast {
    world: World,
    alice: Client,
    bob: Vec<(String, Client)>,
}

fn cast(resources: &str) -> Cast {
    let (mut world, alice, once) = two_friends();
    world.say(once, "</stream:stream>");
    let mut bob = Vec::new();
    for resource in resources.split_whitespace() {
        let (name, priority) = resource.split_at(1);
        let client = world.log_in("bob", name);
        if !priority.is_empty() {
            world.say(client, format!("<presence><priority>{priority}</priority></presence>"));
        }
        bob.push((name.to_owned(), client));
    }
    bob.iter().for_each(|(_, client)| drop(world.heard(*client)));
    world.heard(alice);
    Cast { world, alice, bob }
}

impl Cast {
    /// What becomes of a stanza that carries this text: in the words of the tables.
    fn outcome(&mut self, stanza: &str, text: &str) -> String {
        let answer = self.world.ask(self.alice, stanza);
        let mut got = Vec::new();
        for (name, client) in &self.bob {
            let heard = self.world.heard(*client);
            assert!(heard.matches(text).count() <= 1, "{stanza}: {heard}");
            if heard.contains(text) {
                assert!(heard.contains(" from='alice@example.org/desk'"), "{stanza}: {heard}");
                let to = stanza.split(" to='").nth(1).and_then(|rest| rest.split('\'').next()).expect("all are to somebody");
                let kept = stanza.starts_with("<presence") || heard.contains(&format!(" to='{to}'"));
                assert!(kept, "8.5.2.1.1: the address stays as it was: {heard}");
                got.push(name.as_str());
            }
        }
        if answer.contains(" type='error'") {
            assert!(got.is_empty() && answer.contains("<service-unavailable "), "{stanza}: {answer}");
            return "E".into();
        }
        assert_eq!(answer, "", "{stanza}");
        if !got.is_empty() {
            return got.join(" ");
        }
        let later = self.world.log_in("bob", "later");
        let waited = self.world.ask(later, "<presence/>").contains(text);
        if waited { "O" } else { "-" }.into()
    }
}

#[test]
fn rfc_6121_8_5_each_type_of_message_reaches_whom_it_must() {
    for (resources, to, outcomes) in MESSAGES {
        for (kind, outcome) in
            [("normal", 0), ("", 0), ("nonsense", 0), ("chat", 1), ("groupchat", 2), ("headline", 3), ("error", 4)]
        {
            let kind = if kind.is_empty() { String::new() } else { format!(" type='{kind}'") };
            let message = format!("<message{kind} id='m' to='{to}'><body>said</body></message>");
            assert_eq!(cast(resources).outcome(&message, "said"), outcomes[outcome], "{message} to {resources:?}");
        }
    }
}

#[test]
fn rfc_6121_8_5_directed_presence_reaches_whom_it_must_and_is_never_answered() {
    for (resources, to, outcome, ..) in OTHERS {
        for kind in ["", " type='unavailable'"] {
            let presence = format!("<presence{kind} to='{to}'><status>shown</status></presence>");
            assert_eq!(cast(resources).outcome(&presence, "shown"), outcome, "{presence} to {resources:?}");
        }
    }
    for kind in ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error"] {
        for to in ["nobody@example.org", "nobody@example.org/x"] {
            let Cast { mut world, alice, .. } = cast("");
            let heard = world.ask(alice, format!("<presence type='{kind}' to='{to}'/>"));
            assert!(!heard.contains("<presence "), "{kind}: {heard}");
        }
    }
}

#[test]
fn rfc_6121_8_5_questions_and_answers_reach_the_session_they_name() {
    for (resources, to, _, asked, answered) in OTHERS {
        for (kind, outcome) in [("get", asked), ("set", asked), ("result", answered), ("error", answered)] {
            let iq = format!("<iq type='{kind}' id='q' to='{to}'><x xmlns='urn:nobody:knows'/></iq>");
            assert_eq!(cast(resources).outcome(&iq, "urn:nobody:knows"), outcome, "{iq} to {resources:?}");
        }
    }
}

#[test]
fn rfc_6121_8_stanzas_to_the_server_to_others_and_to_nobody() {
    let Cast { mut world, alice, .. } = cast("");
    for (to, condition) in [
        ("example.org", "service-unavailable"),
        ("example.org/x", "service-unavailable"),
        ("bob@elsewhere.org", "remote-server-not-found"),
        ("bob@elsewhere.org/x", "remote-server-not-found"),
        ("elsewhere.org", "remote-server-not-found"),
        ("@", "jid-malformed"),
        ("bob@example.org/", "jid-malformed"),
    ] {
        let message = |kind: &str| format!("<message type='{kind}' id='m' to='{to}'><body>x</body></message>");
        let heard = world.ask(alice, message("chat"));
        assert!(heard.starts_with("<message type='error' id='m'") && heard.contains(condition), "{to}: {heard}");
        assert_eq!(world.ask(alice, message("error")), "", "an error is never answered");
        let asked = world.ask(alice, format!("<iq type='get' id='q' to='{to}'><x xmlns='urn:nobody:knows'/></iq>"));
        assert!(asked.starts_with("<iq type='error' id='q'") && asked.contains(condition), "{to}: {asked}");
    }
    for to in ["bob@elsewhere.org", "@"] {
        let heard = world.ask(alice, format!("<presence to='{to}'/><presence type='subscribe' to='{to}'/>"));
        assert_eq!(heard.matches("<presence type='error'").count(), 2, "{to}: {heard}");
    }
    // 8.1.1.1 of RFC 6120: without an address, it is to the sender's own account.
    let own = world.ask(alice, "<message type='chat' id='m'><body>note</body></message>");
    assert!(own.contains("<body>note</body>") && own.contains(" from='alice@example.org/desk'"), "{own}");
}

#[test]
fn rfc_6121_4_7_what_is_no_presence_is_refused_and_an_error_is_never_answered() {
    let Cast { mut world, alice, .. } = cast("");
    for wrong in [
        "<presence id='p' type='nonsense'/>",
        "<presence id='p'><show>nonsense</show></presence>",
        "<presence id='p'><priority>128</priority></presence>",
        "<presence id='p'><priority>-129</priority></presence>",
        "<presence id='p'><priority>high</priority></presence>",
    ] {
        let heard = world.ask(alice, wrong);
        assert!(heard.starts_with("<presence type='error' id='p'") && heard.contains("<bad-request "), "{wrong}: {heard}");
        let error = wrong.replace(" type='nonsense'", "").replacen("<presence", "<presence type='error'", 1);
        assert_eq!(world.ask(alice, error), "");
    }
    for (priority, said) in [("-128", true), ("127", true), ("0", false)] {
        let own = world.ask(alice, format!("<presence><priority>{priority}</priority></presence>"));
        assert_eq!(own.contains(&format!("<priority>{priority}</priority>")), said, "{own}");
    }
}
