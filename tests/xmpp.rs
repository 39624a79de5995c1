//! Dialogues of XMPP clients with one core, without sockets.
mod xmpp_world;

use fanal::base::jid::Bare;
use fanal::front::xmpp::StartTls;
use fanal::presence::errand::What;
use fanal::shard::batch::Order;
use xmpp_world::*;

#[test]
fn presence_reaches_an_approved_subscriber_with_all_that_was_said() {
    let (mut world, alice, bob) = two_friends();
    let own = world.ask(
        alice,
        "<presence xml:lang='de'><show>away</show><status>weg</status><status xml:lang='en'>gone</status><priority>5</priority>\
         <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:n' ver='v/='/>\
         <idle xmlns='urn:xmpp:idle:1' since='2009-02-13T23:31:30Z'/><x xmlns='urn:x' a='&lt;'><y/></x></presence>",
    );
    let rest = "from='alice@example.org/desk' xml:lang='de'><show>away</show><status>weg</status><priority>5</priority>\
         <idle xmlns='urn:xmpp:idle:1' since='2009-02-13T23:31:30.000Z'/>\
         <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:n' ver='v/='/>\
         <status xmlns='jabber:client' xml:lang='en'>gone</status><x xmlns='urn:x' a='&lt;'><y/></x></presence>";
    // Then it is asked what its capabilities mean.
    assert_eq!(own.split("<iq ").next(), Some(format!("<presence to='alice@example.org/desk' {rest}").as_str()));
    assert_eq!(world.heard(bob), format!("<presence to='bob@example.org/phone' {rest}"));
    world.say(alice, "<presence type='unavailable'><status>bye</status></presence>");
    let gone =
        "<presence to='bob@example.org/phone' from='alice@example.org/desk' type='unavailable'><status>bye</status></presence>";
    assert_eq!(world.heard(bob), gone);
}

#[test]
fn messages_reach_the_recipient_and_are_acknowledged() {
    let (mut world, alice, bob) = two_friends();
    for n in 0..600 {
        let sent = world.ask(
            alice,
            format!(
                "<message to='bob@example.org' type='chat' id='m{n}'><body>1 &lt; 2</body><body xml:lang='de'>x</body>\
                 <thread>t</thread></message>"
            ),
        );
        assert_eq!(sent, "");
        assert_eq!(
            world.heard(bob),
            format!(
                "<message type='chat' id='m{n}' from='alice@example.org/desk' to='bob@example.org'><body>1 &lt; 2</body>\
                 <body xmlns='jabber:client' xml:lang='de'>x</body><thread xmlns='jabber:client'>t</thread></message>"
            )
        );
    }
    let refused = world.ask(alice, "<message to='nobody@example.org' id='m'><body>x</body></message>");
    assert!(
        refused.starts_with(
            "<message type='error' id='m' from='nobody@example.org' to='alice@example.org/desk'><error type='cancel'>"
        )
    );
    assert!(refused.contains("<service-unavailable "), "{refused}");
}

