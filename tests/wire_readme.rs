//! `schemas/README.md` tells the truth: its table of reasons, its example token, and its frames byte by byte.

use fanal::base::id::{SessionId, UserId, Version};
use fanal::base::jid::Bare;
use fanal::base::reason::Reason;
use fanal::base::time::WallClock;
use fanal::front::token::{Keys, Scope};
use fanal::wire::encode::{Encoder, PresenceFields, Tag};
use fanal::wire::event::{self, Head};
use fanal::wire::native::Show;

const README: &str = include_str!("../schemas/README.md");

/// The bytes of the block of this name: of each line, what is two hexadecimal digits, up to the first word that isn't.
fn block(name: &str) -> Vec<u8> {
    let after = README.split_once(&format!("<!-- frame {name} -->\n```\n")).expect("the block is there").1;
    let block = after.split_once("```").unwrap().0;
    let byte = |word: &str| if word.len() == 2 { u8::from_str_radix(word, 16).ok() } else { None };
    block.lines().flat_map(|line| line.split(' ').map_while(byte).collect::<Vec<_>>()).collect()
}

const PRESENCE: PresenceFields<'_> = PresenceFields {
    resource: "phone",
    show: Show::Away,
    priority: 0,
    status: "",
    idle_since: 0,
    caps: "",
    payload: b"",
    stamp: 0,
    extensions: "",
};

#[test]
fn the_annotated_set_presence_is_what_the_encoder_writes() {
    let mut bytes = Vec::new();
    Encoder::default().set_presence(&mut bytes, Tag::request(7), &PRESENCE);
    assert_eq!(block("SetPresence"), bytes);
}

#[test]
fn the_annotated_event_is_what_the_encoder_writes() {
    let version = Version { epoch: 1, sequence: 5 };
    let head = Head { user: UserId(0x4c1d_0000_0001), version, session: SessionId(3), show: Show::Away, flags: 0 };
    let (mut body, mut bytes) = (Vec::new(), Vec::new());
    event::body(&mut body, head, &Encoder::default().presence(&PRESENCE));
    event::splice(&mut bytes, &body, &[8, 9, 12]);
    assert_eq!(block("Event"), bytes);
}

#[test]
fn every_reason_stands_in_the_table_with_its_number_and_text() {
    let rows = README.split_once("## Reasons").unwrap().1.lines().filter(|line| line.starts_with("| "));
    let mut described: Vec<&str> = rows.skip_while(|row| !row.starts_with("| ---")).skip(1).collect();
    let mut actual: Vec<String> =
        Reason::ALL.iter().map(|&reason| format!("| {} | {} | {} |", reason as u16, reason.metric(), reason.text())).collect();
    described.sort_unstable();
    actual.sort_unstable();
    assert_eq!(described, actual);
}

#[test]
fn the_example_token_is_the_one_this_code_makes() {
    let keys = Keys::new(["an example key, not a secret"]).unwrap();
    let alice = Bare::new("alice@localhost").unwrap();
    let token = keys.sign(Scope::User(&alice), WallClock(1_800_000_000_000)).unwrap();
    assert!(README.contains(&token), "schemas/README.md should show {token}");
}
