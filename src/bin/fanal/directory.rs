//! `fanal directory`: which cluster each user is of, and which clusters there are.

use crate::failure::Failure;
use crate::settings::WhichNode;
use crate::user::any_jid;
use fanal::admin::client::Client;
use fanal::admin::http::percent_encode;
use fanal::base::config::Config;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal directory clusters
  fanal directory forget 3
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
        /// The user: local@domain, or the local part alone for the node's own domain.
        jid: String,
        /// Print what the node's API answers, as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: WhichNode,
    },
    /// Show the clusters that a running node knows of: number, state, domains, nodes, and at the directory's nodes how many users
    /// each has.
    Clusters {
        /// Print what the node's API answers, as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        node: WhichNode,
    },
    /// Have a cluster forgotten that will never return: its number is free then. Ask a node of the cluster that keeps the
    /// directory, with the nodes of the other one stopped.
    Forget {
        /// The cluster's number.
        number: u16,
        /// Also if it has users: their names are free then, for whoever comes first, and the subscriptions between them and
        /// users of other clusters end for good.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        node: WhichNode,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    let text = match args.command {
        Command::Lookup { jid, json, node } => {
            let config = node.load()?;
            lookup(any_jid(&jid, &config)?.as_str(), json, &client_of(config))?
        }
        Command::Clusters { json: true, node } => client(node)?.get("/clusters").map_err(Failure::line)? + "\n",
        Command::Clusters { node, .. } => client(node)?.clusters().map_err(Failure::line)?.table(),
        Command::Forget { number, force, node } => forget(number, force, &client(node)?)?,
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::line)
}

fn client(node: WhichNode) -> Result<Client, Failure> {
    node.load().map(client_of)
}

fn client_of(config: Config) -> Client {
    Client::new(config.listen.admin, config.listen.admin_token)
}

fn forget(number: u16, force: bool, node: &Client) -> Result<String, Failure> {
    let mut names = 0;
    loop {
        let forgotten = node.forget_cluster(number, force).map_err(Failure::line)?;
        names += forgotten.gone;
        if forgotten.left == 0 {
            return Ok(format!("cluster {number} is forgotten, with {names} names\n"));
        }
        eprintln!("{names} names are forgotten, {} are left", forgotten.left);
    }
}

fn lookup(jid: &str, json: bool, node: &Client) -> Result<String, Failure> {
    if json {
        return Ok(node.get(&format!("/directory/{}", percent_encode(jid))).map_err(Failure::line)? + "\n");
    }
    Ok(match node.locate(jid).map_err(Failure::line)?.cluster {
        None => format!("{jid} is of no cluster\n"),
        Some(0) => format!("{jid} is a user of this node, which belongs to no cluster\n"),
        Some(cluster) => format!("{jid} is of cluster {cluster}\n"),
    })
}
