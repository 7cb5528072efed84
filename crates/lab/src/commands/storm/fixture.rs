//! The three nodes of a case.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use rejoin_lab::{Cluster, Installation, Node, data, ddl};

use super::Options;
use super::case::Case;
use super::old_tables;
use super::workload::TABLES;

/// A cluster that rounds of one case share.
pub struct Fixture {
    /// What it is made for.
    pub case: Case,
    cluster: Cluster,
    /// How long the last join took: the time without a join it is compared with is as long.
    pub last_join: Cell<Duration>,
}

impl Fixture {
    /// Two members with data, and a third that is down.
    pub fn make(case: Case, options: &Options) -> Result<Self> {
        let builder = Cluster::builder().nodes(3).method(&options.method).mysqld_of(3, "wsrep_sst_donor=n1");
        let builder = builder.provider("gcache.size", "128M");
        let builder = case.lines().iter().fold(builder, |builder, line| builder.mysqld(line));
        let builder = case.joiner_lines().iter().fold(builder, |builder, line| builder.mysqld_of(3, line));
        let builder = case.sst().iter().fold(builder, |builder, line| builder.sst(line));
        let builder = options.sst.iter().fold(builder, |builder, line| builder.sst(line));
        let builder = options.binary.iter().fold(builder, |builder, path| builder.binary(path));
        let builder = builder.installation(Installation::of(options.newer)?);
        let cluster = builder.build()?;
        case.furnish(&cluster)?;
        let (donor, other) = (cluster.node(1), cluster.node(2));
        donor.bootstrap()?;
        data::sysbench_tables(donor, TABLES, options.rows)?;
        ddl::create_shared(donor)?;
        case.create(donor)?;
        other.wipe()?;
        other.join()?;
        donor.wait_synced_again(Duration::from_secs(30))?;
        let fixture = Self { case, cluster, last_join: Cell::new(Duration::from_secs(4)) };
        if case == Case::Remembered {
            old_tables::remember(&fixture)?;
        }
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

    /// Donor, other, joiner.
    pub fn nodes(&self) -> [&Node; 3] {
        [self.donor(), self.other(), self.joiner()]
    }
}
