//! The simulator, run: seeds hold, a seed is a run, and each check catches the bug that is made for it.

use fanal::sim::check::Check;
use fanal::sim::counts::Happening;
use fanal::sim::{Canary, Options, Summary, run};

const SEEDS: u64 = 200;
/// Seeds within which a canary must be caught.
const PATIENCE: u64 = 200;

#[test]
fn two_hundred_seeds_hold_and_everything_happens_in_them() {
    let mut summary = Summary::default();
    for seed in 1..=SEEDS {
        match run(Options::new(seed)) {
            Ok(one) => summary.add(&one),
            Err(failed) => panic!("{failed}"),
        }
    }
    let never: Vec<Happening> = summary.counts.iter().filter(|(_, times)| *times == 0).map(|(happening, _)| happening).collect();
    assert_eq!(never, [], "what the simulator is for must happen in it");
}

#[test]
fn a_seed_is_one_run_and_another_seed_is_another() {
    let hash = |seed| run(Options::new(seed)).expect("the seed holds").trace_hash;
    let hashes: Vec<u64> = (1..=20).map(hash).collect();
    let again: Vec<u64> = (1..=20).map(hash).collect();
    assert_eq!(hashes, again);
    let mut different = hashes.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), hashes.len());
}

/// What these seeds broke is said with the unit tests that were written for it, where the rules are that mend it.
#[test]
fn seeds_that_broke_once_hold() {
    const DRAWN: [u64; 14] =
        [67, 7_606, 301_039, 302_258, 311_523, 315_257, 333_930, 403_828, 420_425, 428_144, 441_487, 444_108, 475_817, 500_452];
    // With so many nodes in so many clusters.
    const FORCED: [(u64, usize, usize); 9] = [
        (2_004, 2, 2),
        (2_024, 2, 2),
        (2_055, 2, 2),
        (2_592, 2, 2),
        (4_010, 3, 1),
        (4_017, 3, 1),
        (4_105, 3, 1),
        (4_396, 3, 1),
        (4_451, 3, 1),
    ];
    let forced =
        FORCED.map(|(seed, nodes, clusters)| Options { nodes: Some(nodes), clusters: Some(clusters), ..Options::new(seed) });
    for options in DRAWN.map(Options::new).into_iter().chain(forced) {
        run(options).unwrap_or_else(|failed| panic!("{failed}"));
    }
}

/// Which checks catch the bug, over the seeds that it takes until the one that is meant for it does.
fn caught(canary: Canary, meant: Check) {
    let mut others = Vec::new();
    for seed in 1..=PATIENCE {
        let options = Options { canary: Some(canary), ..Options::new(seed) };
        match run(options) {
            Err(failed) if failed.broken.check == meant => {
                assert!(failed.to_string().contains(&format!("fanal sim --seed {seed} ")), "{failed}");
                assert!(!failed.tail.is_empty());
                return;
            }
            Err(failed) => others.push(failed.broken.check),
            Ok(_) => {}
        }
    }
    panic!("{canary:?} was not caught by {meant:?} in {PATIENCE} seeds; others that caught it: {others:?}");
}

#[test]
fn a_lost_revocation_is_caught() {
    caught(Canary::RevokeLost, Check::NobodyUnapprovedReceives);
}

#[test]
fn a_lost_update_is_caught() {
    caught(Canary::PutOffLost, Check::EverybodyKnowsTheFinalState);
}

#[test]
fn z6_an_update_that_crosses_twice_is_caught() {
    caught(Canary::UpdateTwice, Check::OneUpdatePerBoundary);
}

#[test]
fn a_commit_that_is_not_made_is_caught() {
    caught(Canary::CommitForgotten, Check::NothingAcknowledgedIsLost);
}

#[test]
fn a_lost_message_is_caught() {
    caught(Canary::MessageLost, Check::EachMessageArrivesOrReturns);
}

#[test]
fn a_lost_answer_is_caught() {
    caught(Canary::DoneLost, Check::EveryRequestIsAnswered);
}

#[test]
fn a_line_that_is_never_released_is_caught() {
    caught(Canary::LineKept, Check::EverythingIsReturned);
}

#[test]
fn an_old_event_that_comes_again_is_caught() {
    caught(Canary::OldAgain, Check::VersionsOnlyGrow);
}

#[test]
fn z13_a_session_that_goes_twice_is_caught() {
    caught(Canary::GoneTwice, Check::NobodyGoesTwice);
}

#[test]
fn m4_an_update_that_goes_to_another_node_twice_is_caught() {
    caught(Canary::LinkUpdateTwice, Check::OneUpdatePerBoundary);
}

#[test]
fn z13_a_relay_that_keeps_a_stale_state_is_caught() {
    caught(Canary::RelayStale, Check::EverybodyKnowsTheFinalState);
}

#[test]
fn z9_a_message_of_another_node_that_is_taken_in_twice_is_caught() {
    caught(Canary::EntryTwice, Check::EachMessageArrivesOrReturns);
}

#[test]
fn z8_a_way_of_another_node_that_is_dropped_is_caught() {
    caught(Canary::WayLost, Check::NothingAcknowledgedIsLost);
}

#[test]
fn z3_a_border_that_lets_lies_in_is_caught() {
    caught(Canary::BorderOpen, Check::FramesAreSound);
}

#[test]
fn z8_a_subscription_that_another_cluster_has_changed_by_a_lie_is_caught() {
    caught(Canary::WayBelieved, Check::NothingAcknowledgedIsLost);
}
