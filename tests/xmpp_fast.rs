//! Logging in again by a token that was given with the last log-in (XEP-0484), without sockets.
mod xmpp_world;

use base64::{Engine, prelude::BASE64_STANDARD};
use fanal::base::credentials::Hash;
use fanal::base::jid::Bare;
use fanal::base::time::Time;
use fanal::presence::errand::What;
use fanal::shard::batch::Order;
use fanal::store::{Backend, Table};
use xmpp_world::*;

const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'/>";
const HOUR: u64 = 3_600_000_000_000;
const WANTED: &str = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";

fn agent(id: &str) -> String {
    format!("<user-agent id='{id}'/>")
}

fn with_password(name: &str, wishes: &str) -> String {
    let data = BASE64_STANDARD.encode(format!("\0{name}\0{name}"));
    let first = format!("<initial-response>{data}</initial-response>");
    format!("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>{first}{wishes}</authenticate>")
}

fn with_token(name: &str, token: &str, fast: &str, wishes: &str) -> String {
    let proof = Hash::Sha256.hmac(token.as_bytes(), &[b"Initiator"]);
    let data = BASE64_STANDARD.encode([name.as_bytes(), b"\0", &proof].concat());
    let first = format!("<initial-response>{data}</initial-response><fast xmlns='urn:xmpp:fast:0'{fast}/>");
    format!("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'>{first}{wishes}</authenticate>")
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap_or_else(|| panic!("no {from} in {text}")).0
}

/// The token in an answer.
fn token(heard: &str) -> String {
    between(heard, "<token xmlns='urn:xmpp:fast:0' token='", "'").to_owned()
}

fn world() -> World {
    let mut world = World::new();
    ["alice", "bob"].iter().for_each(|name| world.account(name));
    world
}

/// A token of alice's client "phone".
fn given(world: &mut World) -> String {
    let client = world.open();
    let heard = world.ask(client, with_password("alice", &format!("{}{BIND}{WANTED}", agent("phone"))));
    token(&heard)
}

/// What a new connection hears that says this.
fn asked(world: &mut World, said: String) -> String {
    let client = world.open();
    world.ask(client, said)
}

fn is_in(world: &mut World, token: &str, fast: &str, id: &str) -> bool {
    let heard = asked(world, with_token("alice", token, fast, &format!("{}{BIND}", agent(id))));
    assert!(heard.contains("<bound ") != heard.contains("<failure xmlns='urn:xmpp:sasl:2'>"), "{heard}");
    heard.contains("<bound ")
}

fn later(world: &mut World, hours: u64) {
    world.now = Time(world.now.0 + hours * HOUR);
    world.settle();
}

#[test]
fn xep_0484_a_client_comes_back_in_one_round_trip_and_the_server_proves_itself() {
    let mut world = world();
    let client = world.connect();
    let heard = world.ask(client, OPENING);
    assert!(heard.contains("<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast>"), "{heard}");
    let wishes = format!("{}{BIND}{WANTED}", agent("phone"));
    let heard = world.ask(client, with_password("alice", &wishes));
    let expiry = between(&heard, "expiry='", "'").to_owned();
    assert!(expiry.starts_with("2023-11-28T") && expiry.ends_with('Z'), "{expiry}: two weeks");
    let token = token(&heard);
    let client = world.connect();
    let heard = world.ask(client, format!("{OPENING}{}<presence/>", with_token("alice", &token, "", &wishes.replace(WANTED, ""))));
    let answer = BASE64_STANDARD.encode(Hash::Sha256.hmac(token.as_bytes(), &[b"Responder"]));
    assert!(heard.contains(&format!("<additional-data>{answer}</additional-data>")), "{heard}");
    assert!(heard.contains("<bound ") && !heard.contains("<token "), "{heard}");
}

#[test]
fn xep_0484_a_token_is_of_no_use_to_others_and_without_its_element() {
    let mut world = world();
    let token = given(&mut world);
    assert!(!is_in(&mut world, &token, "", "desk"), "another client");
    let heard = asked(&mut world, with_token("alice", &token, "", BIND));
    assert!(heard.contains("<not-authorized "), "no client: {heard}");
    let heard = asked(&mut world, with_token("bob", &token, "", &agent("phone")));
    assert!(heard.contains("<not-authorized "), "another user: {heard}");
    let heard = asked(&mut world, with_token("nobody", &token, "", &agent("phone")));
    assert!(heard.contains("<not-authorized "), "no user: {heard}");
    let without = with_token("alice", &token, "", &agent("phone")).replace("<fast xmlns='urn:xmpp:fast:0'/>", "");
    assert!(asked(&mut world, without).contains("<invalid-mechanism "));
    let bound = with_token("alice", &token, "", &agent("phone")).replace("-NONE", "-EXPR");
    assert!(asked(&mut world, bound).contains("<invalid-mechanism "), "there is no TLS");
    let by_password = with_password("alice", &format!("{}<fast xmlns='urn:xmpp:fast:0'/>", agent("phone")));
    assert!(asked(&mut world, by_password).contains("<invalid-mechanism "));
    assert!(is_in(&mut world, &token, "", "phone"));
}

