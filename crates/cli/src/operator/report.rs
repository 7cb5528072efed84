//! `rejoin report`: one HTML page of the last transfers.
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use transfer::clock::now_ms;
use transfer::datadir::owner::become_owner_of;
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
    // Opened before root becomes the datadir's owner, and never through a link: that owner may have put one there.
    let output = options.output.as_deref().map(open).transpose()?;
    let places = match options.places.as_slice() {
        [] => {
            let datadir = options.node.wanted()?.layout()?.datadir;
            become_owner_of(&datadir)?;
            vec![datadir]
        }
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
    match output.zip(options.output.as_ref()) {
        Some((mut file, path)) => file
            .set_len(0)
            .and_then(|()| file.write_all(page.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display())),
        None => {
            say(page.trim_end());
            Ok(())
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}
