//! `fanal directory`: which cluster each user is of.

use crate::failure::Failure;
use crate::settings::WhichNode;
use fanal::admin::client::Client;
use fanal::admin::http::percent_encode;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal directory lookup alice@example.org
  fanal directory lookup alice@example.org --admin 127.0.0.1:7401 --json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Ask a running node which cluster a user is of. It says what it knows, and asks the directory otherwise.
    Lookup {
        /// The user, like alice@example.org.
        jid: String,
        /// Print what the node's API answers, as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: WhichNode,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    let Command::Lookup { jid, json, node } = args.command;
    let listen = node.load()?.listen;
    let node = Client::new(listen.admin, listen.admin_token);
    if json {
        let text = node.get(&format!("/directory/{}", percent_encode(&jid))).map_err(Failure::line)?;
        return writeln!(std::io::stdout(), "{text}").map_err(Failure::line);
    }
    let text = match node.locate(&jid).map_err(Failure::line)?.cluster {
        None => format!("{jid} is of no cluster"),
        Some(0) => format!("{jid} is a user of this node, which belongs to no cluster"),
        Some(cluster) => format!("{jid} is of cluster {cluster}"),
    };
    writeln!(std::io::stdout(), "{text}").map_err(Failure::line)
}
