//! What the other members see while a round lasts.
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::repeated::Repeated;
use rejoin_lab::{Node, sql};

use super::fixture::TABLES;

/// Longer than a group takes to expel a silent member.
const LONGEST: Duration = Duration::from_secs(20);
/// How soon a write must be through when nothing happens any more.
const SOON: Duration = Duration::from_secs(10);

/// A member that takes no part: it is asked again and again, and written to.
pub struct Survivor<'a> {
    node: &'a Node,
    primary: Repeated,
    load: Load,
}

impl<'a> Survivor<'a> {
    pub fn watch(node: &'a Node, rows: u32) -> Result<Survivor<'a>> {
        let look = |conn: &mut mysql::Conn| {
            let state = sql::status(conn, "wsrep_cluster_status")?;
            ensure!(state == "Primary", "it was {state}");
            Ok(())
        };
        let primary = Repeated::start(node, "primary", Duration::from_millis(50), look)?;
        let pause = Duration::from_millis(20);
        let load = Load::start(node, Intensity { threads: 1, tables: TABLES, rows, pause })?;
        Ok(Survivor { node, primary, load })
    }

    /// It was Primary at every look, and takes a write. How long the one that waited longest did so.
    pub fn survived(self) -> Result<Duration> {
        let name = self.node.name();
        let (looks, load) = (self.primary.stop()?, self.load.stop()?);
        ensure!(looks.failed == 0 && looks.done > 0, "{name}: {looks:?}");
        ensure!(load.commits > 0, "nothing was committed on {name}: {:?}", load.last_error);
        ensure!(load.longest < LONGEST, "a commit on {name} took {:?}", load.longest);
        takes_a_write(self.node)?;
        Ok(load.longest)
    }
}

pub fn takes_a_write(node: &Node) -> Result<()> {
    let began = Instant::now();
    node.exec(&["INSERT INTO sbtest.sbtest1 (k, c, pad) VALUES (1, 'survived', '')"])
        .with_context(|| format!("{} refuses a write", node.name()))?;
    ensure!(began.elapsed() < SOON, "a write on {} took {:?}", node.name(), began.elapsed());
    Ok(())
}
