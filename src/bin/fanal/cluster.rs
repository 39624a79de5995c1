//! `fanal cluster`: how a running node finds the others, and who owns which users.

use crate::failure::Failure;
use crate::settings::WhichNode;
use crate::user;
use fanal::admin::client::Client;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal cluster status
  fanal cluster status --admin 127.0.0.1:7401 --json
  fanal cluster drain --admin 127.0.0.1:7401
  fanal cluster forget 3")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the nodes of the cluster as a running node sees them: who can be reached, since when, by how many lanes, how long a
    /// round trip takes, what waits for them, and why one can't be reached; and who shares out users, who is given some, and how
    /// many of the 65,536 slots of users each node owns.
    Status {
        /// Print what the node's API answers, as JSON, with what is counted of each link.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: WhichNode,
    },
    /// Give a running node no more new users, until it's started again: before it is stopped for good. Users that it has stay, and
    /// move to the others when it stops, if they share a database (store.kind).
    Drain {
        #[command(flatten)]
        node: WhichNode,
    },
    /// Move users from the fullest nodes to the emptiest: after a node was added or came back. Only where nodes take over
    /// (store.kind).
    Rebalance {
        #[command(flatten)]
        node: WhichNode,
    },
    /// Have a node forgotten that will never return: its number and its users' slots are free then. Ask any other node.
    Forget {
        /// The number of the node to forget.
        number: u16,
        /// Also if it owns users and their data were on its disk alone: they begin anew, with nothing.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        node: WhichNode,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    let text = match args.command {
        Command::Status { json: true, node } => client(node)?.get("/cluster").map(|text| text + "\n"),
        Command::Status { node, .. } => client(node)?.cluster().map(|status| status.table(user::now().0)),
        Command::Drain { node } => client(node)?.drain().map(|said| said + "\n"),
        Command::Rebalance { node } => client(node)?.rebalance().map(|said| said + "\n"),
        Command::Forget { number, force, node } => client(node)?.forget_node(number, force).map(|said| said + "\n"),
    };
    std::io::stdout().write_all(text.map_err(Failure::line)?.as_bytes()).map_err(Failure::line)
}

fn client(node: WhichNode) -> Result<Client, Failure> {
    let listen = node.load()?.listen;
    Ok(Client::new(listen.admin, listen.admin_token))
}
