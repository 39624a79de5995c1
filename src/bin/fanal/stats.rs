//! `fanal stats`: what a running node is doing.

use crate::failure::Failure;
use crate::settings::WhichNode;
use fanal::admin::client::Client;
use std::io::{IsTerminal, Write};
use std::time::Duration;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal stats --every 2
  fanal stats --clients 10
  fanal stats --histograms --admin 127.0.0.1:7401")]
pub struct Args {
    /// Print what the node's API answers, as JSON, instead of a table.
    #[arg(long, conflicts_with = "histograms")]
    json: bool,
    /// Print the clients that cause the most load, and how much in a unit of time, instead of the node's measurements.
    #[arg(long, conflicts_with = "histograms", value_name = "N", num_args = 0..=1, default_missing_value = "20",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: Option<u16>,
    /// Print the HdrHistogram interval log: what each stage took, on every core, for the viewers of such logs.
    #[arg(long)]
    histograms: bool,
    /// Print it again every so many seconds until interrupted; what happened per second is then told of that time.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: Option<u64>,
    #[command(flatten)]
    node: WhichNode,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let listen = args.node.load()?.listen;
    let node = Client::new(listen.admin, listen.admin_token);
    let mut earlier = None;
    loop {
        let text = match (args.clients, args.json, args.histograms) {
            (Some(most), true, _) => node.get(&format!("/clients?limit={most}")),
            (Some(most), ..) => node.clients(most.into()).map(|list| list.table()),
            (_, true, _) => node.get("/stats"),
            (_, _, true) => node.histograms(),
            _ => node.stats().map(|report| {
                let table = report.table(earlier.as_ref());
                earlier = Some(report);
                table
            }),
        };
        show(&text.map_err(Failure::line)?, args.every.is_some())?;
        let Some(seconds) = args.every else { return Ok(()) };
        std::thread::sleep(Duration::from_secs(seconds));
    }
}

/// On a terminal, what comes again and again takes the place of what was there.
fn show(text: &str, again: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    let clear = if again && out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    writeln!(out, "{clear}{}", text.trim_end()).and_then(|()| out.flush()).map_err(Failure::line)
}
