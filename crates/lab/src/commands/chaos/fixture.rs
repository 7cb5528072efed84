//! The cluster that rounds happen on.
use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use rejoin_lab::mounted::Mounted;
use rejoin_lab::places::User;
use rejoin_lab::{Cluster, Installation, Node, compare, data};

use super::Options;

pub const TABLES: u32 = 2;
/// Tables that say in each engine which state a datadir holds.
const MARKED: [&str; 3] = ["innodb", "aria", "myisam"];
/// Of a node's filesystem, when it is not full.
const MEGABYTES: u64 = 900;

/// The first node gives, the third joins; the second takes no part.
pub struct Fixture {
    // Before the cluster, whose directories they lie on.
    donors: Mounted,
    joiners: Mounted,
    pub cluster: Cluster,
    pub rows: u32,
    /// What the servers themselves are known to do wrong after such a fault, with every method.
    pub known: Cell<Option<&'static str>>,
}

/// The room a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// So many megabytes beside what is in use.
    Left(u64),
}

impl Fixture {
    pub fn new(options: &Options) -> Result<Fixture> {
        let builder = Cluster::builder().nodes(3).own_network();
        let builder = builder.mysqld_of(3, "wsrep_sst_donor=n1").mysqld_of(1, "wsrep_sst_donor=n2");
        let builder = builder.installation(Installation::of(options.newer)?);
        let cluster = builder.build()?;
        let user = User::for_servers()?;
        let donors = Mounted::small(&cluster.node(1).datadir(), MEGABYTES, user)?;
        let joiners = Mounted::small(&cluster.node(3).datadir(), MEGABYTES, user)?;
        let fixture = Fixture { donors, joiners, cluster, rows: options.rows, known: Cell::new(None) };
        fixture.donor().bootstrap()?;
        data::sysbench_tables(fixture.donor(), TABLES, options.rows)?;
        data::small_tables(fixture.donor(), "many", 60)?;
        fixture.donor().exec(&["CREATE DATABASE marked"])?;
        for engine in MARKED {
            fixture
                .donor()
                .exec(&[&format!("CREATE TABLE marked.{engine} (state BIGINT) ENGINE={engine}")])?;
        }
        fixture.other().join()?;
        fixture.joiner().join()?;
        fixture.mark(0)?;
        compare::wait_caught_up(fixture.donor(), fixture.joiner(), Duration::from_secs(30))?;
        fixture.joiner().stop()?;
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

    /// Writes the state's number on all nodes that run: what only InnoDB replicates, on each.
    pub fn mark(&self, state: u64) -> Result<()> {
        for node in self.cluster.nodes().iter().filter(|node| node.is_alive()) {
            for engine in ["aria", "myisam"] {
                let table = format!("marked.{engine}");
                node.exec(&[
                    "SET SESSION wsrep_on=OFF",
                    &format!("DELETE FROM {table}"),
                    &format!("INSERT INTO {table} VALUES ({state})"),
                    &format!("FLUSH TABLES {table}"),
                ])?;
            }
        }
        self.donor()
            .exec(&["DELETE FROM marked.innodb", &format!("INSERT INTO marked.innodb VALUES ({state})")])
    }

    /// Rows of every page, or of a few.
    pub fn change(&self, rng: &mut Rng) -> Result<()> {
        let one_in = [3, 50, 2000][rng.usize(0..3)];
        let table = rng.u32(1..=TABLES);
        self.donor().exec(&[
            &format!("UPDATE sbtest.sbtest{table} SET c = UUID() WHERE id % {one_in} = 0"),
            &format!("CREATE OR REPLACE TABLE many.made{} (a INT PRIMARY KEY)", rng.u32(0..5)),
            &format!("DROP TABLE IF EXISTS many.made{}", rng.u32(0..5)),
        ])
    }

    pub fn donors_room(&self, room: Room) -> Result<()> {
        give(&self.donors, room)
    }

    pub fn joiners_room(&self, room: Room) -> Result<()> {
        give(&self.joiners, room)
    }
}

fn give(mounted: &Mounted, room: Room) -> Result<()> {
    let megabytes = match room {
        Room::Enough => MEGABYTES,
        Room::Left(left) => mounted.used()?.div_ceil(1 << 20) + left,
    };
    mounted.resize(megabytes).with_context(|| format!("{room:?}"))
}

/// The number that a node's tables agree on.
pub fn state_of(node: &Node) -> Result<u64> {
    let mut states = Vec::new();
    for engine in MARKED {
        let state = node.value(&format!("SELECT state FROM marked.{engine}"));
        states.push(state.with_context(|| format!("marked.{engine} of {}", node.name()))?);
    }
    anyhow::ensure!(states.iter().all(|state| *state == states[0]), "{MARKED:?} have the states {states:?}");
    Ok(states[0].parse()?)
}
