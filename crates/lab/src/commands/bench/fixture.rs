//! Three nodes with the data that is transferred.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rejoin_lab::link::{Link, TransferPath};
use rejoin_lab::load::{Intensity, Load, LoadReport};
use rejoin_lab::page_cache::{self, forget_all, read_all};
use rejoin_lab::{Builder, Cluster, Node, compare, data};

use super::Options;
use super::ceilings::Ceilings;
use super::contender::{Case, Contender};
use crate::commands::SETTLED;

const TABLES: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(600);
/// Pages of the tables that change before each join of [`Case::Changed`], of 1.
const CHANGED: f64 = 0.4;
/// Transactions that purge may leave: a few are no matter.
const PURGE_LEAVES: u64 = 50;
/// The same for all nodes and methods.
pub const SETTINGS: [&str; 4] = [
    "innodb_buffer_pool_size=512M",
    "innodb_log_file_size=512M",
    "innodb_flush_log_at_trx_commit=2",
    "wsrep_slave_threads=2",
];

/// Nodes with these settings, and lines for `[sst]`.
pub fn builder(nodes: usize, sst: &[String]) -> Builder {
    let builder = Cluster::builder().nodes(nodes).method("rejoin");
    let builder = SETTINGS.iter().fold(builder, |builder, line| builder.mysqld(line));
    sst.iter().fold(builder, |builder, line| builder.sst(line))
}

/// n1 gives, n2 is another member, n3 joins.
pub struct Fixture {
    path: Option<TransferPath>,
    cluster: Cluster,
    rows: u32,
    writers: u32,
    cold: bool,
}

/// Seconds that `cat` takes for the data files of both nodes, whose joiner has the same as its donor.
#[derive(Debug, Clone, Copy)]
pub struct Cat {
    pub donor: f64,
    pub joiner: f64,
    /// Both at the same time: on this machine they share the disk and the processors.
    pub both: f64,
}

/// Clients under way.
pub struct Clients {
    donor: Load,
    other: Load,
}

/// What they saw.
pub struct Felt {
    /// Clients of the donor.
    pub donor: LoadReport,
    /// The client of the other node.
    pub other: LoadReport,
}

impl Fixture {
    /// Two members with data, and a third that is down.
    pub fn make(options: &Options) -> Result<Self> {
        let builder = builder(3, &options.sst).mysqld_of(3, "wsrep_sst_donor=n1");
        let builder = builder.provider("gcache.size", "512M");
        let cluster = options.link.prepare(builder).build()?;
        let rows = data::rows_of(options.megabytes, TABLES)?;
        let mut fixture = Self { path: None, cluster, rows, writers: options.writers, cold: options.cold };
        fixture.donor().bootstrap()?;
        data::sysbench_tables(fixture.donor(), TABLES, fixture.rows)?;
        fixture.other().wipe()?;
        fixture.other().join()?;
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

    pub fn other(&self) -> &Node {
        self.cluster.node(2)
    }

    pub fn joiner(&self) -> &Node {
        self.cluster.node(3)
    }

    /// Makes everything as it is before any join: nothing on the joiner, or what it has; nothing to flush on the donor, whose
    /// files the page cache holds, or none of them when it is cold. (A server that writes past the cache drops from it what it
    /// writes, and never brings anything into it.)
    pub fn prepare(&self, contender: Contender, case: Case) -> Result<()> {
        let joiner = self.joiner();
        if case.is_full() {
            joiner.wipe()?
        } else {
            joiner.remove_grastate()?
        }
        if case == Case::Changed {
            data::rewrite_pages(self.donor(), TABLES, 0.0, CHANGED)?;
            compare::wait_caught_up(self.donor(), self.other(), PATIENCE)?;
            compare::wait_purged(self.donor(), PURGE_LEAVES, PATIENCE)?;
        }
        [self.donor(), joiner].iter().try_for_each(|node| node.add_options("sst", contender.settings()))?;
        let method = format!("SET GLOBAL wsrep_sst_method='{}'", contender.method());
        for node in [self.donor(), self.other()] {
            node.exec(&[&method])?;
            node.checkpoint()?;
        }
        self.set_cache()
    }

    /// The page cache as each transfer finds it.
    fn set_cache(&self) -> Result<()> {
        rustix::fs::sync();
        for node in [self.donor(), self.joiner()] {
            if self.cold { forget_all(&node.datadir())? } else { read_all(&node.datadir())? }
        }
        Ok(())
    }

    /// Gives the joiner the donor's files by a transfer that does not count, and stops it. With `settled` files both hosts remember
    /// them afterwards.
    pub fn make_same(&self, settled: bool) -> Result<()> {
        compare::wait_purged(self.donor(), PURGE_LEAVES, PATIENCE)?;
        self.prepare(Contender::Rejoin, Case::Full)?;
        if settled {
            self.wait_settled()?;
        }
        let (donor, joiner) = (self.donor(), self.joiner());
        joiner.begin(&["--wsrep-sst-method=rejoin"])?;
        joiner.wait_synced(PATIENCE)?;
        donor.wait_synced_again(Duration::from_secs(60))?;
        joiner.wait_tidy()?;
        joiner.stop()
    }

    /// Waits until nobody has written to the donor's tables for a while.
    fn wait_settled(&self) -> Result<()> {
        let tables = page_cache::data_files(&self.donor().datadir().join(data::DATABASE))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let written = tables.iter().map(|path| Ok(path.metadata()?.modified()?));
            let newest = written.collect::<Result<Vec<SystemTime>>>()?.into_iter().max();
            if newest.context("no table")?.elapsed().unwrap_or_default() > SETTLED {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the donor's tables are written to all the time");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// How long reading takes, from where transfers read.
    pub fn cat(&self) -> Result<Cat> {
        let seconds = |nodes: &[&Node]| -> Result<f64> {
            self.set_cache()?;
            let datadirs: Vec<_> = nodes.iter().map(|node| node.datadir()).collect();
            Ok(page_cache::cat(&datadirs)?.as_secs_f64())
        };
        let (donor, joiner) = (self.donor(), self.joiner());
        Ok(Cat { donor: seconds(&[donor])?, joiner: seconds(&[joiner])?, both: seconds(&[donor, joiner])? })
    }

    /// What the machine can do, by the donor's files and others beside them.
    pub fn ceilings(&self, link: Option<Link>) -> Result<Ceilings> {
        self.donor().checkpoint()?;
        rustix::fs::sync();
        Ceilings::measure(&self.donor().datadir(), self.cluster.dir(), link)
    }

    /// Bytes of the donor's data on disk.
    pub fn data_bytes(&self) -> Result<u64> {
        Ok(page_cache::bytes_on_disk(&page_cache::data_files(&self.donor().datadir())?))
    }

    /// Writers on the donor, and one on the other node.
    pub fn clients(&self) -> Result<Clients> {
        let writers = |threads, pause| Intensity {
            threads,
            tables: TABLES,
            rows: self.rows,
            pause: Duration::from_millis(pause),
        };
        let donor = Load::start(self.donor(), writers(self.writers, 2))?;
        Ok(Clients { donor, other: Load::start(self.other(), writers(1, 5))? })
    }
}

impl Clients {
    /// Both have to have committed something.
    pub fn stop(self) -> Result<Felt> {
        let felt = Felt { donor: self.donor.stop()?, other: self.other.stop()? };
        for report in [&felt.donor, &felt.other] {
            ensure!(report.commits > 0, "nothing was committed: {:?}", report.last_error);
        }
        Ok(felt)
    }
}
