//! `rejoin rollback`: the files that the last install replaced come back.
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use formats::wsrep::invocation::SstArgs;
use node::datadir::layout::Layout;
use node::datadir::lineage::Lineage;
use node::datadir::{managed, own_position};
use node::server::options::ServerOptions;
use node::sink::files::Disk;
use node::sink::{rollback, tidy};

use super::say;

/// Where, and which option files describe the node's directories.
#[derive(clap::Args)]
pub struct Options {
    /// The server's data directory
    #[arg(long, value_name = "DIR")]
    datadir: PathBuf,
    /// Option file of the server; without it the usual ones are read
    #[arg(long, value_name = "FILE")]
    defaults_file: Option<PathBuf>,
}

/// Puts them back, unless a server runs on the datadir.
pub fn run(options: &Options) -> Result<()> {
    let datadir = std::path::absolute(&options.datadir)?;
    let mut words = vec!["--datadir".to_owned(), datadir.to_string_lossy().into_owned()];
    if let Some(file) = &options.defaults_file {
        words.extend(["--defaults-file".to_owned(), file.to_string_lossy().into_owned()]);
    }
    let args = SstArgs::parse(&words);
    let layout = Layout::resolve(&args, &ServerOptions::load(&args)?)?;
    let found = node::joiner::old_files(managed::managed(&layout)?);
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let in_use = |_: &std::path::Path| {
        let server = own_position::server_using(&layout)?;
        Ok(server.map(|s| s.pid.map_or("a server".to_owned(), |pid| format!("a server (process {pid})"))))
    };
    let done = rollback::rollback(&Disk, &datadir, &found, in_use, made)?;
    tidy::remove_leftovers(&Disk, &datadir)?;
    Lineage::forget(&datadir)?;
    say(&format!("put back {} files; dropped the state at {}", done.files, done.dropped));
    Ok(())
}
