//! One file for each command.

use std::time::Duration;

use transfer::remembered::trust;

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod cold;
pub mod deep_ist;
pub mod demo;
pub mod figures;
pub mod filesystem;
pub mod joins;
mod link;
pub mod moment;
mod observed;
pub mod outages;
mod record;
pub mod redo_table;
pub mod scale;
pub mod storm;
pub mod strangers;
pub mod throttle;
mod watch;

/// How long files must have been left alone before a donor remembers them, and a little more.
const SETTLED: Duration = trust::SETTLED.saturating_add(Duration::from_secs(3));

/// The one in the middle; NaN of none.
fn median(of: impl IntoIterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.into_iter().collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod testing {
    use clap::{Args, Parser};

    #[derive(Parser)]
    struct Cli<T: Args> {
        #[command(flatten)]
        options: T,
    }

    /// The options of a command, as its command line gives them.
    pub fn options<T: Args>(args: &[&str]) -> Result<T, clap::Error> {
        Cli::try_parse_from([&["lab"], args].concat()).map(|cli| cli.options)
    }
}
