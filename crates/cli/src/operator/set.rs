//! `rejoin set`: changes the limits of a transfer while it runs.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use transfer::datadir::owner::become_owner_of;
use transfer::datadir::recognise::require_datadir;
use transfer::disk::durable::remove_if_there;
use transfer::failure::{Failure, Kind};
use transfer::server::changes::{self, CHANGES_MAX, Change, Changes, changes_file};
use transfer::server::privileges::own_user;
use transfer::server::status::{STATUS_FILE, Status};

use super::answer::Answer;
use transfer::server::health::is_running;

use super::status::read;
use super::which::Which;

/// How long the transfer may take to read the file: it looks once a second, unless its server is slow to answer.
const READ_WITHIN: Duration = Duration::from_secs(15);
/// How long its status may take to show the new limit.
const EFFECTIVE_WITHIN: Duration = Duration::from_secs(5);
/// How often we look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What to change.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    node: Which,
    #[command(flatten)]
    answer: Answer,
    /// rlimit=SIZE or adaptive-throttle=0|1
    #[arg(value_name = "NAME=VALUE", required = true)]
    set: Vec<String>,
}

/// Passes the changes to the donor's program, and waits until they are in effect.
pub fn run(options: &Options) -> Result<()> {
    let asked: Vec<Change> = options.set.iter().map(|text| Change::parse(text)).collect::<Result<_>>()?;
    if asked.len() > CHANGES_MAX {
        let text = format!("more than {CHANGES_MAX} changes at once");
        return Err(Failure::new(Kind::Configuration, text).into());
    }
    let datadir = options.node.wanted()?.layout()?.datadir;
    // Root becomes another user below.
    let uid = own_user();
    become_owner_of(&datadir)?;
    require_datadir(&datadir)?;
    let status = donating(&datadir)?;
    refuse_fixed(&status, &asked)?;
    let pid = status.pid;
    let set = options.set.clone();
    changes::write(&datadir, &Changes { pid, uid, set })?;
    wait_until_read(&datadir, pid)?;
    wait_until_effective(&datadir, pid, &asked)?;
    let words: Vec<String> = asked.into_iter().map(Change::in_words).collect();
    let text = format!("{} (the running transfer, process {pid})", words.join("; "));
    options.answer.say(&text, &json!({"pid": pid, "set": options.set}));
    Ok(())
}

/// The transfer of which this node is the donor.
fn donating(datadir: &Path) -> Result<Status, Failure> {
    let status = read(&datadir.join(STATUS_FILE)).ok().flatten();
    let Some(status) = status.filter(|status| is_running(status, datadir)) else {
        let text = format!("no state transfer runs on {}", datadir.display());
        let hint = "set the option under [sst] on the donor for the next one";
        return Err(Failure::new(Kind::Server, text).hint(hint));
    };
    if status.role != "donor" {
        let text = format!(
            "this node is the joiner of the transfer (process {}), and its donor has the limits",
            status.pid
        );
        let donor = status.peer.as_deref().unwrap_or("the donor, which this node's error log names");
        return Err(Failure::new(Kind::Refused, text).hint(format!("run rejoin set on {donor}")));
    }
    Ok(status)
}

/// Not every transfer has every option.
fn refuse_fixed(status: &Status, asked: &[Change]) -> Result<(), Failure> {
    let is_fixed = |change: &&Change| status.fixed_options.iter().any(|fixed| fixed == change.name());
    let Some(fixed) = asked.iter().find(is_fixed) else { return Ok(()) };
    let text = format!(
        "{} cannot be changed in this transfer (process {}), which is not slowed for the donor's server; nothing was changed",
        fixed.name(),
        status.pid
    );
    Err(Failure::new(Kind::Refused, text).hint("rejoin set rlimit=SIZE limits it"))
}

/// Waits until the transfer has removed the file.
fn wait_until_read(datadir: &Path, pid: u32) -> Result<(), Failure> {
    let (file, began) = (changes_file(datadir), Instant::now());
    while file.symlink_metadata().is_ok() {
        let over = donating(datadir).is_err();
        if over || began.elapsed() > READ_WITHIN {
            let _ = remove_if_there(&file);
            let why = if over { "has ended" } else { "does not answer" };
            let text = format!("the transfer (process {pid}) {why}; nothing was changed");
            return Err(Failure::new(Kind::Server, text));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// The transfer also removes a file that it refuses, and removes the file when it ends. So wait until its status, which it writes
/// twice a second, shows the change.
fn wait_until_effective(datadir: &Path, pid: u32, asked: &[Change]) -> Result<(), Failure> {
    let began = Instant::now();
    let is_effective = |status: &Status| {
        let rlimit = asked.iter().rev().find_map(|change| match change {
            Change::Rlimit(rate) => Some(*rate),
            Change::AdaptiveThrottle(_) => None,
        });
        let adaptive = asked.iter().rev().find_map(|change| match change {
            Change::AdaptiveThrottle(on) => Some(*on),
            Change::Rlimit(_) => None,
        });
        rlimit.is_none_or(|rate| status.rlimit == rate)
            && adaptive.is_none_or(|on| status.adaptive_throttle == Some(on))
    };
    while began.elapsed() < EFFECTIVE_WITHIN {
        // Without a limit it may be over by now.
        let status = read(&datadir.join(STATUS_FILE)).ok().flatten().filter(|status| status.pid == pid);
        match status {
            Some(status) if is_effective(&status) => return Ok(()),
            Some(status) if is_running(&status, datadir) => {
                refuse_fixed(&status, asked)?;
                std::thread::sleep(LOOK_EVERY);
            }
            _ => {
                let text = format!("the transfer (process {pid}) has ended meanwhile");
                return Err(Failure::new(Kind::Server, text));
            }
        }
    }
    let text = format!("the transfer (process {pid}) did not take it over");
    Err(Failure::new(Kind::Server, text).hint("its log says why, as does the server's error log"))
}
