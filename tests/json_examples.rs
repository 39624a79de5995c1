//! `schemas/JSON.md` shows a message of every type: the code reads and writes just those, for the frames of `wire_samples`.

mod wire_samples;

use fanal::base::id::UserId;
use fanal::base::jid::Bare;
use fanal::front::json::{Json, Memory};
use fanal::front::translate::{Core, Users};
use fanal::front::xmpp;
use fanal::wire::encode::{Encoder, MessageFields, PresenceFields, Tag};
use fanal::wire::event::{self, Head};
use fanal::wire::frame::each_whole;
use fanal::wire::native::{Copy, Kind, Show};

const BOOK: &str = include_str!("../schemas/JSON.md");

/// Everybody is bob.
struct Bob(Bare);

impl Users for Bob {
    fn jid(&self, _: UserId) -> Option<&Bare> {
        Some(&self.0)
    }
}

/// The examples of one part of the book, each on one line.
fn examples(part: &str) -> Vec<String> {
    let (_, after) = BOOK.split_once(&format!("\n## {part}\n")).expect("the part is there");
    let part = after.split("\n## ").next().expect("the part itself");
    let blocks = part.split("```json\n").skip(1).map(|block| block.split("```").next().expect("the end of a block"));
    // An example goes on in lines that are indented.
    blocks.flat_map(|block| block.replace("\n  ", "").lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A translator whose session has the resource of the samples.
fn logged_in() -> Json {
    let mut json = Json::start(&mut Memory::default(), &mut Vec::new());
    let mut frames = Vec::new();
    Encoder::default().logged_in(&mut frames, Tag::default(), &wire_samples::LOGGED_IN);
    said(&mut json, &frames);
    json
}

/// What frames become: one text for each message.
fn said(json: &mut Json, frames: &[u8]) -> Vec<String> {
    let (mut random, users, mut out, mut follow) = (|| 4, Bob(Bare::new("bob@localhost").unwrap()), Vec::new(), Vec::new());
    let (mut xmpp, mut memory) = (xmpp::Memory::default(), Memory::default());
    let mut core = Core::lending(&mut random, &users, (&mut xmpp, &mut memory), &mut follow);
    json.send(frames, &mut core, &mut out);
    let (mut rest, mut texts) = (&out[..], Vec::new());
    while let [first, length, after @ ..] = rest {
        assert_eq!(*first, 0x81, "a text message in one frame");
        let (bytes, after) = match length {
            126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
            short => (usize::from(*short), after),
        };
        let (text, after) = after.split_at(bytes);
        texts.push(String::from_utf8(text.to_vec()).expect("UTF-8"));
        rest = after;
    }
    texts
}

/// The samples of what JSON can say: the translator greets by itself, WebSocket has Pong, and what a server fills in is left out.
fn samples() -> Vec<Vec<u8>> {
    let own = |kind: Kind| matches!(kind, Kind::Hello | Kind::Ping | Kind::Pong | Kind::Message);
    let samples = wire_samples::of_client().into_iter().filter(|sample| !own(sample.kind));
    let mut samples: Vec<Vec<u8>> = samples.map(|sample| sample.bytes).collect();
    let mut add = |write: &dyn Fn(&mut Encoder, &mut Vec<u8>)| {
        let mut frame = Vec::new();
        write(&mut Encoder::default(), &mut frame);
        samples.push(frame);
    };
    add(&|encoder, out| encoder.ping(out, wire_samples::TAG, 0));
    add(&|encoder, out| {
        encoder.message(
            out,
            wire_samples::TAG,
            &MessageFields { from: "", number: 0, stamp: 0, copy: Copy::None, ..wire_samples::MESSAGE },
        )
    });
    samples
}

#[test]
fn what_a_client_sends_is_read_as_the_frames_of_the_samples() {
    let mut samples = samples();
    for example in examples("What a client sends") {
        let mut frames = Vec::new();
        logged_in().received(&example, &mut Memory::default(), &mut frames).unwrap_or_else(|fault| panic!("{example}: {fault}"));
        let kind = each_whole(&frames).next().expect("a frame").header.kind;
        let same = samples.iter().position(|sample| *sample == frames);
        samples.remove(same.unwrap_or_else(|| panic!("{example}: no sample of {kind:?} is this frame")));
    }
    let missing: Vec<_> = samples.iter().map(|sample| each_whole(sample).next().expect("a frame").header.kind).collect();
    assert!(missing.is_empty(), "no example of {missing:?}");
}

/// What is left of a user who has gone.
fn last_presence() -> Vec<u8> {
    let (show, status, stamp) = (Show::Unavailable, "gone home", 1_700_000_000_000);
    let presence =
        Encoder::default().presence(&PresenceFields { resource: "phone", show, status, stamp, ..PresenceFields::default() });
    let mut frames = Vec::new();
    event::write(&mut frames, Head { show, flags: event::LAST, ..wire_samples::HEAD }, &presence);
    frames
}

#[test]
fn what_a_server_sends_is_written_as_the_book_shows() {
    let shown = examples("What a server sends");
    let mut written = Vec::new();
    for frames in wire_samples::of_server().into_iter().map(|sample| sample.bytes).chain([last_presence()]) {
        for text in said(&mut logged_in(), &frames) {
            assert!(shown.contains(&text), "schemas/JSON.md lacks\n{text}");
            written.push(text);
        }
    }
    let stale: Vec<_> = shown.iter().filter(|example| !written.contains(example)).collect();
    assert!(stale.is_empty(), "nothing is written like this any more: {stale:#?}");
}
