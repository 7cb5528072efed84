//! One round: a join, a fault in it, and what must be true afterwards.
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Node, compare, process};
use rustix::process::Signal;

use super::afterwards::{self, wait};
use super::fault::{Fault, Moment, Part, Side, What};
use super::fixture::{self, Fixture, Room};
use super::survivors::Survivor;

/// A joiner's server that has neither ended nor become Synced until then never will: longer than the program waits for the
/// group's word.
const JOINERS_END: Duration = Duration::from_secs(90);
/// A busy machine takes its time.
const SST_BEGINS: Duration = Duration::from_secs(60);
/// Megabytes beside what is in use: for what differs, or not even for that.
const TIGHT: [u64; 3] = [40, 64, 90];

/// How a round ended.
pub struct Said {
    struck: bool,
    synced: bool,
    treated: Vec<String>,
    longest: Duration,
}

impl Said {
    pub fn kind(&self) -> String {
        let joiner = if self.synced { "was Synced" } else { "ended" };
        let struck = if self.struck { "" } else { " before the fault" };
        format!("joiner {joiner}{struck}")
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, commits waited at most {:.1} s", self.kind(), self.longest.as_secs_f64())?;
        self.treated.iter().try_for_each(|what| write!(f, "; {what}"))
    }
}

/// The provider's own, after which some versions neither serve nor end (mariadb-corporation/galera#385, PXC-4845).
const IST_FAILED: &str = "Receiving IST failed, node restart required";

/// Runs one on a cluster whose joiner is down.
pub fn run(fixture: &Fixture, fault: &Fault, number: u64, rng: &mut Rng) -> Result<Said> {
    let (donor, other, joiner) = (fixture.donor(), fixture.other(), fixture.joiner());
    fixture.known.set(None);
    let room = prepare(fixture, number, rng)?;
    let survivor = Survivor::watch(other, fixture.rows)?;
    let second = match fault.strikes_donors_server() {
        true => None,
        false => Some(Survivor::watch(donor, fixture.rows)?),
    };
    joiner.begin(&[])?;
    let struck = wait_for(joiner, fault.moment)?;
    if struck {
        strike(fixture, fault)?;
        if let Some(pause) = fault.second {
            std::thread::sleep(pause);
            let node = if fault.side == Side::Donor { joiner } else { donor };
            node.sst_processes().iter().for_each(|seen| process::signal(seen.pid, Signal::KILL));
        }
    }
    let synced = outcome(joiner).inspect_err(|_| {
        if joiner.log_since_start().contains(IST_FAILED) {
            fixture.known.set(Some(
                "the IST after the transfer fails, and the joiner's server stays without its group",
            ));
        }
    })?;
    ensure!(
        struck || synced || room != Room::Enough,
        "the join failed without a fault\n{}",
        process::tail(&joiner.log_since_start(), 40)
    );
    // What the last member's end does to the others shows a moment later.
    std::thread::sleep(Duration::from_millis(500));
    let mut longest = survivor.survived()?;
    if let Some(second) = second {
        longest = longest.max(second.survived()?);
    }
    // A server that hangs, and members that lose their group, may be the servers' own fault; what follows never is.
    fixture.known.set(None);
    fixture.donors_room(Room::Enough)?;
    fixture.joiners_room(Room::Enough)?;
    if !donor.is_alive() {
        wait("the donor's program ended", || donor.sst_processes().is_empty())?;
        donor.join().context("the donor comes back")?;
    }
    // Who was killed leaves marks, which must be in nobody's way.
    let killed = match fault.side {
        Side::Donor => matches!(fault.what, What::Kill(_)),
        Side::Joiner => fault.second.is_some(),
    };
    let marks: &[&str] = if killed { &[] } else { &["sst_in_progress", "wsrep_sst.pid"] };
    afterwards::donor_is_free(donor, marks)?;
    let treated = match synced {
        true => Vec::new(),
        false => afterwards::handle(fixture, number, rng)?,
    };
    // Without this the next round meets what this one left.
    if synced || rng.u32(0..3) > 0 {
        complete(fixture, number, synced)?;
    }
    end(joiner, rng)?;
    Ok(Said { struck, synced, treated, longest })
}

/// The joiner is down and has an old state; the members have a new one.
fn prepare(fixture: &Fixture, number: u64, rng: &mut Rng) -> Result<Room> {
    let joiner = fixture.joiner();
    let mut room = Room::Enough;
    ensure!(!joiner.is_alive(), "the joiner runs");
    fixture.mark(number)?;
    fixture.change(rng)?;
    // No IST: what is not replicated would stay behind.
    joiner.remove_grastate()?;
    if rng.u32(0..8) == 0 {
        for entry in std::fs::read_dir(joiner.datadir())? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }?;
        }
    } else if rng.u32(0..5) == 0 {
        room = Room::Left(TIGHT[rng.usize(0..TIGHT.len())]);
        fixture.joiners_room(room)?;
    }
    let snapshot = ["online", "online", "online", "blocking"][rng.usize(0..4)];
    let incremental = u8::from(rng.u32(0..6) > 0);
    let rate = ["4G", "4M", "20M"][rng.usize(0..3)];
    for node in [fixture.donor(), fixture.other()] {
        let rate = format!("rlimit={rate}");
        let (snapshot, incremental) = (format!("snapshot={snapshot}"), format!("incremental={incremental}"));
        node.add_options("sst", &[&rate, "compress=none", &snapshot, &incremental])?;
    }
    let keep = ["until-synced", "always", "never"][rng.usize(0..6).saturating_sub(3)];
    joiner.add_options("sst", &[&format!("keep-previous={keep}")])?;
    Ok(room)
}

