//! One join.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use rejoin_lab::Node;
use rejoin_lab::load::LoadReport;

use super::Options;
use super::case::{self, Case};
use super::fixture::Fixture;
use super::judge::{Logs, Verdict, Wrong};
use super::log_report::{LogReport, SnapshotKind};
use super::old_tables;
use super::workload::{Giving, Passed, Probes, Workload};

/// The time without a join is as long as the last join, within these.
const CALM: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(6));
/// How many reasons are shown of a wrong round.
const SHOWN: usize = 6;

/// The result of a round.
pub struct Round {
    number: usize,
    case: Case,
    /// What was wrong, if anything.
    pub wrong: Option<Wrong>,
    reasons: Vec<String>,
    /// From the joiner's start to Synced.
    pub joined: Option<Duration>,
    /// Clients of the donor: without a join, and during it.
    pub donor: (LoadReport, LoadReport),
    /// The longest that a client of the donor waited while it gave.
    pub given: Option<Duration>,
    /// Clients of the other node: the same as of the donor.
    pub other: (LoadReport, LoadReport),
    /// The p99 of the other node's clients while the donor gave.
    pub other_given: Option<Duration>,
    /// And when the joiner was a member like the others: one more slows commits by itself.
    pub other_after: Option<Duration>,
    /// DDL each second of both nodes during the join.
    ddl_rate: f64,
    tps: f64,
    /// What the donor told.
    pub told: LogReport,
    notes: Vec<String>,
    took: Duration,
}

/// Runs it: a time without a join, the join, an end to all writing, and the comparison.
pub fn run(fixture: &Fixture, options: &Options, number: usize, rng: &mut Rng) -> Result<Round> {
    let began = Instant::now();
    let joiner = fixture.joiner();
    // A new machine, or one that comes back with what it had.
    if number.is_multiple_of(2) || fixture.case == Case::Remembered {
        joiner.remove_grastate()?
    } else {
        joiner.wipe()?
    }
    let logs = Logs::from_now(fixture);
    let workload = Workload::start(fixture, options, rng)?;
    let calm_for = fixture.last_join.get().clamp(CALM.0, CALM.1);
    let without_join = || {
        let probes = Probes::start(fixture, options)?;
        std::thread::sleep(calm_for);
        probes.stop()
    };
    let calm = without_join()?;

    let probes = Probes::start(fixture, options)?;
    let giving = Giving::watch(fixture.donor())?;
    let ddl_before = workload.ddl();
    let started = Instant::now();
    joiner.begin(&[])?;
    let joined = joiner.wait_synced(options.patience());
    let took = started.elapsed();
    let ddl = workload.ddl() - ddl_before;
    let ended = took < options.patience();
    if !ended {
        // Clients of servers that hang get their end this way.
        fixture.nodes().into_iter().for_each(Node::kill);
    }
    let during = probes.stop()?;
    let given = giving.stop()?;
    let after = joined.is_ok().then(without_join).transpose()?;
    let workload = workload.stop(fixture.donor());

    let mut notes = Vec::new();
    let verdict = judge(fixture, options, &logs, &joined, ended, &workload, &mut notes)?;
    if let (Some(_), Some(dir)) = (&verdict, &options.evidence) {
        keep(fixture, &logs.texts(fixture), dir, number)?;
    }
    let tps = workload.map_or(0.0, |passed| passed.tps);
    if verdict.is_none() {
        ensure!(during.0.commits > 0, "nothing was committed on the donor: {:?}", during.0.last_error);
        ensure!(ddl > 0 || options.ddl_every == 0, "no DDL succeeded");
        fixture.last_join.set(took);
        joiner.stop()?;
    }
    let [donor_log, _, joiner_log] = logs.texts(fixture);
    let told = [donor_log, joiner_log].map(|log| LogReport::read(&log));
    let told = told.into_iter().find(|told| told.snapshot.is_some()).unwrap_or_default();
    let (wrong, reasons) = verdict.map_or((None, Vec::new()), |(wrong, reasons)| (Some(wrong), reasons));
    Ok(Round {
        number,
        case: fixture.case,
        wrong,
        reasons,
        joined: joined.ok(),
        given: given.map(|(from, to)| during.0.longest_within(from, to)),
        other_given: given.map(|(from, to)| during.1.p99_within(from, to)),
        other_after: after.map(|(_, other)| other.p99),
        donor: (calm.0, during.0),
        other: (calm.1, during.1),
        ddl_rate: ddl as f64 / took.as_secs_f64(),
        tps,
        told,
        notes,
        took: began.elapsed(),
    })
}

