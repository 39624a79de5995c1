//! Complex messages: what goes in comes out, how small they are, and what hostile bytes can't do.

use fanal::base::config::Link;
use fanal::base::id::{SessionId, UserId, Version};
use fanal::base::limits::{COMPLEX_BYTES, COMPLEX_ITEMS};
use fanal::base::random::Random;
use fanal::base::reason::LinkReason;
use fanal::wire::complex::{Compression, Packer, Row, Unpacker};
use fanal::wire::encode::{Encoder, PresenceFields};
use fanal::wire::event::Head;
use fanal::wire::native::Show;
use proptest::prelude::*;

const ALL: [Compression; 3] = [Compression::Lz4, Compression::Zstd, Compression::None];

/// A number as messages have it.
fn append(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn pack(compression: Compression, dictionary: &[u8], others: &[Vec<u8>], rows: &mut [Row], presences: &[Box<[u8]>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut packer = Packer::new(compression, dictionary).unwrap();
    packer.pack(&mut out, others.iter().map(|other| &other[..]), rows, presences);
    out
}

/// Presences of a crowd of which most have one of a few things to say.
fn presences(random: &mut Random, resources: &[&str]) -> Vec<Box<[u8]>> {
    let mut encoder = Encoder::default();
    let mut presence = |resource: &str, status: &str, show| {
        let caps = "https://example.org/client#k3uHc5OsgfeL2uqgJ8vv0m0Qc1I=";
        let fields = PresenceFields { resource, status, show, caps, ..Default::default() };
        encoder.presence(&fields).into_boxed_slice()
    };
    let texts = ["", "lunch", "in a meeting until three", "on the road", "back on Monday", "do not disturb, please"];
    let mut all: Vec<_> = resources
        .iter()
        .flat_map(|resource| texts.map(|text| (*resource, text)))
        .map(|(resource, text)| presence(resource, text, Show(random.below(4) as u8)))
        .collect();
    random.shuffle(&mut all);
    all
}

/// Updates of distinct users of one cluster of a million.
fn crowd(random: &mut Random, count: usize, presences: u64) -> Vec<Row> {
    let mut users = std::collections::BTreeSet::new();
    while users.len() < count {
        users.insert(UserId::new(3, random.below(65_536) as u16, 1 + random.below(16) as u32));
    }
    let mut rows: Vec<Row> = users
        .into_iter()
        .map(|user| {
            let version = Version { epoch: 70 + random.below(2) as u32, sequence: 1 + random.below(200) as u32 };
            let (session, show) = (SessionId(1 + random.below(40) as u32), Show(random.below(4) as u8));
            Row { head: Head { user, version, session, show, flags: 0 }, presence: random.below(presences) as u32 }
        })
        .collect();
    random.shuffle(&mut rows);
    rows
}

/// The aim of issue 4: at most 16 bytes an update.
#[test]
fn z10_a_full_message_takes_at_most_16_bytes_an_update() {
    let mut random = Random::new(7);
    let count = Link::default().complex_count as usize;
    let few = presences(&mut random, &["desk", "phone", "laptop", "web"]);
    let rows = crowd(&mut random, count, few.len() as u64);
    let own: Vec<Box<[u8]>> = (0..count)
        .map(|at| {
            let resource = format!("{:016x}", random.next_u64());
            presences(&mut random, &[resource.as_str()]).swap_remove(at % 6)
        })
        .collect();
    for compression in ALL {
        let per_update =
            |presences: &[Box<[u8]>], rows: &mut [Row]| pack(compression, &[], &[], rows, presences).len() as f64 / count as f64;
        let mut distinct = rows.clone();
        distinct.iter_mut().enumerate().for_each(|(at, row)| row.presence = at as u32);
        let (shared, random_resources) = (per_update(&few, &mut rows.clone()), per_update(&own, &mut distinct));
        println!("{compression:?}: {shared:.1} bytes an update of {count}; {random_resources:.1} if each has a random resource");
        assert!(shared <= 16.0, "{compression:?}: {shared}");
    }
}

#[test]
fn z11_what_is_no_update_comes_first_in_its_order_and_updates_by_user_with_their_presences() {
    let mut random = Random::new(1);
    let presences = presences(&mut random, &["desk"]);
    let others: Vec<Vec<u8>> = (0..5u8).map(|n| vec![n; usize::from(n) * 40]).collect();
    let rows = crowd(&mut random, 300, presences.len() as u64);
    let mut sorted = rows.clone();
    sorted.sort_by_key(|row| row.head.user);
    for compression in ALL {
        let message = pack(compression, &[], &others, &mut rows.clone(), &presences);
        let mut unpacker = Unpacker::new(&[]).unwrap();
        for _ in 0..2 {
            let complex = unpacker.unpack(&message).unwrap();
            assert!(complex.others().eq(others.iter().map(|other| &other[..])));
            assert!(complex.updates().eq(sorted.iter().map(|row| (row.head, &presences[row.presence as usize][..]))));
        }
    }
}

#[test]
fn a_dictionary_makes_short_messages_shorter_and_nobody_else_reads_them() {
    let mut random = Random::new(2);
    let presences = presences(&mut random, &["desk", "phone"]);
    let rows = crowd(&mut random, 8, presences.len() as u64);
    let dictionary = presences.concat();
    let plain = pack(Compression::Zstd, &[], &[], &mut rows.clone(), &presences);
    let trained = pack(Compression::Zstd, &dictionary, &[], &mut rows.clone(), &presences);
    assert!(trained.len() < plain.len() / 2, "{} {}", trained.len(), plain.len());
    let count = |dictionary: &[u8]| Unpacker::new(dictionary).unwrap().unpack(&trained).map(|complex| complex.updates().len());
    assert_eq!((count(&dictionary), count(&[])), (Ok(8), Err(LinkReason::BadFrame)));
}

#[test]
fn claims_are_checked_before_anything_is_allocated_for_them() {
    let unpack = |bytes: &[u8]| Unpacker::new(&[]).unwrap().unpack(bytes).map(|complex| complex.updates().len());
    let claim = |tag: u8, bytes: u64| {
        let mut message = vec![tag];
        append(&mut message, bytes);
        message.extend_from_slice(&[0; 8]);
        unpack(&message)
    };
    for tag in 0..4 {
        assert_eq!(claim(tag, u64::from(COMPLEX_BYTES) + 1), Err(LinkReason::TooLong));
        assert_eq!(claim(tag, u64::from(COMPLEX_BYTES)), Err(LinkReason::BadFrame));
    }
    assert_eq!(claim(9, 1), Err(LinkReason::BadFrame));
    assert_eq!(unpack(&[]), Err(LinkReason::BadFrame));
    // Counts: of others, updates, epochs, presences.
    for at in 0..4 {
        let counted = |count: u64| {
            let mut content = Vec::new();
            (0..4).for_each(|n| append(&mut content, if n == at { count } else { 0 }));
            let mut message = vec![0];
            append(&mut message, content.len() as u64);
            unpack(&[message, content].concat())
        };
        assert_eq!(counted(u64::from(COMPLEX_ITEMS) + 1), Err(LinkReason::TooLong));
        assert_eq!(counted(u64::from(COMPLEX_ITEMS)), Err(LinkReason::BadFrame));
    }
}

#[test]
fn a_presence_that_is_none_is_refused_with_all_that_came_with_it() {
    let mut rows = crowd(&mut Random::new(3), 4, 1);
    let message = pack(Compression::Lz4, &[], &[b"other".to_vec()], &mut rows, &[b"no flatbuffer".to_vec().into_boxed_slice()]);
    assert_eq!(Unpacker::new(&[]).unwrap().unpack(&message).map(|complex| complex.others().len()), Err(LinkReason::BadFrame));
    let without = pack(Compression::Lz4, &[], &[], &mut rows, &[Box::default()]);
    assert_eq!(Unpacker::new(&[]).unwrap().unpack(&without).map(|complex| complex.updates().len()), Ok(4), "none is sound");
}

fn any_row() -> impl Strategy<Value = Row> {
    let user = prop_oneof![any::<u64>(), 0..4u64, (0..3u64).prop_map(|high| high << 32 | 7)];
    (user, any::<[u32; 3]>(), 0..=Show::ENUM_MAX, any::<u8>(), 0..3u32).prop_map(
        |(user, [epoch, sequence, session], show, flags, presence)| {
            let version = Version { epoch: epoch % 5, sequence };
            Row { head: Head { user: UserId(user), version, session: SessionId(session), show: Show(show), flags }, presence }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_packed_comes_out(mut rows in prop::collection::vec(any_row(), 0..60), others: Vec<Vec<u8>>, how in 0..3usize) {
        let presences = presences(&mut Random::new(4), &["r"]);
        let message = pack(ALL[how], &[], &others, &mut rows, &presences);
        let mut unpacker = Unpacker::new(&[]).unwrap();
        let complex = unpacker.unpack(&message).unwrap();
        prop_assert!(complex.others().eq(others.iter().map(|other| &other[..])));
        prop_assert!(complex.updates().eq(rows.iter().map(|row| (row.head, &presences[row.presence as usize][..]))));
    }

    #[test]
    fn no_bytes_are_too_strange(mut message: Vec<u8>, tag in 0..5u8, changes: Vec<(prop::sample::Index, u8)>) {
        let mut unpacker = Unpacker::new(b"dictionary").unwrap();
        message.insert(0, tag);
        let _ = unpacker.unpack(&message).map(|complex| complex.updates().count() + complex.others().count());
        let mut random = Random::new(5);
        let presences = presences(&mut random, &["r"]);
        let mut changed = pack(ALL[usize::from(tag % 3)], &[], &[b"other".to_vec()], &mut crowd(&mut random, 5, 6), &presences);
        for (at, value) in changes {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        let _ = unpacker.unpack(&changed).map(|complex| complex.updates().count() + complex.others().count());
    }
}