#[test]
fn the_roster_is_fetched_set_and_pushed() {
    let (mut world, alice, _) = two_friends();
    let roster = world.ask(alice, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    assert_eq!(
        roster,
        "<iq type='result' id='r' to='alice@example.org/desk'><query xmlns='jabber:iq:roster'>\
         <item jid='bob@example.org' subscription='both'/></query></iq>"
    );
    let set = "<iq type='set' id='s'><query xmlns='jabber:iq:roster'>\
         <item jid='bob@example.org' name='B&amp;b'><group>g</group></item></query></iq>";
    let heard = world.ask(alice, set);
    assert!(heard.contains("<iq type='result' id='s' to='alice@example.org/desk'></iq>"), "{heard}");
    assert!(heard.contains("<item jid='bob@example.org' name='B&amp;b' subscription='both'><group>g</group></item>"), "{heard}");
    for (item, condition) in [
        ("<item jid='x@example.org' subscription='remove'/>", "item-not-found"),
        ("<item jid='@@'/>", "jid-malformed"),
        ("<item/>", "bad-request"),
        ("<item jid='a@b'/><item jid='c@d'/>", "bad-request"),
        ("<item jid='bob@example.org'><group/></item>", "not-acceptable"),
        ("<item jid='bob@example.org'><group>a</group><group>a</group></item>", "bad-request"),
    ] {
        let heard = world.ask(alice, format!("<iq type='set' id='s'><query xmlns='jabber:iq:roster'>{item}</query></iq>"));
        assert!(heard.starts_with("<iq type='error' id='s'") && heard.contains(condition), "{item}: {heard}");
    }
    let removed = world.ask(
        alice,
        "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' subscription='remove'/></query></iq>",
    );
    assert!(removed.contains("<item jid='bob@example.org' subscription='remove'/>"), "{removed}");
}

#[test]
fn every_question_gets_exactly_one_answer() {
    let (mut world, alice, _) = two_friends();
    let payloads = [
        "<ping xmlns='urn:xmpp:ping'/>",
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "<query xmlns='http://jabber.org/protocol/disco#items'/>",
        "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>",
        "<query xmlns='jabber:iq:version'/>",
        "<query xmlns='jabber:iq:roster'/>",
        "<time xmlns='urn:xmpp:time'/>",
        "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>",
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
        "<query xmlns='jabber:iq:last'/>",
        "<vCard xmlns='vcard-temp'/>",
        "<query xmlns='jabber:iq:private'><x xmlns='urn:x'/></query>",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:n'/></pubsub>",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='urn:n'/></pubsub>",
        "<blocklist xmlns='urn:xmpp:blocking'/>",
        "<query xmlns='jabber:iq:register'/>",
        // Not done here, and asked by clients all the same.
        "<query xmlns='urn:xmpp:mam:2'/>",
        "<enable xmlns='urn:xmpp:push:0' jid='a@b'/>",
        "<query xmlns='jabber:iq:privacy'/>",
        "<services xmlns='urn:xmpp:extdisco:2'/>",
        "<nothing xmlns='urn:nobody:knows'/>",
        "<a/><b/>",
        "",
    ];
    let addresses = [
        "",
        "example.org",
        "EXAMPLE.org",
        "example.org/x",
        "alice@example.org",
        "alice@example.org/none",
        "bob@example.org",
        "bob@example.org/none",
        "nobody@example.org",
        "nobody@example.org/none",
        "a@b",
        "a@b/c",
        "@",
        "b",
    ];
    for payload in payloads {
        for to in addresses {
            for kind in ["get", "set", "nonsense"] {
                let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
                let heard = world.ask(alice, format!("<iq type='{kind}' id='q'{to}>{payload}</iq>"));
                let answers = heard.matches(" id='q'").count();
                assert_eq!(answers, 1, "{kind} {to} {payload}: {heard}");
            }
            let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
            assert_eq!(world.ask(alice, format!("<iq type='result' id='q'{to}>{payload}</iq>")), "", "an answer is never answered");
        }
    }
}

#[test]
fn sessions_ask_and_answer_each_other() {
    let (mut world, alice, bob) = two_friends();
    let asked = "<iq type='get' id='v' to='bob@example.org/phone'><query xmlns='jabber:iq:version'/></iq>";
    assert_eq!(world.ask(alice, asked), "");
    let heard = world.heard(bob);
    assert_eq!(
        heard,
        "<iq type='get' id='v' from='alice@example.org/desk' to='bob@example.org/phone'><query xmlns='jabber:iq:version'/></iq>"
    );
    world.say(
        bob,
        "<iq type='result' id='v' to='alice@example.org/desk'><query xmlns='jabber:iq:version'><name>x</name></query></iq>",
    );
    assert_eq!(
        world.heard(alice),
        "<iq type='result' id='v' from='bob@example.org/phone' to='alice@example.org/desk'>\
         <query xmlns='jabber:iq:version'><name>x</name></query></iq>"
    );
    for to in ["bob@example.org/tablet", "nobody@example.org/x"] {
        let heard = world.ask(alice, format!("<iq type='get' id='w' to='{to}'><query xmlns='jabber:iq:version'/></iq>"));
        assert!(
            heard.starts_with(&format!("<iq type='error' id='w' from='{to}'")) && heard.contains("service-unavailable"),
            "{heard}"
        );
    }
    let strange = world.ask(alice, "<iq type='result' id='x' to='nobody@example.org/x'/>");
    assert_eq!(strange, "", "answers that reach nobody are dropped");
}

#[test]
fn subscriptions_are_asked_for_approved_and_ended() {
    let mut world = World::new();
    world.account("alice");
    world.account("bob");
    let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
    world.say(alice, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    world.say(alice, "<presence type='subscribe' id='s' to='bob@example.org/phone'><status>it's me</status></presence>");
    assert_eq!(
        world.heard(bob),
        "<presence type='subscribe' from='alice@example.org' to='bob@example.org'><status>it's me</status></presence>"
    );
    world.say(bob, "<presence type='subscribed' to='alice@example.org'/>");
    let heard = world.heard(alice);
    assert!(heard.contains("<presence type='subscribed' from='bob@example.org' to='alice@example.org'></presence>"), "{heard}");
    assert!(heard.contains("<presence to='alice@example.org/desk' from='bob@example.org/phone'></presence>"), "{heard}");
    world.say(bob, "<presence type='unsubscribed' to='alice@example.org'/>");
    let heard = world.heard(alice);
    assert!(heard.contains("<presence type='unsubscribed' from='bob@example.org' to='alice@example.org'></presence>"), "{heard}");
    assert!(heard.contains("type='unavailable'"), "{heard}");
}

#[test]
fn directed_presence_reaches_a_stranger_until_its_sender_goes() {
    let mut world = World::new();
    world.account("alice");
    world.account("bob");
    let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
    world.say(alice, "<presence to='bob@example.org'><show>dnd</show></presence>");
    assert_eq!(world.heard(bob), "<presence to='bob@example.org/phone' from='alice@example.org/desk'><show>dnd</show></presence>");
    world.cut(alice);
    world.say(alice, "");
    let other = world.log_in("alice", "desk");
    assert_eq!(
        world.heard(bob),
        "<presence to='bob@example.org/phone' from='alice@example.org/desk' type='unavailable'></presence>"
    );
    world.say(other, "</stream:stream>");
    assert_eq!(world.heard(other), "</stream:stream>");
    assert!(world.is_closed(other));
}

#[test]
fn a_session_that_is_replaced_hears_of_the_conflict() {
    let (mut world, alice, bob) = two_friends();
    let again = world.online("alice", "desk");
    let heard = world.heard(alice);
    assert!(heard.contains("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"), "{heard}");
    assert!(heard.ends_with("</stream:stream>") && world.is_closed(alice));
    world.heard(bob);
    world.say(again, "</stream:stream>");
    assert_eq!(
        world.heard(bob),
        "<presence to='bob@example.org/phone' from='alice@example.org/desk' type='unavailable'></presence>",
        "who leaves without a word has gone with their resource"
    );
}

#[test]
fn a_message_that_had_to_wait_says_since_when() {
    let (mut world, alice, bob) = two_friends();
    world.say(bob, "</stream:stream>");
    world.heard(alice);
    assert_eq!(world.ask(alice, "<message to='bob@example.org' type='chat' id='1'><body>later</body></message>"), "");
    let bob = world.log_in("bob", "tablet");
    let heard = world.ask(bob, "<presence/>");
    assert!(
        heard.contains("<body>later</body><delay xmlns='urn:xmpp:delay' from='example.org' stamp='2023-11-14T22:13:2"),
        "{heard}"
    );
}

#[test]
fn an_idle_client_is_small() {
    use fanal::front::translate::Translate;
    use fanal::front::xmpp::{Rules, Xmpp};
    let rules = Rules { domain: DOMAIN.into(), stanza_bytes: 40_000, start_tls: StartTls::No, registration: false, location: None };
    assert!(Xmpp::new(std::sync::Arc::new(rules)).heap_bytes() <= 256);
}

#[test]
fn a_client_that_has_kept_its_roster_gets_it_only_when_it_changed() {
    let (mut world, alice, _) = two_friends();
    let get = |version: &str| format!("<iq type='get' id='r'><query xmlns='jabber:iq:roster' ver='{version}'/></iq>");
    let whole = world.ask(alice, get(""));
    let version = whole.split("ver='").nth(1).expect("it has a version").split('\'').next().unwrap().to_owned();
    assert!(whole.contains("<item jid='bob@example.org'"), "{whole}");
    assert_eq!(world.ask(alice, get(&version)), "<iq type='result' id='r' to='alice@example.org/desk'></iq>");
    let set = "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='bob@example.org' name='B'/></query></iq>";
    let push = world.ask(alice, set);
    assert!(push.contains("<query xmlns='jabber:iq:roster' ver='") && !push.contains(&format!("ver='{version}'")), "{push}");
    assert!(world.ask(alice, get(&version)).contains("name='B'"));
}

#[test]
fn a_subscription_stanza_keeps_all_its_children() {
    let mut world = World::new();
    world.account("alice");
    world.account("bob");
    let (alice, bob) = (world.online("alice", "desk"), world.online("bob", "phone"));
    world.say(
        alice,
        "<presence type='subscribe' to='bob@example.org'><nick xmlns='http://jabber.org/protocol/nick'>Al</nick></presence>",
    );
    assert!(world.heard(bob).contains("<nick xmlns='http://jabber.org/protocol/nick'>Al</nick></presence>"));
}

#[test]
fn blocked_users_are_listed_and_see_nothing() {
    let (mut world, alice, bob) = two_friends();
    let list = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>";
    assert!(world.ask(alice, list).contains("<blocklist xmlns='urn:xmpp:blocking'></blocklist>"));
    let items = "<item jid='bob@example.org'/><item jid='carol@example.org'/>";
    let heard = world.ask(alice, format!("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'>{items}</block></iq>"));
    assert_eq!(heard.matches(" id='b'").count(), 1, "{heard}");
    assert!(heard.contains("<iq type='result' id='b'"), "{heard}");
    assert_eq!(heard.matches("<block xmlns='urn:xmpp:blocking'><item ").count(), 2, "{heard}");
    assert!(world.heard(bob).contains("type='unavailable'"));
    assert!(world.ask(alice, list).contains(items));
    world.say(alice, "<presence><status>secret</status></presence>");
    assert_eq!(world.heard(bob), "");
    let heard = world.ask(alice, format!("<iq type='set' id='u'><unblock xmlns='urn:xmpp:blocking'>{items}</unblock></iq>"));
    assert!(heard.contains("<iq type='result' id='u'"), "{heard}");
    assert!(world.heard(bob).contains("<status>secret</status>"));
    for items in ["", "<item/>", "<item jid='example.org'/>", "<item jid='a@elsewhere.org'/>"] {
        let heard = world.ask(alice, format!("<iq type='set' id='x'><block xmlns='urn:xmpp:blocking'>{items}</block></iq>"));
        assert!(heard.starts_with("<iq type='error' id='x'") && heard.matches("id='x'").count() == 1, "{heard}");
    }
}

#[test]
fn a_friend_is_told_when_a_user_was_last_here() {
    let (mut world, alice, bob) = two_friends();
    let asked = |to: &str| format!("<iq type='get' id='l' to='{to}@example.org'><query xmlns='jabber:iq:last'/></iq>");
    world.say(bob, "<presence type='unavailable'><status>home</status></presence>");
    let heard = world.ask(alice, asked("bob"));
    assert!(heard.contains("<query xmlns='jabber:iq:last' seconds='0'>home</query>"), "{heard}");
    assert!(world.ask(alice, asked("nobody")).contains("type='error'"));
}

#[test]
fn other_sessions_get_copies_of_messages() {
    let (mut world, alice, bob) = two_friends();
    let tablet = world.online("bob", "tablet");
    world.say(bob, "<presence><priority>5</priority></presence>");
    for client in [bob, tablet] {
        let enabled = world.ask(client, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
        assert!(enabled.contains("<iq type='result' id='c'"), "{enabled}");
    }
    world.say(alice, "<message to='bob@example.org/phone' type='chat' id='1'><body>hi</body></message>");
    assert!(world.heard(bob).contains("<body>hi</body>"));
    assert_eq!(
        world.heard(tablet),
        "<message type='chat' from='bob@example.org' to='bob@example.org/tablet'><received xmlns='urn:xmpp:carbons:2'>\
         <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' id='1' from='alice@example.org/desk' \
         to='bob@example.org/phone'><body>hi</body></message></forwarded></received></message>"
    );
    world.say(bob, "<message to='alice@example.org' type='chat' id='2'><body>ho</body></message>");
    let heard = world.heard(tablet);
    assert!(heard.contains("<sent xmlns='urn:xmpp:carbons:2'>") && heard.contains("to='alice@example.org'"), "{heard}");
    world.say(tablet, "<iq type='set' id='d'><disable xmlns='urn:xmpp:carbons:2'/></iq>");
    world.heard(tablet);
    world.say(alice, "<message to='bob@example.org/phone' type='chat' id='3'><body>hi</body></message>");
    assert_eq!(world.heard(tablet), "");
}

#[test]
fn an_inactive_client_gets_the_newest_presence_when_it_is_active_again() {
    let (mut world, alice, bob) = two_friends();
    world.say(bob, "<inactive xmlns='urn:xmpp:csi:0'/>");
    for n in 0..5 {
        world.say(alice, format!("<presence><status>{n}</status></presence>"));
    }
    assert_eq!(world.heard(bob), "");
    world.say(bob, "<active xmlns='urn:xmpp:csi:0'/>");
    let heard = world.heard(bob);
    assert!(heard.matches("<presence ").count() == 1 && heard.contains("<status>4</status>"), "{heard}");
}

#[test]
fn users_keep_vcards_private_storage_and_published_items() {
    let (mut world, alice, bob) = two_friends();
    world.account("carol");
    let carol = world.online("carol", "x");
    let get = |to: &str, payload: &str| format!("<iq type='get' id='g'{to}>{payload}</iq>");
    let to_alice = " to='alice@example.org'";
    let vcard = "<vCard xmlns='vcard-temp'><FN>Alice</FN></vCard>";
    assert!(world.ask(alice, get("", "<vCard xmlns='vcard-temp'/>")).contains("<vCard xmlns='vcard-temp'/>"), "none yet");
    assert!(world.ask(bob, get(to_alice, "<vCard xmlns='vcard-temp'/>")).contains("type='error'"), "none yet");
    assert!(world.ask(alice, format!("<iq type='set' id='s'>{vcard}</iq>")).contains("<iq type='result' id='s'"));
    for (client, to) in [(alice, ""), (bob, to_alice), (carol, to_alice)] {
        assert!(world.ask(client, get(to, "<vCard xmlns='vcard-temp'/>")).contains(vcard));
    }
    let storage = |content: &str| format!("<query xmlns='jabber:iq:private'>{content}</query>");
    let (empty, full) = ("<storage xmlns='storage:bookmarks'/>", "<storage xmlns='storage:bookmarks'><url url='u'/></storage>");
    assert!(world.ask(alice, get("", &storage(empty))).contains(&storage(empty)));
    assert!(world.ask(alice, format!("<iq type='set' id='s'>{}</iq>", storage(full))).contains("<iq type='result' id='s'"));
    assert!(world.ask(alice, get("", &storage(empty))).contains(&storage(full)));
    let pubsub = |inner: &str| format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{inner}</pubsub>");
    let publish = pubsub("<publish node='urn:n'><item id='1'><nick xmlns='urn:nick'>Al</nick></item></publish>");
    assert!(world.ask(alice, format!("<iq type='set' id='s'>{publish}</iq>")).contains("<iq type='result' id='s'"));
    let items = get(to_alice, &pubsub("<items node='urn:n'/>"));
    let heard = world.ask(bob, &items);
    assert!(
        heard.contains("<items node='urn:n'><item ") && heard.contains("<nick xmlns='urn:nick'>Al</nick></item></items>"),
        "{heard}"
    );
    assert!(world.ask(carol, &items).contains("type='error'"), "only contacts may read it");
    let retract = pubsub("<retract node='urn:n'><item id='1'/></retract>");
    assert!(world.ask(alice, format!("<iq type='set' id='s'>{retract}</iq>")).contains("<iq type='result' id='s'"));
    assert!(world.ask(bob, &items).contains("type='error'"));
    assert!(
        world.ask(bob, format!("<iq type='set' id='s'{to_alice}>{vcard}</iq>")).contains("type='error'"),
        "nobody writes another's"
    );
}

#[test]
fn xep_0077_people_make_change_and_remove_their_own_accounts() {
    let mut world = World::new();
    let carol = world.connect();
    assert!(world.ask(carol, OPENING).contains("<register xmlns='http://jabber.org/features/iq-register'/>"));
    let form = "<iq type='get' id='f'><query xmlns='jabber:iq:register'/></iq>";
    assert!(world.ask(carol, form).contains("<username/><password/></query></iq>"));
    let register = |name: &str, password: &str| {
        format!(
            "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>{name}</username><password>{password}</password>\
             </query></iq>"
        )
    };
    assert!(world.ask(carol, register("a@b", "pw")).contains("<not-acceptable "));
    assert!(world.ask(carol, register("carol", "")).contains("<not-acceptable "));
    assert_eq!(world.ask(carol, register("carol", "carol")), "<iq type='result' id='r'></iq>");
    assert!(world.ask(carol, register("carol", "other")).contains("<conflict "), "the name is taken");
    let carol = world.online("carol", "desk");
    assert!(world.ask(carol, form).contains("<registered/><username>carol</username>"));
    assert!(world.ask(carol, register("bob", "new")).contains("<not-acceptable "), "only the own account");
    assert!(world.ask(carol, register("carol", "carol2")).contains("type='result'"));
    let gone = world.ask(carol, "<iq type='set' id='x'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    assert!(gone.contains("type='result' id='x'") && gone.contains("</stream:stream>"), "{gone}");
}

#[test]
fn xep_0077_where_it_is_switched_off_nobody_makes_an_account_and_nobody_is_told_of_it() {
    let mut world = World::made(StartTls::No, false);
    world.account("alice");
    let stranger = world.connect();
    assert!(!world.ask(stranger, OPENING).contains("register"));
    let heard = world.ask(stranger, "<iq type='get' id='f'><query xmlns='jabber:iq:register'/></iq>");
    assert!(heard.contains("<not-authorized ") && world.is_closed(stranger), "{heard}");
    let alice = world.online("alice", "desk");
    for payload in ["<remove/>", "<username>alice</username><password>new</password>"] {
        let set = format!("<iq type='set' id='r'><query xmlns='jabber:iq:register'>{payload}</query></iq>");
        assert!(world.ask(alice, set).contains("<service-unavailable "), "{payload}");
    }
}

#[test]
fn c8_r5_a_session_that_is_to_move_is_told_where_and_its_stream_ends() {
    let (mut world, alice, bob) = two_friends();
    let (jid, address) = (Bare::new("alice@example.org").unwrap(), "[2001:db8::1]:5222".to_owned());
    world.heard(bob);
    world.order(Order::Errand { jid, what: What::Transfer { address } });
    assert_eq!(
        world.heard(alice),
        "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>[2001:db8::1]:5222</see-other-host>\
         </stream:error></stream:stream>"
    );
    assert!(world.is_closed(alice));
    assert!(!world.is_closed(bob), "it concerns nobody else");
}

#[test]
fn xep_0478_the_longest_stanza_is_told_and_taken() {
    let (mut world, alice, _) = two_friends();
    let stranger = world.connect();
    assert!(
        world.ask(stranger, OPENING).contains("<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>40000</max-bytes></limits>")
    );
    let ping = |bytes: usize| {
        let (start, end) = ("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'>", "</ping></iq>");
        format!("{start}{}{end}", " ".repeat(bytes - start.len() - end.len()))
    };
    assert!(world.ask(alice, ping(40_000)).contains("type='result'"));
    assert!(world.ask(alice, ping(40_001)).contains("<policy-violation "));
}