fn judge(
    fixture: &Fixture,
    options: &Options,
    logs: &Logs,
    joined: &Result<Duration>,
    ended: bool,
    workload: &Result<Passed>,
    notes: &mut Vec<String>,
) -> Result<Verdict> {
    if joined.is_err() {
        return Ok(Some(logs.why_not_joined(fixture, ended)));
    }
    let asked = format!("Running: 'wsrep_sst_{} --role 'joiner'", options.method);
    ensure!(logs.texts(fixture)[2].contains(&asked), "the joiner did not ask for a transfer");
    if fixture.case == Case::Import && case::leave_out_discarded(fixture.donor(), fixture.joiner())? {
        notes.push("copied between DISCARD and IMPORT".to_owned());
    }
    if fixture.case == Case::Remembered {
        notes.push(old_tables::remembered(fixture)?);
    }
    if logs.truncated_undo_first(fixture) {
        notes.push("the joiner's server truncated undo tablespaces before it read its position".to_owned());
    }
    let mut verdict = logs.after_joining(fixture);
    match workload {
        Ok(passed) => notes.extend(passed.besides.clone()),
        Err(error) => {
            let (_, reasons) = verdict.get_or_insert((Wrong::ThrownOut, Vec::new()));
            reasons.push(format!("{error:#}"));
        }
    }
    Ok(verdict)
}

fn keep(fixture: &Fixture, texts: &[String; 3], dir: &Path, number: usize) -> Result<()> {
    fs::create_dir_all(dir)?;
    // That method's program keeps the reason to itself.
    let own = fixture.donor().datadir().join("mariabackup.backup.log");
    if own.exists() {
        fs::copy(own, dir.join(format!("round{number}-mariabackup.log"))).context("evidence")?;
    }
    for node in [fixture.donor(), fixture.joiner()] {
        // The newest log of a transfer by rejoin, and which files are there.
        let mut logs: Vec<_> = fs::read_dir(node.datadir())?.flatten().map(|entry| entry.path()).collect();
        let of_transfer =
            |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("rejoin-"));
        logs.retain(|path| of_transfer(path) && path.extension().is_some_and(|e| e == "log"));
        logs.sort_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok());
        if let Some(last) = logs.last() {
            fs::copy(last, dir.join(format!("round{number}-transfer-{}.log", node.name())))
                .context("evidence")?;
        }
        let mut names = String::new();
        // A transfer that failed may have left nothing.
        for entry in fs::read_dir(node.datadir().join("storm")).into_iter().flatten().flatten() {
            names += &format!("{} {}\n", entry.file_name().to_string_lossy(), entry.metadata()?.len());
        }
        fs::write(dir.join(format!("round{number}-files-{}", node.name())), names).context("evidence")?;
    }
    for (i, text) in texts.iter().enumerate() {
        fs::write(dir.join(format!("round{number}-n{}.log", i + 1)), text).context("evidence")?;
    }
    Ok(())
}

/// Milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let case = format!("{:?}", self.case).to_lowercase();
        let outcome = self.wrong.map_or("equal".to_owned(), |wrong| wrong.to_string().to_uppercase());
        write!(f, "{:3} {case:9} {outcome:16}", self.number)?;
        if let Some(joined) = self.joined {
            write!(f, " joined in {:4.1} s;", joined.as_secs_f64())?;
        }
        let (donor, other) = (&self.donor, &self.other);
        write!(f, " donor's longest commit {:.0} ms before", ms(donor.0.longest))?;
        if let Some(given) = self.given {
            write!(f, ", {:.0} while it gave", ms(given))?;
        }
        write!(f, ", {:.0} during the join;", ms(donor.1.longest))?;
        write!(f, " other's p99 {:.0} ms before", ms(other.0.p99))?;
        if let Some(given) = self.other_given {
            write!(f, ", {:.0} while the donor gave", ms(given))?;
        }
        write!(f, ", {:.0} during the join", ms(other.1.p99))?;
        if let Some(after) = self.other_after {
            write!(f, ", {:.0} after it", ms(after))?;
        }
        write!(f, ";")?;
        write!(f, " {:.0} DDL/s, {:.0} tps;", self.ddl_rate, self.tps)?;
        match &self.told.snapshot {
            Some(SnapshotKind::Online) => write!(f, " online;")?,
            Some(SnapshotKind::Blocking(why)) => write!(f, " blocking ({why});")?,
            Some(SnapshotKind::Mariabackup) => write!(f, " mariabackup;")?,
            Some(SnapshotKind::Logical(why)) => write!(f, " logical ({why});")?,
            None => {}
        }
        if let Some(moment) = &self.told.moment {
            write!(f, " paused {:.0} ms, commits held {:.0} ms,", moment.paused, moment.commits_held)?;
            write!(f, " {} tries;", moment.tries)?;
        }
        self.notes.iter().try_for_each(|note| write!(f, " {note};"))?;
        write!(f, " {:.0} s", self.took.as_secs_f64())?;
        self.reasons.iter().take(SHOWN).try_for_each(|reason| write!(f, "\n      {reason}"))?;
        let more = self.reasons.len().saturating_sub(SHOWN);
        if more > 0 { write!(f, "\n      and {more} more") } else { Ok(()) }
    }
}
