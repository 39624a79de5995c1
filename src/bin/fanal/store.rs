//! `fanal store`: what a stopped node keeps, moved between a data directory and a database, and checked.

use crate::failure::Failure;
use crate::user::seed;
use fanal::bench::progress::Progress;
use fanal::node::CLUSTER;
use fanal::store::copy::{self, Sum};
use fanal::store::dir::DataDir;
use fanal::store::postgres::{self, PostgresStore, TOOL, Target, Writer};
use fanal::store::redb::RedbStore;
use fanal::store::{Backend, Table};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// How long a database may take for one transaction of many rows.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
#[command(after_help = "\
A place is a data directory, or a database as in store.url. No node may run on it. Keys and certificates stay where they are.

Examples:
  fanal store copy fanal-data postgres://fanal@127.0.0.1/fanal
  fanal store copy postgres://fanal@127.0.0.1/fanal /var/lib/fanal --replace
  fanal store check fanal-data")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Copy everything to a place that is empty, and compare both sides afterwards.
    Copy {
        /// Where it is: a directory, or postgres://...
        from: String,
        /// Where it shall be: a directory, or postgres://...
        to: String,
        /// Delete first what the target holds.
        #[arg(long)]
        replace: bool,
        /// Of a database: the users of the cluster of this number (cluster.number); without it, those of a lone node.
        #[arg(long, value_name = "N", default_value_t = CLUSTER, hide_default_value = true)]
        cluster: u16,
    },
    /// Read every row, and show how many there are and their hash, which is the same wherever they are kept.
    Check {
        /// A directory, or postgres://...
        place: String,
        /// Of a database: the users of the cluster of this number (cluster.number); without it, those of a lone node.
        #[arg(long, value_name = "N", default_value_t = CLUSTER, hide_default_value = true)]
        cluster: u16,
    },
}

pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Copy { from, to, replace, cluster } => copy(&from, &to, replace, cluster),
        Command::Check { place, cluster } => {
            let store = open(&place, cluster, DataDir::take)?;
            show(&copy::sums(&*store, &mut |_, _, _| ()).map_err(Failure::line)?)
        }
    }
}

fn copy(from: &str, to: &str, replace: bool, cluster: u16) -> Result<(), Failure> {
    if from == to {
        return Err(Failure::line("both places are the same: name two"));
    }
    let (source, mut target) = (open(from, cluster, DataDir::take)?, open(to, cluster, DataDir::take_or_create)?);
    let held = copy::count(&*target).map_err(Failure::line)?;
    if held > 0 && !replace {
        return Err(Failure::line(format!("{}: it holds {held} rows already: choose an empty place, or give --replace", name(to))));
    }
    let bar = Progress::shown(std::io::stderr().is_terminal());
    let rows = copy::count(&*source).map_err(Failure::line)?;
    if held > 0 {
        copy::clear(&mut *target, &mut on(&bar, "emptying", held)).map_err(Failure::line)?;
    }
    copy::copy(&*source, &mut *target, &mut on(&bar, "copying", rows)).map_err(Failure::line)?;
    let before = copy::sums(&*source, &mut on(&bar, "reading the source", rows)).map_err(Failure::line)?;
    let after = copy::sums(&*target, &mut on(&bar, "reading the target", rows)).map_err(Failure::line)?;
    bar.end();
    target.close();
    show(&after)?;
    match before.iter().zip(&after).find(|(before, after)| before != after) {
        None => say("both places hold the same\n"),
        Some((before, after)) => Err(Failure::line(format!(
            "table {} is not the same: {} rows in the source, {} in the target: did a node run? Copy again with --replace",
            before.table.name(),
            before.rows,
            after.rows
        ))),
    }
}

/// Counts the rows of all tables on the bar.
fn on<'a>(bar: &'a Progress, what: &'static str, rows: u64) -> impl FnMut(&'static str, Table, u64) + 'a {
    bar.begin(what, rows);
    let mut done = 0;
    move |_, _, _| {
        done += 1;
        if done % 1024 == 0 {
            bar.at(done);
        }
    }
}

/// Takes a directory by `take`, or a database.
fn open(
    place: &str,
    cluster: u16,
    take: fn(&Path) -> Result<DataDir, fanal::store::dir::OpenError>,
) -> Result<Box<dyn Backend>, Failure> {
    if !postgres::is_url(place) {
        let dir = take(Path::new(place)).map_err(Failure::line)?;
        return Ok(Box::new(RedbStore::open(dir).map_err(Failure::line)?));
    }
    let target = Target::parse(place).map_err(Failure::line)?;
    let settings = postgres::Settings { target, writer: Writer { cluster, node: TOOL }, patience: PATIENCE, seed: seed()? };
    Ok(Box::new(PostgresStore::open_as_tool(settings).map_err(Failure::line)?))
}

/// Never a URL's password.
fn name(place: &str) -> String {
    if postgres::is_url(place) {
        Target::parse(place).map_or_else(|why| why.to_string(), |target| target.place)
    } else {
        place.to_owned()
    }
}

fn show(sums: &[Sum]) -> Result<(), Failure> {
    say(&sums.iter().map(|sum| format!("{sum}\n")).collect::<String>())
}

fn say(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::line)
}
