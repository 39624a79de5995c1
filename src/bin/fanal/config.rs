//! `fanal config`: the default file, or a check of one's own.

use crate::failure::Failure;
use crate::settings::Settings;
use fanal::base::config::Config;
use std::io::Write;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  fanal config
  fanal config --check --config fanal.toml")]
pub struct Args {
    /// Read and check the configuration instead, as `fanal serve` with the same options would.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    settings: Settings,
}

pub fn run(args: Args) -> Result<(), Failure> {
    let shown = match args.check {
        true => args.settings.load().map(|_| "the configuration is sound\n".to_owned())?,
        false => Config::default_file(),
    };
    std::io::stdout().write_all(shown.as_bytes()).map_err(Failure::line)
}
