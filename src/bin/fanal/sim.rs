//! `fanal sim`: runs the simulator over seeds, and says how to replay the one that failed.

use crate::failure::Failure;
use fanal::sim::{self, Failed, Options, Summary};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::Write;
use std::time::Instant;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal sim --seed 7 --steps 5000
  fanal sim --seed 1 --seeds 200
  fanal sim --seed 1 --seeds 200 --nodes 2 --clusters 3")]
pub struct Args {
    /// The first seed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many seeds, counting up.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Steps of each run.
    #[arg(long, value_name = "M", default_value_t = sim::STEPS, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Nodes of each cluster, instead of drawing them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=8))]
    nodes: Option<u16>,
    /// Clusters, instead of drawing them.
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u16).range(1..=8))]
    clusters: Option<u16>,
    /// Lines of the trace to show of a run that failed.
    #[arg(long, value_name = "LINES", default_value_t = sim::TAIL)]
    tail: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    held: bool,
    first_seed: u64,
    last_seed: u64,
    steps: u64,
    seconds: f64,
    summary: Summary,
    failed: Option<&'a Failed>,
    replay: Option<String>,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let started = Instant::now();
    let bar = ProgressBar::new(args.seeds);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {per_sec}, {eta} left").expect("a sound template"));
    let (mut summary, mut failed, mut last_seed) = (Summary::default(), None, args.seed);
    for seed in (args.seed..).take(args.seeds as usize) {
        last_seed = seed;
        let (nodes, clusters) = (args.nodes.map(usize::from), args.clusters.map(usize::from));
        let options = Options { steps: args.steps, nodes, clusters, tail: args.tail, ..Options::new(seed) };
        say_seed_on_panic(options);
        match sim::run(options) {
            Ok(one) => summary.add(&one),
            Err(broken) => {
                failed = Some(broken);
                break;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (failed, seconds) = (failed.as_deref(), started.elapsed().as_secs_f64());
    let replay = failed.map(Failed::command);
    let (held, first_seed, steps) = (failed.is_none(), args.seed, args.steps);
    let report = Report { held, first_seed, last_seed, steps, seconds, summary, failed, replay };
    print(&report, args.json)
}

/// A release build ends where it panics: this is then all that tells the seed.
fn say_seed_on_panic(options: Options) {
    std::panic::set_hook(Box::new(move |panic| {
        // Nobody is left to tell when even stderr is gone.
        _ = writeln!(std::io::stderr(), "{panic}\nreplay: {}", options.command());
    }));
}

fn print(report: &Report<'_>, json: bool) -> Result<(), Failure> {
    if json {
        let line = simd_json::serde::to_string(report).expect("plain values can be written as JSON");
        writeln!(std::io::stdout(), "{line}").map_err(Failure::line)?;
    } else if report.held {
        let Report { first_seed, last_seed, steps, seconds, summary, .. } = report;
        let hash = summary.trace_hash;
        let held = format!("seeds {first_seed} to {last_seed} held, {steps} steps each, in {seconds:.1} s; trace hash {hash:016x}");
        let counted = summary.counts.iter().map(|(happening, times)| format!("\n{times:>12} {}", happening.text()));
        let counted: String = counted.collect();
        writeln!(std::io::stdout(), "{held}\nWhat happened in them:{counted}").map_err(Failure::line)?;
    }
    report.failed.map_or(Ok(()), |failed| Err(Failure::line(failed)))
}
