//! One transfer, measured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::Node;
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::page_cache::{self, forget_all};
use rejoin_lab::usage::{CpuSeconds, HighWater};

use super::{PATIENCE, SYSBENCH_ROWS, SYSBENCH_TABLES};
use crate::commands::bench::samples::{Samples, Used};
use crate::commands::observed::{Observed, wait_for_programs};

pub struct Transfer {
    /// To a joiner without files.
    pub empty: bool,
    /// Milliseconds by our own log: held, and of it the server's part before anything is done.
    pub pause: f64,
    pub granted: f64,
    /// The longest commit of the donor's client, in milliseconds.
    pub client: f64,
    /// Processor seconds of both programs.
    pub cpu: f64,
    /// The most bytes that each program had in memory.
    pub donor: u64,
    pub joiner: u64,
    /// Bytes of the donor's data in the page cache, before and after, and on disk.
    pub cached: [u64; 2],
    pub data: u64,
    /// What the machine did during the transfer.
    pub used: Used,
    /// Seconds from the joiner's start.
    pub synced: f64,
}

impl Transfer {
    /// Starts the joiner, which is stopped afterwards and asks for everything again at its next start.
    pub fn run(donor: &Node, joiner: &Node, empty: bool, cold: bool) -> Result<Transfer> {
        if cold {
            rustix::fs::sync();
            [donor, joiner].into_iter().try_for_each(|node| forget_all(&node.datadir()))?;
        }
        let pause = Duration::from_millis(1);
        let (tables, rows) = (SYSBENCH_TABLES, SYSBENCH_ROWS);
        let data = page_cache::bytes_on_disk(&page_cache::data_files(&donor.datadir())?);
        let cached = page_cache::cached(&donor.datadir())?;
        let load = Load::start(donor, Intensity { threads: 1, tables, rows, pause })?;
        let pid = donor.pid().context("the donor is down")?;
        let (memory, samples) = (HighWater::watch(pid)?, Samples::start(&donor.datadir())?);
        let before = CpuSeconds::of(pid)?;
        let (observed, joiner_memory) = Observed::join_watched(donor, joiner, &[], HighWater::watch)?;
        let (load, history) = (load.stop()?, samples.stop()?);
        let cached = [cached, page_cache::cached(&donor.datadir())?];
        ensure!(load.commits > 0, "nothing was committed: {:?}", load.last_error);
        // Only what has ended is in the sums.
        [donor, joiner].into_iter().try_for_each(|node| wait_for_programs(node, PATIENCE))?;
        let joiners = CpuSeconds::of(joiner.pid().context("the joiner is down")?)?;
        let (from, to) = observed.giving()?;
        let (held, granted) = paused(&observed.donor_log())?;
        let measured = Transfer {
            empty,
            pause: held,
            granted,
            client: load.longest_within(from, to).as_secs_f64() * 1000.0,
            cpu: CpuSeconds::of(pid)?.since(before).children + joiners.children,
            donor: memory.stop()?,
            joiner: joiner_memory.stop()?,
            cached,
            data,
            used: history.used(observed.transferring()?)?,
            synced: observed.took.as_secs_f64(),
        };
        println!("  {}", measured.line());
        joiner.terminate();
        ensure!(joiner.wait_exit(PATIENCE).is_some(), "the joiner did not stop");
        joiner.remove_grastate()?;
        Ok(measured)
    }

    fn line(&self) -> String {
        format!(
            "{}: paused {:.1} ms (granted after {:.1}), longest commit {:.1} ms, CPU {:.1} s, donor {} MB, joiner {} MB, \
             donor's page cache {} to {} MB, transfer {:.1} s, Synced {:.1} s",
            if self.empty { "empty" } else { "again" },
            self.pause,
            self.granted,
            self.client,
            self.cpu,
            self.donor / 1_000_000,
            self.joiner / 1_000_000,
            self.cached[0] / 1_000_000,
            self.cached[1] / 1_000_000,
            self.used.seconds,
            self.synced,
        )
    }
}

/// Milliseconds: the pause, and what of it the server took to grant it.
fn paused(log: &str) -> Result<(f64, f64)> {
    let after = |lead: &str| -> Result<f64> {
        let rest = log.rsplit_once(lead).with_context(|| format!("no {lead:?} in the donor's log"))?.1;
        Ok(rest.split_once(" ms").context("a pause without its unit")?.0.parse()?)
    };
    Ok((after("replication paused for ")?, after("(granted after ")?))
}
