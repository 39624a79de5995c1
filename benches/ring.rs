//! What a ring between two cores and a timed event cost: `cargo bench --bench ring`. G3 (ns per item and per batch, with both ends
//! busy on cores of their own) and G5 (ns per event, timed or not).

use core_affinity::CoreId;
use fanal::base::id::CoreId as Core;
use fanal::base::time::Time;
use fanal::metrics::recorder::Recorder;
use fanal::metrics::stage::Stage;
use fanal::ring::doorbell::Bell;
use fanal::ring::exchange::Batch;
use fanal::ring::mesh::{Ports, mesh};
use fanal::ring::spsc::ring;
use std::hint::{black_box, spin_loop};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

const ITEMS: u64 = 50_000_000;
const BATCHES: u64 = 2_000_000;
const EVENTS: u64 = 20_000_000;
/// The middle one of this many runs is told.
const RUNS: usize = 5;

fn main() {
    for capacity in [64, 4096] {
        tell(&format!("ring of {capacity}, ns per item of 8 bytes"), ITEMS, || items(capacity));
    }
    for entries in [1, 16, 256] {
        let batches = BATCHES / if entries > 16 { 10 } else { 1 };
        let per_batch = tell(&format!("exchange, ns per batch of {entries} x 64 bytes"), batches, || batched(batches, entries));
        println!("{:<44} {:>8.2}", "  per entry", per_batch / entries as f64);
    }
    for (sample_every, name) in [(0, "off"), (16, "1 of 16"), (1, "all")] {
        tell(&format!("recorder, {name} timed, ns per event"), EVENTS, || timed(sample_every));
    }
}

/// Prints and gives the middle time per event.
fn tell(what: &str, events: u64, run: impl Fn()) -> f64 {
    let mut nanos: Vec<f64> = (0..RUNS)
        .map(|_| {
            let began = Instant::now();
            run();
            began.elapsed().as_nanos() as f64 / events as f64
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    println!("{what:<44} {:>8.2}   ({:.2} to {:.2})", nanos[RUNS / 2], nanos[0], nanos[RUNS - 1]);
    nanos[RUNS / 2]
}

/// Pins this thread to one of the processors the program was started with.
fn pin(end: usize) {
    static PROCESSORS: LazyLock<Vec<CoreId>> = LazyLock::new(|| core_affinity::get_core_ids().unwrap_or_default());
    assert!(PROCESSORS.len() > end, "this needs two processors");
    assert!(core_affinity::set_for_current(PROCESSORS[end]), "pinning to processor {end}");
}

fn items(capacity: usize) {
    let (mut tx, mut rx) = ring(capacity);
    let producer = std::thread::spawn(move || {
        pin(0);
        for n in 0..ITEMS {
            while tx.try_push(n).is_err() {
                spin_loop();
            }
        }
    });
    pin(1);
    let (mut seen, mut sum) = (0, 0u64);
    while seen < ITEMS {
        match rx.pop() {
            Some(n) => (seen, sum) = (seen + 1, sum.wrapping_add(n)),
            None => spin_loop(),
        }
    }
    black_box(sum);
    producer.join().expect("the producer ends");
}

#[derive(Default)]
struct Entries(Vec<[u64; 8]>);

impl Batch for Entries {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn clear(&mut self) {
        self.0.clear();
    }
}

struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

fn batched(batches: u64, entries: u64) {
    let mut ports = mesh::<Entries>(64, vec![Arc::new(Silent), Arc::new(Silent)]).into_iter();
    let (mut sender, mut receiver): (Ports<Entries>, Ports<Entries>) = (ports.next().unwrap(), ports.next().unwrap());
    let producer = std::thread::spawn(move || {
        pin(0);
        while sender.counts.batches < batches {
            if sender.all_sent() {
                (0..entries).for_each(|n| sender.batch(Core(1)).0.push([n; 8]));
            }
            sender.publish_all();
        }
    });
    pin(1);
    let mut sum = 0u64;
    while receiver.counts.read < batches {
        receiver.receive(8, |_, batch| sum = batch.0.iter().fold(sum, |sum, entry| sum.wrapping_add(entry[7])));
    }
    black_box(sum);
    producer.join().expect("the producer ends");
}

/// What an update does: asks whether it's timed, and if so reads the clock and records three stages.
fn timed(sample_every: u32) {
    let began = Instant::now();
    let mut recorder = Recorder::new(Core(0), sample_every, Time::ZERO);
    for _ in 0..EVENTS {
        if black_box(&mut recorder).sample() {
            for stage in [Stage::Apply, Stage::FanOut, Stage::EndToEnd] {
                recorder.record(stage, began.elapsed().as_nanos() as u64 & 0xffff);
            }
        }
    }
    black_box(recorder.snapshot(Time::ZERO));
}
