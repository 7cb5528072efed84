//! Three nodes with the data that is transferred.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::load::{Intensity, Load, LoadReport};
use rejoin_lab::{Builder, Cluster, Node, data};

use super::Options;
use super::contender::Contender;

const TABLES: u32 = 4;
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
    cluster: Cluster,
    rows: u32,
    writers: u32,
    cold: bool,
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
        let cluster = builder.provider("gcache.size", "512M").build()?;
        let rows = data::rows_of(options.megabytes, TABLES)?;
        let fixture = Self { cluster, rows, writers: options.writers, cold: options.cold };
        fixture.donor().bootstrap()?;
        data::sysbench_tables(fixture.donor(), TABLES, fixture.rows)?;
        fixture.other().wipe()?;
        fixture.other().join()?;
        fixture.donor().wait_synced_again(Duration::from_secs(60))?;
        Ok(fixture)
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

    /// Makes everything as it is before any join: nothing on the joiner, nothing to flush on the donor, whose files the
    /// page cache holds, or none of them when it is cold. (A server that writes past the cache drops from it what it writes,
    /// and never brings anything into it.)
    pub fn prepare(&self, contender: Contender) -> Result<()> {
        self.joiner().wipe()?;
        self.donor().add_options("sst", contender.settings())?;
        let method = format!("SET GLOBAL wsrep_sst_method='{}'", contender.method());
        for node in [self.donor(), self.other()] {
            node.exec(&[&method])?;
            node.checkpoint()?;
        }
        rustix::fs::sync();
        let donors = self.donor().datadir();
        if self.cold { forget_all(&donors) } else { read_all(&donors) }
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

/// Reads everything there is: the page cache has it then.
pub fn read_all(dir: &Path) -> Result<()> {
    each_file(dir, &|file| io::copy(file, &mut io::sink()).map(drop))
}

/// Has the page cache forget everything that is on disk.
pub fn forget_all(dir: &Path) -> Result<()> {
    let forget = |file: &mut fs::File| rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::DontNeed);
    each_file(dir, &|file| Ok(forget(file)?))
}

/// Files may go meanwhile.
fn each_file(dir: &Path, visit: &dyn Fn(&mut fs::File) -> io::Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            each_file(&path, visit)?;
        } else if let Ok(mut file) = fs::File::open(&path) {
            visit(&mut file).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
