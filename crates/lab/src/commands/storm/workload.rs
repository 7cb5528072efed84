//! Everything that goes on while a node joins.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use rejoin_lab::ddl::{Repertoire, Storm, write_swapped};
use rejoin_lab::load::{Intensity, Load, LoadReport, Sysbench};
use rejoin_lab::repeated::Repeated;
use rejoin_lab::{Node, sql};

use super::Options;
use super::case::Besides;
use super::fixture::Fixture;

/// Sysbench tables.
pub const TABLES: u32 = 4;

/// DDL, sysbench and writers of the tables that swap their names, under way.
pub struct Workload {
    storms: Vec<Repeated>,
    writers: Vec<Repeated>,
    besides: Besides,
    sysbench: Option<Sysbench>,
}

/// What it was like.
pub struct Passed {
    /// Transactions of sysbench each second.
    pub tps: f64,
    /// What the case has to say.
    pub besides: Option<String>,
}

impl Workload {
    pub fn start(fixture: &Fixture, options: &Options, rng: &mut Rng) -> Result<Self> {
        let nodes = [fixture.donor(), fixture.other()];
        let besides = fixture.case.start(fixture.donor())?;
        let mut storms = Vec::new();
        for (i, node) in nodes.into_iter().enumerate() {
            let (every, seed) = (Duration::from_millis(options.ddl_every), rng.u64(..));
            let repertoire = Repertoire::Shared { node: i + 1 };
            if !every.is_zero() {
                storms.push(Storm { seed, every, repertoire }.start(node)?);
            }
        }
        let writers = nodes.into_iter().map(|node| write_swapped(node, rng.u64(..)));
        let writers = writers.collect::<Result<_>>()?;
        let sysbench = (options.sysbench_threads > 0)
            .then(|| Sysbench::start(fixture.donor(), TABLES, options.rows, options.sysbench_threads))
            .transpose()?;
        Ok(Self { storms, writers, besides, sysbench })
    }

    /// DDL statements that succeeded so far.
    pub fn ddl(&self) -> u64 {
        self.storms.iter().map(Repeated::done).sum()
    }

    pub fn stop(self, donor: &Node) -> Result<Passed> {
        self.storms.iter().chain(&self.writers).for_each(Repeated::halt);
        self.besides.halt();
        let tps = self.sysbench.map_or(Ok(0.0), Sysbench::stop)?;
        let all = self.storms.into_iter().chain(self.writers);
        all.map(Repeated::stop).try_for_each(|stopped| stopped.map(drop))?;
        Ok(Passed { tps, besides: self.besides.finish(donor)? })
    }
}

/// Connections that measure what clients of both nodes feel.
pub struct Probes {
    donor: Load,
    other: Load,
}

impl Probes {
    pub fn start(fixture: &Fixture, options: &Options) -> Result<Self> {
        let pause = Duration::from_millis(5);
        let intensity = Intensity { threads: 1, tables: TABLES, rows: options.rows, pause };
        let (donor, other) = (fixture.donor(), fixture.other());
        Ok(Self { donor: Load::start(donor, intensity)?, other: Load::start(other, intensity)? })
    }

    /// Donor, other.
    pub fn stop(self) -> Result<(LoadReport, LoadReport)> {
        Ok((self.donor.stop()?, self.other.stop()?))
    }
}

/// When the donor gave: what its clients feel then is the transfer's doing. Before and after it the group takes the
/// joiner in, which stalls all commits for up to seconds by itself, whatever the method.
pub struct Giving {
    watch: Repeated,
    seen: Arc<Mutex<Option<(Instant, Instant)>>>,
}

impl Giving {
    /// `wsrep_local_state` of a node that gives a state.
    pub const DONOR: &str = "2";

    pub fn watch(donor: &Node) -> Result<Self> {
        let seen = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&seen);
        let watch = Repeated::start(donor, "giving", Duration::from_millis(10), move |conn| {
            let asked = Instant::now();
            if sql::status(conn, "wsrep_local_state")? == Self::DONOR {
                let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                *seen = Some((seen.map_or(asked, |(from, _)| from), asked));
            }
            Ok(())
        })?;
        Ok(Self { watch, seen })
    }

    /// From when to when; `None` when it never gave.
    pub fn stop(self) -> Result<Option<(Instant, Instant)>> {
        self.watch.stop()?;
        Ok(*self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
