//! What was staged is looked at again before it is installed: a disk or a memory may have made another byte of it.
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rejoin_lab::{Cluster, compare};

use super::pair::{Pair, until};

#[test]
fn a_byte_that_changes_after_it_was_staged_is_found() -> Result<()> {
    let mut pair = Pair::new(Cluster::builder().nodes(2))?;
    // A server that ends writes its pages: before that the rows are in the redo log only.
    pair.donor().stop()?;
    pair.donor().bootstrap()?;
    let table = pair.donor().datadir().join("sbtest/sbtest1.ibd").metadata()?.len();
    pair.begin(&["rlimit=600k", "compress=none"])?;
    let stage = pair.joiner().datadir().join(".rejoin/stage");
    let mut found = None;
    until("the table's page is staged", Duration::from_secs(60), || {
        found = staged(&stage, table);
        Ok(found.is_some())
    })?;
    if let Some((file, at, byte)) = found {
        file.write_all_at(&[!byte], at)?;
    }
    let reason = "the staged bytes are not what the donor read";
    until("the joiner says so", Duration::from_secs(60), || Ok(pair.joiner().log_text().contains(reason)))?;
    let since = Instant::now();
    pair.all_ends(since)?;
    pair.donor_is_released()?;
    pair.joiners_server_ended()?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", reason)?;
    pair.reason_in_both_logs(pair.donor(), "donor", reason)?;
    // What was right of it is used again, that byte is not.
    pair.joins_now()?;
    compare::assert_equal(pair.donor(), pair.joiner())
}

/// A staged file of this length, with a byte of a page that has come.
fn staged(stage: &Path, len: u64) -> Option<(File, u64, u8)> {
    let files = fs::read_dir(stage).ok()?.flatten().map(|entry| entry.path());
    let of_length = files.filter(|path| path.metadata().is_ok_and(|meta| meta.len() == len));
    let mut opened = of_length.filter_map(|path| File::options().read(true).write(true).open(path).ok());
    opened.find_map(|file| {
        // Those before may be read again in the consistency point.
        let found = (4..len >> 14).map(|page| (page << 14) + 8000).find_map(|at| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).ok()?;
            (byte != [0]).then_some((at, byte[0]))
        });
        found.map(|(at, byte)| (file, at, byte))
    })
}
