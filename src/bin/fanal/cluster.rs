//! `fanal cluster`: how a running node finds the others.

use crate::failure::Failure;
use crate::settings::WhichNode;
use crate::user;
use fanal::admin::client::Client;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal cluster status
  fanal cluster status --admin 127.0.0.1:7401 --json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the nodes of the cluster as a running node sees them: who can be reached, since when, by how many lanes, how long a
    /// round trip takes, what waits for them, and why one can't be reached.
    Status {
        /// Print what the node's API answers, as JSON, with what is counted of each link.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: WhichNode,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    let Command::Status { json, node } = args.command;
    let listen = node.load()?.listen;
    let node = Client::new(listen.admin, listen.admin_token);
    let text = match json {
        true => node.get("/cluster").map(|text| text + "\n"),
        false => node.cluster().map(|status| status.table(user::now().0)),
    };
    std::io::stdout().write_all(text.map_err(Failure::line)?.as_bytes()).map_err(Failure::line)
}
