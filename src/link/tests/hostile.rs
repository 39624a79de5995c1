//! What a peer that breaks the rules gets, and what it can't do.

use super::*;
use crate::wire::link::{Hello, Purpose};

/// One machine, and a peer whose bytes we write.
struct Lone {
    end: End,
    conn: ConnId,
}

impl Lone {
    /// The accepting end, with a connection on trial.
    fn new() -> Lone {
        let mut end = End::new(HIGH, LOW);
        let conn = end.lines.open(settings().marks());
        end.machine.accepted(Time(1), conn, &mut end.lines);
        Lone { end, conn }
    }

    fn hello() -> Hello {
        let (life, purpose) = (Life { epoch: 5, term: 1 }, Purpose::Inside);
        let (known, received, digest) = (None, 0, [1; 32]);
        Hello { from: LOW, to: HIGH, purpose, cores: 4, lane: 0, attempt: 3, life, known, received, digest }
    }

    fn agreed() -> Lone {
        let mut lone = Lone::new();
        lone.say(&[Frame::Hello(Lone::hello())]);
        let life = Lone::hello().life;
        let events = lone.end.events();
        let is_warning = matches!(events[..], [Notice::Up { life: said, alike: false, .. }] if said == life);
        assert!(is_warning, "another configuration is a warning: {events:?}");
        lone.heard();
        lone
    }

    fn say(&mut self, frames: &[Frame<'_>]) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode()).collect();
        self.end.received(Time(MS), self.conn, &bytes);
        self.end.notices();
    }

    /// What it says to us; and whether it has hung up.
    fn heard(&mut self) -> (Vec<u8>, bool) {
        let bytes = self.end.lines.take(self.conn.slot).unwrap_or_default();
        self.end.lines.sent(self.conn.slot, bytes.clone());
        (bytes, self.end.lines.may_close(self.conn.slot))
    }
}

#[test]
fn a_hello_that_is_not_expected_is_refused_with_its_reason_and_changes_nothing() {
    let hello = Lone::hello();
    let other = |cluster, node| Site { cluster, node: NodeId(node) };
    let cases = [
        (Hello { from: HIGH, ..hello }, LinkReason::SameNumbers),
        (Hello { from: other(2, 1), ..hello }, LinkReason::WrongCluster),
        (Hello { from: other(1, 3), ..hello }, LinkReason::WrongNode),
        (Hello { to: other(2, 2), ..hello }, LinkReason::WrongCluster),
        (Hello { to: other(1, 3), ..hello }, LinkReason::WrongNode),
        (Hello { purpose: Purpose::Between, ..hello }, LinkReason::WrongPurpose),
        (Hello { lane: 1, ..hello }, LinkReason::WrongLane),
        (Hello { known: Some(Life { epoch: 1, term: 0 }), received: 1, ..hello }, LinkReason::BadAck),
    ];
    for (hello, reason) in cases {
        let mut lone = Lone::new();
        lone.say(&[Frame::Hello(hello)]);
        assert_eq!(lone.end.events(), [Notice::Ended(reason)]);
        assert_eq!(lone.heard(), (Frame::Refusal(reason).encode(), true));
        assert!(!lone.end.machine.is_up());
    }
    let mut lone = Lone::new();
    lone.say(&[Frame::Ping(1)]);
    assert_eq!(lone.heard(), (Frame::Refusal(LinkReason::OutOfOrder).encode(), true));
}

#[test]
fn the_end_that_dials_takes_no_connections() {
    let mut end = End::new(LOW, HIGH);
    let conn = end.lines.open(settings().marks());
    end.machine.accepted(Time(1), conn, &mut end.lines);
    let mut lone = Lone { end, conn };
    lone.say(&[Frame::Hello(Hello { from: HIGH, to: LOW, ..Lone::hello() })]);
    assert_eq!(lone.end.events(), [Notice::Ended(LinkReason::NotExpected)]);
}

#[test]
fn lies_end_the_connection_with_their_reason_and_the_liar_is_given_up() {
    let entry = |sequence| Frame::Entry { sequence, bytes: &[0; 8] };
    let cases: [(&[Frame<'_>], LinkReason); 9] = [
        (&[entry(2)], LinkReason::SequenceGap),
        (&[entry(0)], LinkReason::Replayed),
        (
            &[Frame::Complex { sequence: Some(1), bytes: b"" }, Frame::Complex { sequence: Some(1), bytes: b"" }],
            LinkReason::Replayed,
        ),
        (&[Frame::Complex { sequence: Some(9), bytes: b"" }], LinkReason::SequenceGap),
        (&[Frame::Ack(1)], LinkReason::BadAck),
        (&[Frame::Pong(u64::MAX)], LinkReason::BadFrame),
        (&[Frame::Hello(Lone::hello())], LinkReason::OutOfOrder),
        (&[Frame::Welcome(Lone::hello())], LinkReason::OutOfOrder),
        (&[Frame::Refusal(LinkReason::Other)], LinkReason::OutOfOrder),
    ];
    for (frames, reason) in cases {
        let mut lone = Lone::agreed();
        lone.say(frames);
        assert_eq!(lone.end.events(), [Notice::Ended(reason), Notice::Lost { unknown: 0 }]);
        let (said, hung_up) = lone.heard();
        assert!(said.ends_with(&Frame::Bye(reason).encode()) && hung_up, "{reason:?}");
        assert_eq!(lone.end.machine.counters().violations, 1);
        lone.say(&[Frame::Ping(7), entry(1)]);
        assert!(lone.heard().0.is_empty(), "nothing more is heard");
    }
    let mut lone = Lone::agreed();
    let mut claimed = Frame::Update { tag: 0, bytes: b"" }.encode();
    claimed[0..4].copy_from_slice(&(32u32 << 20).to_le_bytes());
    lone.end.received(Time(MS), lone.conn, &claimed);
    lone.end.notices();
    assert_eq!(lone.end.events()[0], Notice::Ended(LinkReason::TooLong));
}

#[test]
fn whoever_the_owner_accuses_is_given_up_too() {
    let mut lone = Lone::agreed();
    lone.end.machine.accuse(LinkReason::BadFrame);
    lone.end.tick(Time(MS));
    assert_eq!(lone.end.events(), [Notice::Ended(LinkReason::BadFrame), Notice::Lost { unknown: 0 }]);
}

#[test]
fn hellos_of_an_older_life_or_dial_are_refused_and_the_connection_stays() {
    let hello = Lone::hello();
    for (old, reason) in [
        (hello, LinkReason::OlderDial),
        (Hello { attempt: 2, ..hello }, LinkReason::OlderDial),
        (Hello { attempt: 4, life: Life { epoch: 5, term: 0 }, ..hello }, LinkReason::OldLife),
        (Hello { attempt: 4, life: Life { epoch: 4, term: 7 }, ..hello }, LinkReason::OldLife),
    ] {
        let mut lone = Lone::agreed();
        let first = lone.conn;
        lone.conn = lone.end.lines.open(settings().marks());
        lone.end.machine.accepted(Time(2), lone.conn, &mut lone.end.lines);
        lone.say(&[Frame::Hello(old)]);
        assert_eq!(lone.end.events(), [Notice::Ended(reason)]);
        assert_eq!(lone.end.machine.conn(), Some(first));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_too_strange_for_a_machine(pieces: Vec<Vec<u8>>, agreed: bool) {
        let mut lone = if agreed { Lone::agreed() } else { Lone::new() };
        for piece in pieces {
            lone.end.machine.tick(Time(MS), &mut lone.end.lines);
            lone.end.received(Time(MS), lone.conn, &piece);
        }
    }
}
