//! `rejoin archive`: keeps the write-sets that the provider's cache overwrites, and shows what is kept.
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};
use transfer::cancel::Cancel;
use transfer::clock::now_ms;
use transfer::datadir::owner::become_owner_of;
use transfer::datadir::recognise::require_datadir;
use transfer::failure::{Failure, Kind};
use transfer::human::{local_time, size, span};
use transfer::server::niceness::be_expendable;
use transfer::server::{log, parent};
use transfer::writesets::archive::{self, Archive, Gap, Retention, Run, Settings, Status, default_dir};
use transfer::writesets::ist::stand_in::{self, Told};
use transfer::writesets::store::WriteSetStore;

use super::answer::Answer;
use super::gcache::{bytes, duration, list_store, verify_archive};
use super::which::Which;

/// What of it.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Follow the server's write-set cache and archive what comes, until it is told to stop
    ///
    /// Strictly read-only for the server's files. Runs for months, beside the server or across its restarts, with the lowest
    /// priority. Where the provider's options have IST come in through rejoin (ist.recv_bind), it passes IST on while no state
    /// transfer does. Example: rejoin archive run --datadir /var/lib/mysql --keep-size 50G --keep-time 7d
    Run(RunOptions),
    /// Show ranges, gaps, size and rate, and how far the archive is behind the server
    Status(Shown),
    /// Read the whole archive and verify every checksum
    ///
    /// Exit code 5 when something is damaged; the seqnos are named.
    Verify(Shown),
    /// Print one line for each action of the newest range
    List(Shown),
    /// Remove the oldest segments of an archive that no archiver writes
    Prune(PruneOptions),
}

/// Whose archive.
#[derive(clap::Args)]
struct Of {
    #[command(flatten)]
    node: Which,
    /// The archive's directory; by default the datadir's name with -archive behind it, beside the datadir
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
}

/// How much is kept.
#[derive(clap::Args)]
struct Keep {
    /// Remove the oldest segments when the archive is larger than this (512M, 50G)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    keep_size: Option<u64>,
    /// Remove segments that were written longer ago than this (12h, 7d)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    keep_time: Option<Duration>,
}

#[derive(clap::Args)]
struct RunOptions {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    keep: Keep,
    /// Write nothing while the filesystem has less than this free
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "1G")]
    free_floor: u64,
}

#[derive(clap::Args)]
struct Shown {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    answer: Answer,
}

#[derive(clap::Args)]
struct PruneOptions {
    #[command(flatten)]
    of: Of,
    #[command(flatten)]
    keep: Keep,
    #[command(flatten)]
    answer: Answer,
}

/// Does it.
pub fn run(options: &Options) -> Result<()> {
    match &options.command {
        Command::Run(options) => archive_run(options),
        Command::Status(shown) => status(shown),
        Command::Verify(shown) => verify(shown),
        Command::List(shown) => {
            let archive = Archive::open(&place(&shown.of)?)?;
            list_store(&archive, shown.answer.is_json())
        }
        Command::Prune(options) => prune(options),
    }
}

/// The archive's directory, as the user who owns it.
fn place(of: &Of) -> Result<PathBuf> {
    let dir = match &of.archive {
        Some(dir) => dir.clone(),
        None => default_dir(&of.node.wanted()?.layout()?.datadir),
    };
    if !dir.is_dir() {
        let text = format!("there is no archive {}", dir.display());
        bail!(
            Failure::new(Kind::Configuration, text)
                .hint("rejoin archive run makes one; --archive names another")
        );
    }
    become_owner_of(&dir)?;
    Ok(dir)
}

impl Keep {
    fn retention(&self) -> Retention {
        Retention { bytes: self.keep_size, time: self.keep_time }
    }
}

fn archive_run(options: &RunOptions) -> Result<()> {
    let wanted = options.of.node.wanted()?;
    let datadir = wanted.layout()?.datadir;
    let ring = wanted.cache_file()?;
    let dir = options.of.archive.clone().unwrap_or_else(|| default_dir(&datadir));
    make(&dir, &datadir)?;
    become_owner_of(&datadir)?;
    require_datadir(&datadir)?;
    archive::refuse_inside(&datadir, &dir)?;
    log::begin_without_file();
    be_expendable();
    let cancel = Cancel::new();
    parent::stop_on_signals(&cancel)?;
    let ist = Told::default();
    let find = {
        let datadir = datadir.clone();
        Box::new(move || wanted.ist_endpoints(&datadir))
    };
    let stand_in = stand_in::start(datadir.clone(), find, ist.clone(), cancel.clone())?;
    let keep = options.keep.retention();
    let settings = Settings { datadir, ring, dir, keep, free_floor: options.free_floor, ist };
    let archived = archive::run(&settings, &cancel);
    cancel.cancel(Kind::Stopped, "the archiver has ended");
    let _ = stand_in.join();
    match archived {
        // Told to: that is how it ends.
        Err(error) if transfer::failure::kind_of(&error) == Kind::Stopped => Ok(()),
        ended => ended,
    }
}

/// Makes the archive's directory, of the datadir's owner, where it is not there yet.
fn make(dir: &Path, datadir: &Path) -> Result<()> {
    let cannot = || format!("cannot create the archive {}", dir.display());
    match std::fs::DirBuilder::new().mode(0o750).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.with_context(cannot)?,
    }
    let owner = std::fs::metadata(datadir).with_context(|| datadir.display().to_string())?;
    // Only root can give it away, and nobody else needs to.
    if transfer::server::privileges::is_root() {
        std::os::unix::fs::lchown(dir, Some(owner.uid()), Some(owner.gid())).with_context(cannot)?;
    }
    Ok(())
}

