//! The bytes of every frame kind, pinned: a change of them is a change of the protocol, which old clients would not understand.

mod wire_samples;

use fanal::wire::frame::HEADER_BYTES;
use fanal::wire::native::Kind;
use std::fmt::Write;

/// As in `wire_samples/golden.txt`: a line for each frame, and its bytes in rows of 16.
fn golden() -> String {
    let mut text = String::new();
    for (side, samples) in [("client", wire_samples::of_client()), ("server", wire_samples::of_server())] {
        for sample in samples {
            writeln!(text, "{side} {:?}", sample.kind).unwrap();
            for row in sample.bytes.chunks(16) {
                let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(text, "  {}", hex.join(" ")).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_frame_is_written_as_ever() {
    let now = golden();
    let pinned = include_str!("wire_samples/golden.txt");
    assert!(now == pinned, "frames changed; if the protocol is meant to change, tests/wire_samples/golden.txt should be:\n{now}");
}

#[test]
fn there_is_a_sample_of_every_kind() {
    let samples: Vec<u8> = wire_samples::of_client().iter().chain(&wire_samples::of_server()).map(|sample| sample.kind.0).collect();
    for number in 0..=u8::MAX {
        let exists = Kind(number).variant_name().is_some();
        assert_eq!(samples.contains(&number), exists, "kind {number}");
    }
}

#[test]
fn every_frame_is_aligned_and_names_its_kind_and_length() {
    for sample in wire_samples::of_client().into_iter().chain(wire_samples::of_server()) {
        let bytes = &sample.bytes;
        assert!(bytes.len().is_multiple_of(8));
        assert_eq!(bytes[4], sample.kind.0);
        assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - HEADER_BYTES);
    }
}
