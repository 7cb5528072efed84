//! One join, measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::Node;
use rejoin_lab::usage::{CpuSeconds, PeakMemory};
use rejoin_lab::wire::Wire;

use super::contender::Contender;
use super::fixture::{Felt, Fixture};
use crate::commands::observed::Observed;
use crate::commands::storm::log_report::{LogReport, SnapshotKind};

/// How long clients are watched without a join.
const CALM: Duration = Duration::from_secs(8);

/// What a join took and cost.
pub struct Trial {
    pub contender: Contender,
    pub repetition: u32,
    pub loaded: bool,
    pub observed: Observed,
    /// Bytes on the connections of the transfer.
    pub wire: u64,
    /// Processor seconds of the programs on both hosts.
    pub programs: f64,
    /// Processor seconds of the donor's server.
    pub server: f64,
    /// The most that the donor's programs had in memory at once.
    pub memory: u64,
    /// What clients felt, where there were any.
    pub clients: Option<Clients>,
}

/// What clients felt.
pub struct Clients {
    /// Without a join.
    pub calm: (Felt, Duration),
    /// During it.
    pub during: (Felt, Duration),
    /// The longest that a client of the donor waited while it gave.
    pub given: Duration,
}

impl Trial {
    pub fn run(fixture: &Fixture, contender: Contender, repetition: u32, loaded: bool) -> Result<Self> {
        fixture.prepare(contender)?;
        let calm = if loaded { Some(calm(fixture)?) } else { None };
        let clients = if loaded { Some(fixture.clients()?) } else { None };
        let (donor, joiner) = (fixture.donor(), fixture.joiner());
        let pid = donor.pid().context("the donor is down")?;
        let (wire, memory) = (Wire::listen(joiner.ports().sst())?, PeakMemory::watch(pid)?);
        let before = CpuSeconds::of(pid)?;
        let began = Instant::now();
        let method = format!("--wsrep-sst-method={}", contender.method());
        let observed = Observed::join(donor, joiner, &[&method])?;
        let during = clients.map(|clients| Ok::<_, anyhow::Error>((clients.stop()?, began.elapsed())));
        let during = during.transpose()?;
        // Only what has ended is in the sums.
        wait_for_programs(donor)?;
        wait_for_programs(joiner)?;
        let used = CpuSeconds::of(pid)?.since(before);
        let joiners = CpuSeconds::of(joiner.pid().context("the joiner is down")?)?;
        let clients = match calm.zip(during) {
            Some((calm, during)) => {
                let (from, to) = observed.giving()?;
                Some(Clients { given: during.0.donor.longest_within(from, to), calm, during })
            }
            None => None,
        };
        check(fixture, contender, &observed)?;
        let (wire, memory) = (wire.stop()?, memory.stop()?);
        joiner.stop()?;
        let programs = used.children + joiners.children;
        Ok(Self {
            contender,
            repetition,
            loaded,
            observed,
            wire,
            programs,
            server: used.own,
            memory,
            clients,
        })
    }
}

fn calm(fixture: &Fixture) -> Result<(Felt, Duration)> {
    let clients = fixture.clients()?;
    let began = Instant::now();
    std::thread::sleep(CALM);
    Ok((clients.stop()?, began.elapsed()))
}

fn wait_for_programs(node: &Node) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !node.sst_processes().is_empty() {
        ensure!(
            Instant::now() < deadline,
            "programs are left on {}: {:?}",
            node.name(),
            node.sst_processes()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A figure of something else is worse than none.
fn check(fixture: &Fixture, contender: Contender, observed: &Observed) -> Result<()> {
    observed.ran(contender.method())?;
    let snapshot = LogReport::read(&observed.donor_log()).snapshot;
    match (contender, &snapshot) {
        (Contender::Rejoin, Some(SnapshotKind::Online))
        | (Contender::Frozen, Some(SnapshotKind::Blocking(_))) => {}
        (Contender::Rsync | Contender::Mariabackup, None) => {}
        _ => anyhow::bail!("{} took the snapshot {snapshot:?}", contender.name()),
    }
    let errors = fixture.joiner().unexpected_errors(&[]);
    ensure!(errors.is_empty(), "errors in the joiner's log:\n{}", errors.join("\n"));
    Ok(())
}
