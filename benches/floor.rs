//! `cargo bench --bench floor -- [key=value]...`: the runtime's physical limit, with every knob of the driver open for a sweep.
//! Keys: connections, audience, window, pace (heard|delivered), frame, seconds, repeat, taskrun (coop|defer), hold (us), sends,
//! budget, buffers, bytes, idle. Prints one line a run.

use fanal::bench::floor::{Plan, run};
use fanal::bench::load::Pace;
use fanal::drive::{Config, TaskRun};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let mut plan = Plan {
        connections: 1000,
        audience: 50,
        frame_bytes: 64,
        window: 1,
        pace: Pace::Heard,
        time: Duration::from_secs(2),
        server_processor: Some(0),
        load_processor: Some(1),
        drive: Config::default(),
    };
    let mut repeat = 1;
    for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
        let (key, value) = argument.split_once('=').unwrap_or_else(|| panic!("{argument}: say key=value"));
        let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("{argument}: not a number"));
        let micros = || Duration::from_micros(number());
        match key {
            "connections" => plan.connections = number() as u32,
            "audience" => plan.audience = number() as u32,
            "window" => plan.window = number() as u32,
            "pace" => plan.pace = if value == "delivered" { Pace::Delivered } else { Pace::Heard },
            "frame" => plan.frame_bytes = number() as usize,
            "seconds" => plan.time = Duration::from_secs(number()),
            "repeat" => repeat = number(),
            "taskrun" => plan.drive.task_run = if value == "defer" { TaskRun::Deferred } else { TaskRun::Cooperative },
            "hold" => plan.drive.flush.hold = micros(),
            "sends" => plan.drive.flush.sends = number() as u32,
            "budget" => plan.drive.completions_per_turn = number() as u32,
            "buffers" => plan.drive.buffers = number() as u16,
            "bytes" => plan.drive.buffer_bytes = number() as u32,
            "idle" => plan.drive.idle_turns = number() as u32,
            _ => panic!("{key}: no such key"),
        }
    }
    for _ in 0..repeat {
        match run(plan) {
            Ok(outcome) => println!(
                "C={} F={} W={} {:?} {:?} | {:.2} M deliveries/s, {:.1} ns CPU each, server {:.0} %, {:.1} frames/send, \
                 {:.1} bytes/receive, sleeps {} starved {} overflow {} late {}",
                plan.connections,
                plan.audience,
                plan.window,
                plan.pace,
                plan.drive.task_run,
                outcome.deliveries_per_s() / 1e6,
                outcome.server_cpu_ns_per_delivery(),
                outcome.server_load() * 100.0,
                outcome.frames_per_send(plan.frame_bytes),
                outcome.drive.bytes_in as f64 / outcome.drive.receives.max(1) as f64,
                outcome.drive.sleeps,
                outcome.drive.starved,
                outcome.drive.cq_overflow,
                outcome.drive.late_completions,
            ),
            Err(error) => {
                eprintln!("floor: {error}");
                std::process::exit(1);
            }
        }
    }
}