#[test]
fn xep_0484_broken_tokens_fail() {
    let mut world = world();
    given(&mut world);
    for data in ["", "alice", "alice\0", "alice\0short", "\0\0\0", "alice@elsewhere\0xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"] {
        let first = format!("<initial-response>{}</initial-response>", BASE64_STANDARD.encode(data));
        let said = format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'>{first}{}<fast xmlns='urn:xmpp:fast:0'/>\
             </authenticate>",
            agent("phone")
        );
        let heard = asked(&mut world, said);
        let is_empty = data.is_empty() && heard == "<challenge xmlns='urn:xmpp:sasl:2'/>";
        assert!(is_empty || heard.starts_with("<failure xmlns='urn:xmpp:sasl:2'>"), "{data:?}: {heard}");
    }
    for wrong in [
        format!("{}<request-token xmlns='urn:xmpp:fast:0' mechanism='PLAIN'/>", agent("phone")),
        format!("{}<request-token xmlns='urn:xmpp:fast:0'/>", agent("phone")),
        WANTED.to_owned(),
    ] {
        assert!(asked(&mut world, with_password("alice", &wrong)).contains("<malformed-request "), "{wrong}");
    }
}

#[test]
fn xep_0484_a_token_ends_and_is_replaced_before_that() {
    let mut world = world();
    let first = given(&mut world);
    later(&mut world, 24 * 8);
    let said = with_token("alice", &first, "", &format!("{}{BIND}", agent("phone")));
    let heard = asked(&mut world, said);
    let second = token(&heard);
    assert!(is_in(&mut world, &first, "", "phone"), "the new one may have been lost on its way");
    let third = token(&asked(&mut world, with_token("alice", &first, "", &agent("phone"))));
    assert!(!is_in(&mut world, &second, "", "phone"), "nobody had used it when the next was given");
    assert!(is_in(&mut world, &third, "", "phone"));
    assert!(!is_in(&mut world, &first, "", "phone"), "the newer one was used");
    later(&mut world, 24 * 14);
    let heard = asked(&mut world, with_token("alice", &third, "", &agent("phone")));
    assert!(heard.starts_with("<failure xmlns='urn:xmpp:sasl:2'><credentials-expired "), "{heard}");
}

#[test]
fn xep_0484_a_client_can_void_its_token_and_ask_for_another_with_it() {
    let mut world = world();
    let (first, wishes) = (given(&mut world), agent("phone"));
    let heard = asked(&mut world, with_token("alice", &first, " invalidate='true'", &wishes));
    assert!(heard.contains("<success ") && !heard.contains("<token "), "{heard}");
    assert!(!is_in(&mut world, &first, "", "phone"));
    let second = given(&mut world);
    let heard = asked(&mut world, with_token("alice", &second, " invalidate='1'", &format!("{wishes}{WANTED}")));
    let third = token(&heard);
    assert!(!is_in(&mut world, &second, "", "phone") && is_in(&mut world, &third, "", "phone"));
}

#[test]
fn xep_0484_who_counts_is_protected_from_replays() {
    let mut world = world();
    let token = given(&mut world);
    let mut outcome = |count: u32| is_in(&mut world, &token, &format!(" count='{count}'"), "phone");
    assert_eq!([1, 1, 5, 4, 6].map(&mut outcome), [true, false, true, false, true]);
    assert!(!is_in(&mut world, &token, "", "phone"), "leaving the count out is no way around it");
}

#[test]
fn xep_0484_another_password_voids_all_tokens_and_so_does_the_accounts_end() {
    let mut world = world();
    let token = given(&mut world);
    let alice = world.log_in("alice", "desk");
    let change = "<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>alice</username>\
                  <password>better</password></query></iq>";
    assert!(world.ask(alice, change).contains("type='result'"));
    assert!(!is_in(&mut world, &token, "", "phone"));
    let bobs = {
        let heard = asked(&mut world, with_password("bob", &format!("{}{WANTED}", agent("phone"))));
        self::token(&heard)
    };
    world.order(Order::Errand { jid: Bare::new("bob@example.org").unwrap(), what: What::Remove });
    world.account("bob");
    let heard = asked(&mut world, with_token("bob", &bobs, "", &agent("phone")));
    assert!(heard.contains("<not-authorized "), "{heard}");
}

#[test]
fn xep_0484_tokens_outlive_a_restart_and_take_no_document_of_the_user() {
    let mut world = world();
    let token = given(&mut world);
    let mut again = self::world();
    let mut rows = Vec::new();
    world
        .store
        .load(
            Table::Documents,
            &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                Ok(())
            },
            &mut |_, _| (),
        )
        .unwrap();
    assert_eq!(rows.len(), 1);
    for (key, value) in rows {
        assert!(!value.windows(token.len()).any(|part| part == token.as_bytes()), "the token itself is nowhere");
        again.shard.homes.load(Table::Documents, &key, &value).unwrap();
    }
    again.now = world.now;
    assert!(is_in(&mut again, &token, "", "phone"));
    again.order(Order::Errand { jid: Bare::new("alice@example.org").unwrap(), what: What::Remove });
    assert_eq!(again.shard.homes.document_bytes(), 0);
}

#[test]
fn xep_0484_an_operator_may_give_none() {
    let mut world = world();
    let limits = std::sync::Arc::make_mut(&mut world.shard.settings.limits);
    limits.hashed_token_hours = 0;
    let client = world.connect();
    assert!(!world.ask(client, OPENING).contains("urn:xmpp:fast:0"));
    assert!(world.ask(client, with_password("alice", &format!("{}{WANTED}", agent("phone")))).contains("<malformed-request "));
}