/// Waits for the moment of the fault. Not when the join is over before.
fn wait_for(joiner: &Node, moment: Moment) -> Result<bool> {
    // Not before: of a node that is no member of the primary component yet the group knows nothing.
    joiner.wait_log("--role 'joiner'", SST_BEGINS)?;
    let began = Instant::now();
    let status = StatusReader::of_next(joiner);
    let record = joiner.datadir().join("#sql-rejoin/install.json");
    let reached = || match moment {
        Moment::AfterStart(time) => began.elapsed() >= time,
        Moment::InPhase(phase, _) => status.read().is_some_and(|status| status.phase.starts_with(phase)),
        Moment::InInstall(_) => record.exists(),
    };
    let mut looks = 0u32;
    while !reached() {
        ensure!(began.elapsed() < JOINERS_END, "the join did not reach the moment of the fault");
        looks += 1;
        // Not too often: it is a login.
        if looks.is_multiple_of(200) && (!joiner.is_alive() || joiner.is_synced()) {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Moment::InPhase(_, time) | Moment::InInstall(time) = moment {
        std::thread::sleep(time);
    }
    Ok(true)
}

/// What happens between the end of the joiner's program and Synced is between the servers (docs/server-contract.md).
fn known_fault(joiner: &Node, fault: &Fault) -> Option<&'static str> {
    let programs = joiner.sst_processes();
    let over = !programs.iter().any(|seen| seen.command.contains("wsrep_sst_"));
    let told = matches!(fault.what, What::Terminate(part) if part != Part::Program);
    match fault.side {
        _ if !over => None,
        Side::Joiner if told => Some("a joiner's server that is told to stop while it starts hangs"),
        Side::Donor if fault.strikes_donors_server() => {
            Some("a joiner whose donor is lost before the IST leaves the group at once")
        }
        _ => None,
    }
}

fn strike(fixture: &Fixture, fault: &Fault) -> Result<()> {
    fixture.known.set(known_fault(fixture.joiner(), fault));
    let node = match fault.side {
        Side::Donor => fixture.donor(),
        Side::Joiner => fixture.joiner(),
    };
    let pids = |part: Part| -> Vec<u32> {
        let programs = node.sst_processes().into_iter().map(|seen| seen.pid);
        match part {
            Part::Program => programs.collect(),
            Part::Server => node.pid().into_iter().collect(),
            Part::Host => node.pid().into_iter().chain(programs).collect(),
        }
    };
    let send = |pids: &[u32], signal: Signal| pids.iter().for_each(|&pid| process::signal(pid, signal));
    match fault.what {
        What::Kill(part) => send(&pids(part), Signal::KILL),
        What::Terminate(part) => send(&pids(part), Signal::TERM),
        What::Stop(part, time) => {
            let pids = pids(part);
            send(&pids, Signal::STOP);
            std::thread::sleep(time);
            send(&pids, Signal::CONT);
        }
        What::Cut(time) => {
            node.cut()?;
            std::thread::sleep(time);
            node.reconnect()?;
        }
        What::FillDisk(time) => {
            let room = |room| match fault.side {
                Side::Donor => fixture.donors_room(room),
                Side::Joiner => fixture.joiners_room(room),
            };
            room(Room::Left(0))?;
            std::thread::sleep(time);
            room(Room::Enough)?;
        }
    }
    Ok(())
}

/// The joiner's server ends, or is Synced.
fn outcome(joiner: &Node) -> Result<bool> {
    let began = Instant::now();
    while joiner.is_alive() && !joiner.is_synced() {
        ensure!(
            began.elapsed() < JOINERS_END,
            "the joiner's server neither serves nor ends; programs: {:?}\n{}",
            joiner.sst_processes(),
            process::tail(&joiner.log_since_start(), 20)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let synced = joiner.is_alive();
    if !synced {
        wait("the joiner's program ended", || joiner.sst_processes().is_empty())?;
    }
    Ok(synced)
}

/// The next join brings the node in, and everything is equal.
fn complete(fixture: &Fixture, number: u64, synced: bool) -> Result<()> {
    let joiner = fixture.joiner();
    if !synced {
        joiner.remove_grastate()?;
        joiner.join().context("the next join")?;
    }
    let found = compare::compare_all(&[fixture.donor(), fixture.other()], joiner)?;
    let wrong: Vec<String> =
        found.beside.iter().flatten().chain(&found.damage).take(20).map(ToString::to_string).collect();
    ensure!(wrong.is_empty(), "not equal:\n{}", wrong.join("\n"));
    let state = fixture::state_of(joiner)?;
    ensure!(state == number, "the joiner has the state {state}, not {number}");
    Ok(())
}

/// In order, or not.
fn end(joiner: &Node, rng: &mut Rng) -> Result<()> {
    if !joiner.is_alive() {
        return Ok(());
    }
    if rng.bool() {
        return joiner.stop();
    }
    joiner.kill();
    wait("what waited for Synced has ended", || joiner.sst_processes().is_empty())
}
