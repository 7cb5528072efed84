//! `rejoin report`: one HTML page of the last transfers.
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use transfer::clock::now_ms;
use transfer::failure::{Failure, Kind};
use transfer::server::records::Records;

use super::answer::say;
use super::complain;
use super::which::Which;

/// What to show, and where.
#[derive(clap::Args)]
pub struct Options {
    /// Data directories, directories with records, or records; default: the node's data directory
    #[arg(value_name = "DIR")]
    places: Vec<PathBuf>,
    #[command(flatten)]
    node: Which,
    /// Write the page to this file instead of printing it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show at most so many transfers, the last ones
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    last: u16,
}

/// Makes the page.
pub fn run(options: &Options) -> Result<()> {
    let places = match options.places.as_slice() {
        [] => vec![options.node.wanted()?.layout()?.datadir],
        places => places.to_vec(),
    };
    let mut found = Records::default();
    places.iter().try_for_each(|place| found.add(place))?;
    let named = |(path, why): &(PathBuf, String)| (path.display().to_string(), why.clone());
    let unread: Vec<(String, String)> = found.unread.iter().map(named).collect();
    unread.iter().for_each(|(file, why)| complain(&format!("{file} is not shown: {why}")));
    if found.records.is_empty() {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        let failure =
            Failure::new(Kind::Configuration, format!("no record of a transfer in {}", places.join(", ")));
        let hint = "each transfer leaves rejoin-ROLE-TIME.json in its node's data directory; name that directory, or copies";
        return Err(failure.hint(hint).into());
    }
    let page = report::page(found.records, options.last.into(), &unread, now_ms());
    match &options.output {
        Some(file) => fs::write(file, page).with_context(|| format!("cannot write {}", file.display())),
        None => {
            say(page.trim_end());
            Ok(())
        }
    }
}
