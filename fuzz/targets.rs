//! What each fuzz target does with its bytes: run every decoder and read everything it gives. None may panic, and what they
//! say must be consistent. `cargo fuzz run NAME` feeds them here; `tests/wire_fuzz.rs` does on stable, with mutations of good
//! frames.

use fanal::base::credentials::ScramCredentials;
use fanal::base::jid::Bare;
use fanal::base::limits::Limits;
use fanal::base::time::{Time, WallClock};
use fanal::client::codec::Codec;
use fanal::client::inbox::Inbox;
use fanal::front::native::{Door, Rules};
use fanal::front::sasl::{Decoys, PlainCheck, Scram};
use fanal::front::token::Keys;
use fanal::wire::decode::{self, ClientFrame};
use fanal::wire::frame::{Chunk, Frames};
use fanal::wire::native::{Kind, Presence, Show};
use fanal::wire::presence;
use std::hint::black_box;

pub type Target = fn(&[u8]);

/// Every target by name.
pub const ALL: &[(&str, Target)] = &[
    ("frames", frames),
    ("door", door),
    ("codec", codec),
    ("presence_flatbuffer", presence_flatbuffer),
    ("sasl", sasl),
    ("token", token),
];

/// Splits the bytes where the first one says; whole or in two, the same frames must be found.
pub fn frames(data: &[u8]) {
    let Some((&at, stream)) = data.split_first() else { return };
    let split = |pieces: &[&[u8]]| {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in pieces {
            let mut chunk = Chunk::new(piece);
            loop {
                match frames.next(&mut chunk, 4096) {
                    Ok(Some(frame)) => found.push(Ok((frame.header, frame.body.to_vec()))),
                    Ok(None) => break,
                    Err(reason) => {
                        found.push(Err(reason));
                        return found;
                    }
                }
                assert!(frames.heap_bytes() <= 4096);
            }
        }
        found
    };
    let (first, second) = stream.split_at(usize::from(at).min(stream.len()));
    assert_eq!(split(&[stream]), split(&[first, second]));
}

/// Feeds a door, and says yes to every log-in; the first byte decides between session and trunk.
pub fn door(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else { return };
    let rules = Rules::new(&Limits::default());
    let (mut door, mut chunk, mut now) = (Door::default(), Chunk::new(stream), Time(1));
    loop {
        now = Time(now.0 + 1_000_000);
        let Ok(Some(incoming)) = door.next(now, &mut chunk, &rules) else { return };
        read_client_frame(&incoming.frame);
        match how % 4 {
            _ if !door.is_deciding() => {}
            0 => door.opened(),
            1 => door.opened_trunk(),
            2 => door.challenged(),
            _ => {
                let (next, unread) = Door::resume_from(std::mem::take(&mut door).leave(chunk));
                door = next;
                assert!(door.next(now, &mut Chunk::new(&unread), &rules).is_ok_and(|incoming| incoming.is_some()));
                return;
            }
        }
    }
}

fn read_client_frame(frame: &ClientFrame<'_>) {
    match frame {
        ClientFrame::Hello(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Ping(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Pong(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Message(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::LogIn(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::SaslResponse(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Resume(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::LogOut(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::SetPresence(presence) | ClientFrame::DirectedPresence { presence, .. } => presence_flatbuffer(presence.bytes),
        ClientFrame::Probe(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Subscription(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::RosterSet(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Block(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::Ack(t) => drop(black_box(format!("{t:?}"))),
        ClientFrame::RosterGet | ClientFrame::BlockListGet => {}
    }
}

/// Feeds a client, which reads every field of every frame into values.
pub fn codec(data: &[u8]) {
    let (mut codec, mut chunk, mut inbox, mut out) = (Codec::default(), Chunk::new(data), Inbox::of_session(), Vec::new());
    while let Ok(Some(received)) = codec.next(&mut chunk) {
        if inbox.take(&received, &mut out).is_err() {
            return;
        }
    }
    // What the client sends by itself is sound.
    let (mut frames, mut chunk) = (Frames::default(), Chunk::new(&out));
    while let Some(frame) = frames.next(&mut chunk, 4096).expect("a client writes good frames") {
        assert!(decode::from_client(frame.header.kind, frame.body).is_ok());
    }
}

/// Our reader of Presence and the general verifier agree, and read the same.
pub fn presence_flatbuffer(data: &[u8]) {
    let general = flatbuffers::root::<Presence>(data);
    match presence::read(data) {
        Err(_) => assert!(!general.is_ok_and(|presence| presence.show().0 <= Show::ENUM_MAX), "refused what is sound"),
        Ok(view) => {
            let general = general.expect("took what is not sound");
            let fields = view.fields();
            assert_eq!(fields.resource, general.resource());
            assert_eq!((fields.show, fields.priority), (general.show(), general.priority()));
            assert_eq!((fields.status, fields.caps), (general.status().unwrap_or(""), general.caps().unwrap_or("")));
            assert_eq!((fields.idle_since, fields.stamp), (general.idle_since(), general.stamp()));
            assert_eq!(fields.payload, general.payload().map_or(&[][..], |payload| payload.bytes()));
            assert!(decode::from_client(Kind::SetPresence, data).is_ok() == (fields.stamp == 0));
        }
    }
}

/// The bytes are a first message and, after a line feed, a second one. Nobody gets in with them.
pub fn sasl(data: &[u8]) {
    let user = Bare::new("user@localhost").expect("a JID");
    let (decoys, credentials) = (Decoys::new([7; 32]), ScramCredentials::from_password("pencil", b"salt", 1));
    let (first, second) = match data.iter().position(|&byte| byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    if let Some((scram, _)) = Scram::start(first, &user, Some(&credentials), &decoys, [7; 18]) {
        assert_eq!(scram.finish(second), None);
    }
    if let Some(check) = PlainCheck::start(first, &user, Some(&credentials), &decoys) {
        black_box(check.run());
    }
    if let Ok((scram, _)) = fanal::client::sasl::Scram::start(&user, "pencil")
        && let Ok((proof, _)) = scram.respond(first)
    {
        assert!(proof.check(second).is_err());
    }
}

/// No bytes are a good token: nobody knows the key.
pub fn token(data: &[u8]) {
    let keys = Keys::new([b"0123456789abcdef"]).expect("a key");
    let user = Bare::new("user@localhost").expect("a JID");
    assert!(keys.verify_user(data, &user, WallClock(0)).is_err());
    assert!(keys.verify_trunk(data, WallClock(0)).is_err());
}