fn status(shown: &Shown) -> Result<()> {
    let dir = place(&shown.of)?;
    let archive = Archive::open(&dir)?;
    let told = Status::read(&dir);
    let (runs, gaps) = archive.runs();
    let (on_disk, raw) = archive.bytes();
    let torn: u64 = archive.segments().iter().map(|segment| segment.torn).sum();
    let mut lines = vec![
        format!("archive        {}", dir.display()),
        format!("archiver       {}", told.as_ref().map_or("never ran".to_owned(), archiver)),
    ];
    lines.extend(runs.iter().map(|run| {
        format!(
            "seqnos         {} to {} of {}, archived {} to {}",
            run.first,
            run.last,
            run.history,
            local_time(run.first_ms),
            local_time(run.last_ms)
        )
    }));
    lines.extend(gaps.iter().map(|gap| format!("gap            {}", gap_text(gap))));
    let damage = archive.damage();
    lines.extend(damage.iter().map(|text| format!("damaged        {text}")));
    lines.push(format!(
        "size           {} in {} segments, {} before compression",
        size(on_disk),
        archive.segments().len(),
        size(raw)
    ));
    if torn > 0 {
        lines.push(format!("torn           {} that an archiver was writing when it was killed", size(torn)));
    }
    let newest = runs.last();
    if let Some(run) = newest {
        lines.push(format!("reaches back   {}", reach(run)));
    }
    let lag = told.as_ref().and_then(|told| lag(told, newest));
    if let Some(told) = told.as_ref().filter(|told| told.is_running()) {
        lines.push(format!(
            "rate           {:.0} actions/s, {}/s on disk",
            told.actions_per_second,
            size(told.bytes_per_second as u64)
        ));
        // An archiver that waits for disk space does not look what is new.
        let at_least = if told.is_out_of_space() { "at least " } else { "" };
        lines.extend(lag.map(|lag| {
            format!("lag            {at_least}{lag} actions in the server's cache and not yet here")
        }));
        lines.extend(told.ist.iter().map(|ist| format!("IST            {ist}")));
    }
    let json = json!({
        "archive": dir.to_string_lossy(),
        "running": told.as_ref().is_some_and(Status::is_running),
        "state": told.as_ref().map(|told| &told.state),
        "history": archive.history().to_string(),
        "ranges": runs.iter().map(run_json).collect::<Vec<_>>(),
        "gaps": gaps.iter().map(gap_json).collect::<Vec<_>>(),
        "bytes": on_disk,
        "action_bytes": raw,
        "segments": archive.segments().len(),
        "torn_bytes": torn,
        "damaged": damage,
        "provider_newest": told.as_ref().and_then(|told| told.provider_newest),
        "ist": told.as_ref().filter(|told| told.is_running()).and_then(|told| told.ist.as_ref()),
        "lag": lag,
        "actions_per_second": told.as_ref().map(|told| told.actions_per_second),
        "bytes_per_second": told.as_ref().map(|told| told.bytes_per_second),
    });
    shown.answer.say(&lines.join("\n"), &json);
    Ok(())
}

fn lag(told: &Status, newest: Option<&Run>) -> Option<i64> {
    Some((told.provider_newest? - newest?.last.0).max(0))
}

fn archiver(told: &Status) -> String {
    match told.is_running() {
        true => format!("process {}, {}", told.pid, told.state),
        false => format!("does not run; it said last at {}: {}", local_time(told.updated_ms), told.state),
    }
}

fn gap_text(gap: &Gap) -> String {
    let (why, when) = gap.reason();
    let when = if when == 0 { String::new() } else { format!(", found {}", local_time(when)) };
    match gap.first <= gap.last {
        true => format!("{} to {} of {}: {why}{when}", gap.first, gap.last, gap.history),
        false => format!("behind {} of {}: {why}{when}", gap.last, gap.history),
    }
}

fn run_json(run: &Run) -> Value {
    json!({"history": run.history.to_string(), "first": run.first.0, "last": run.last.0, "first_ms": run.first_ms, "last_ms": run.last_ms})
}

fn gap_json(gap: &Gap) -> Value {
    let (why, when) = gap.recorded.clone().unzip();
    json!({"history": gap.history.to_string(), "first": gap.first.0, "last": gap.last.0, "reason": why, "at_ms": when})
}

fn reach(run: &Run) -> String {
    span(Duration::from_millis(now_ms().saturating_sub(run.first_ms)))
}

fn verify(shown: &Shown) -> Result<()> {
    let (sound, bad) = verify_archive(&Archive::open(&place(&shown.of)?)?)?;
    shown.answer.say(
        &format!("verified       {sound} actions, {bad} faults"),
        &json!({"verified": sound, "faults": bad}),
    );
    ensure!(bad == 0, Failure::new(Kind::Disk, format!("the archive has {bad} faults")));
    Ok(())
}

fn prune(options: &PruneOptions) -> Result<()> {
    let keep = options.keep.retention();
    if keep.bytes.is_none() && keep.time.is_none() {
        let hint = "give --keep-size or --keep-time";
        bail!(Failure::new(Kind::Configuration, "no limit was given, so nothing is removed").hint(hint));
    }
    let (segments, removed) = archive::prune(&place(&options.of)?, keep)?;
    options.answer.say(
        &format!("removed {segments} segments, {}", size(removed)),
        &json!({"removed_segments": segments, "removed_bytes": removed}),
    );
    Ok(())
}
