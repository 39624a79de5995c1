//! The simulator: two runs of a seed are the same run.

use fanal::sim::{Options, run};

#[test]
fn a_seed_gives_the_same_run_and_another_seed_another() {
    let hash = |seed| run(Options::new(seed)).unwrap_or_else(|failed| panic!("{failed}")).trace_hash;
    assert_eq!(hash(7), hash(7));
    assert_ne!(hash(7), hash(8));
}
