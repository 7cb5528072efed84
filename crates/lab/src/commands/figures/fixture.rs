//! Two nodes: one gives, the other was away.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rejoin_lab::link::TransferPath;
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::page_cache::{forget_all, read_all};
use rejoin_lab::{Cluster, Node, compare, copy_tree, data};

use super::{Options, PATIENCE, pairs, sysbench_run, transactions};
use crate::commands::bench::fixture as bench;

/// Transactions that purge may leave: a few are no matter.
const PURGE_LEAVES: u64 = 50;

pub const TABLES: u32 = 4;

pub struct Fixture {
    path: Option<TransferPath>,
    cluster: Cluster,
    rows: u32,
    rand_type: String,
    /// The joiner's datadir as it was when it left.
    old: PathBuf,
}

impl Fixture {
    /// Two members, the second with a fresh copy of the first one's data.
    pub fn make(options: &Options) -> Result<Self> {
        // Appliers as on a busy cluster: rows of one page are written in another order.
        let builder = bench::builder(2, &options.sst).mysqld("wsrep_slave_threads=4");
        let builder = options.mysqld.iter().fold(builder, |builder, line| builder.mysqld(line));
        let cluster = options.link.prepare(builder.provider("gcache.size", "256M")).build()?;
        let old = cluster.dir().join("old");
        let (rows, rand_type) = (data::rows_of(options.megabytes, TABLES)?, options.rand_type.clone());
        let mut fixture = Self { path: None, cluster, rows, rand_type, old };
        fixture.donor().bootstrap()?;
        data::sysbench_tables(fixture.donor(), TABLES, rows)?;
        data::small_tables(fixture.donor(), "many", options.small_tables)?;
        fixture.joiner().wipe()?;
        fixture.joiner().join()?;
        fixture.donor().wait_synced_again(Duration::from_secs(60))?;
        fixture.path = options.link.put_between([fixture.donor(), fixture.joiner()])?;
        Ok(fixture)
    }

    /// The link that transfers pass, if they do not pass loopback.
    pub fn path(&self) -> Option<&TransferPath> {
        self.path.as_ref()
    }

    pub fn donor(&self) -> &Node {
        self.cluster.node(1)
    }

    pub fn joiner(&self) -> &Node {
        self.cluster.node(2)
    }

    /// The joiner's datadir as it was when it left.
    pub fn old(&self) -> &Path {
        &self.old
    }

    /// Rewrites rows while both are members. Answers the number of transactions.
    pub fn rewrite(&self, times: f64) -> Result<u64> {
        let events = transactions(self.rows, times);
        sysbench_run(self.donor(), self.rows, &self.rand_type, events)?;
        compare::wait_caught_up(self.donor(), self.joiner(), PATIENCE)?;
        for node in [self.donor(), self.joiner()] {
            compare::wait_purged(node, PURGE_LEAVES, PATIENCE)?;
        }
        Ok(events)
    }

    pub fn leave(&self) -> Result<()> {
        self.joiner().stop()?;
        copy_tree(&self.joiner().datadir(), &self.old)
    }

    /// Rewrites rows of the donor alone.
    pub fn change(&self, times: f64) -> Result<()> {
        sysbench_run(self.donor(), self.rows, &self.rand_type, transactions(self.rows, times))?;
        compare::wait_purged(self.donor(), PURGE_LEAVES, PATIENCE)
    }

    /// As [`Fixture::change`], rows of so many pages: see [`data::rewrite_pages`].
    pub fn change_pages(&self, before: f64, after: f64) -> Result<()> {
        data::rewrite_pages(self.donor(), TABLES, before, after)?;
        compare::wait_purged(self.donor(), PURGE_LEAVES, PATIENCE)
    }

    /// The joiner as it was when it left, nothing to flush on the donor, and all files in the page cache.
    pub fn prepare(&self, method: &str) -> Result<()> {
        ensure!(!self.joiner().is_alive(), "the joiner runs");
        std::fs::remove_dir_all(self.joiner().datadir())?;
        copy_tree(&self.old, &self.joiner().datadir())?;
        self.joiner().remove_grastate()?;
        let method = format!("SET GLOBAL wsrep_sst_method='{method}'");
        self.donor().exec(&[&method])?;
        self.donor().checkpoint()?;
        rustix::fs::sync();
        self.read_both(false).map(drop)
    }

    /// Reads both datadirs at once: how long that takes, in seconds. The donor's from the page cache, or `from_disk`: its server
    /// reads and writes past the page cache, so that nothing of it is there on a host of its own.
    pub fn read_both(&self, from_disk: bool) -> Result<f64> {
        let donors = self.donor().datadir();
        if from_disk {
            forget_all(&donors)?;
        }
        let joiners = self.joiner().datadir();
        let began = Instant::now();
        std::thread::scope(|scope| {
            let ours = scope.spawn(|| read_all(&donors));
            let theirs = read_all(&joiners);
            ours.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?.and(theirs)
        })?;
        Ok(began.elapsed().as_secs_f64())
    }

    pub fn megabytes(&self) -> Result<f64> {
        Ok(data::disk_bytes(&self.donor().datadir())? as f64 / 1e6)
    }

    /// The pages in which the joiner, stopped after a join, differs from what it was.
    pub fn pages(&self) -> Result<pairs::Count> {
        pairs::count(&self.old, &self.joiner().datadir())
    }

    pub fn clients(&self) -> Result<Load> {
        let pause = Duration::from_millis(2);
        Load::start(self.donor(), Intensity { threads: 2, tables: TABLES, rows: self.rows, pause })
    }
}
