//! One join, measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::page_cache;
use rejoin_lab::usage::{CpuSeconds, PeakMemory};
use rejoin_lab::wire::Wire;

use super::ceilings::Ceilings;
use super::contender::{Case, Contender};
use super::fixture::{Cat, Felt, Fixture};
use super::limit::Nearness;
use super::samples::{Samples, Used};
use crate::commands::observed::{Observed, wait_for_programs};
use crate::commands::record::Counted;
use crate::commands::storm::log_report::{LogReport, SnapshotKind};

/// How long clients are watched without a join.
const CALM: Duration = Duration::from_secs(8);
/// How long programs may go on after the joiner is Synced.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a join took and cost.
pub struct Trial {
    pub contender: Contender,
    pub case: Case,
    pub repetition: u32,
    pub observed: Observed,
    /// Bytes on the connections of the transfer.
    pub wire: u64,
    /// Processor seconds of the programs on both hosts.
    pub programs: f64,
    /// Processor seconds of the donor's server.
    pub server: f64,
    /// The most that the donor's and the joiner's programs had in memory at once.
    pub memory: [u64; 2],
    /// Bytes of the donor's data in the page cache, before and after.
    pub cached: [u64; 2],
    /// What rejoin read and remembered, on the donor and the joiner.
    pub counted: Option<[Counted; 2]>,
    /// Bytes of the donor's data.
    pub data: u64,
    /// What the machine did during the transfer, and from the joiner's start to Synced.
    pub transfer: Used,
    pub synced: Used,
    /// What the machine can do.
    pub ceilings: Ceilings,
    /// How long reading takes, where the joiner has the same files.
    pub cat: Option<Cat>,
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

/// Which join it is.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    pub contender: Contender,
    pub case: Case,
    pub repetition: u32,
    pub ceilings: &'a Ceilings,
    pub cat: Option<Cat>,
}

impl Trial {
    pub fn run(fixture: &Fixture, turn: Turn<'_>) -> Result<Self> {
        let Turn { contender, case, repetition, ceilings, cat } = turn;
        fixture.prepare(contender, case)?;
        let loaded = case == Case::Loaded;
        let calm = if loaded { Some(calm(fixture)?) } else { None };
        let clients = if loaded { Some(fixture.clients()?) } else { None };
        let (donor, joiner) = (fixture.donor(), fixture.joiner());
        let pid = donor.pid().context("the donor is down")?;
        let (data, cached) = (fixture.data_bytes()?, page_cache::cached(&donor.datadir())?);
        let (wire, memory) = (Wire::of_transfers_to(joiner)?, PeakMemory::watch(pid)?);
        let samples = Samples::start(&donor.datadir())?;
        let before = CpuSeconds::of(pid)?;
        let began = Instant::now();
        let method = format!("--wsrep-sst-method={}", contender.method());
        let (observed, joiner_memory) = Observed::join_watched(donor, joiner, &[&method], PeakMemory::watch)?;
        let during = clients.map(|clients| Ok::<_, anyhow::Error>((clients.stop()?, began.elapsed())));
        let during = during.transpose()?;
        let history = samples.stop()?;
        let cached = [cached, page_cache::cached(&donor.datadir())?];
        // Only what has ended is in the sums.
        [donor, joiner].into_iter().try_for_each(|node| wait_for_programs(node, PATIENCE))?;
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
        let (wire, memory) = (wire.stop()?, [memory.stop()?, joiner_memory.stop()?]);
        let counted = match contender.is_rejoin() {
            true => Some([Counted::on(donor)?, Counted::on(joiner)?]),
            false => None,
        };
        let trial = Self {
            contender,
            case,
            repetition,
            wire,
            programs: used.children + joiners.children,
            server: used.own,
            memory,
            cached,
            counted,
            data,
            transfer: history.used(observed.transferring()?)?,
            synced: history.used(observed.whole())?,
            ceilings: *ceilings,
            cat,
            clients,
            observed,
        };
        trial.check_what_was_read()?;
        if !case.is_full() && contender.is_rejoin() {
            joiner.wait_tidy()?;
        }
        joiner.stop()?;
        Ok(trial)
    }

    /// How close the transfer was to the machine's ceilings.
    pub fn transfer_nearness(&self) -> Nearness {
        Nearness::of(&self.transfer, self.wire, &self.ceilings)
    }

    /// How close the join was to them, from the joiner's start to Synced.
    pub fn synced_nearness(&self) -> Nearness {
        Nearness::of(&self.synced, self.wire, &self.ceilings)
    }

    /// Where nothing has changed the joiner has the same files, and both hosts remember them, or do not.
    fn check_what_was_read(&self) -> Result<()> {
        let Some(counted) = self.counted.filter(|_| self.case == Case::Same) else { return Ok(()) };
        ensure!(
            self.wire < self.data / 10,
            "{} of {} bytes were sent: not the same files",
            self.wire,
            self.data
        );
        let remembered = counted.iter().all(|host| host.remembered > 0);
        let nothing = counted.iter().all(|host| host.remembered == 0);
        ensure!(
            if self.contender == Contender::Unremembered { nothing } else { remembered },
            "{}: {counted:?} on donor and joiner",
            self.contender.name()
        );
        Ok(())
    }
}

fn calm(fixture: &Fixture) -> Result<(Felt, Duration)> {
    let clients = fixture.clients()?;
    let began = Instant::now();
    std::thread::sleep(CALM);
    Ok((clients.stop()?, began.elapsed()))
}

/// A figure of something else is worse than none.
fn check(fixture: &Fixture, contender: Contender, observed: &Observed) -> Result<()> {
    observed.ran(contender.method())?;
    let snapshot = LogReport::read(&observed.donor_log()).snapshot;
    match (contender, &snapshot) {
        (Contender::Rejoin | Contender::Unremembered, Some(SnapshotKind::Online))
        | (Contender::Frozen, Some(SnapshotKind::Blocking(_))) => {}
        (Contender::Rsync | Contender::RsyncWan | Contender::Mariabackup, None) => {}
        _ => anyhow::bail!("{} took the snapshot {snapshot:?}", contender.name()),
    }
    let errors = fixture.joiner().unexpected_errors(&[]);
    ensure!(errors.is_empty(), "errors in the joiner's log:\n{}", errors.join("\n"));
    Ok(())
}
