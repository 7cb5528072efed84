//! What a state transfer left in the logs and in the files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::node::Node;
use crate::node_files::Position;
use crate::progress::StatusReader;
use crate::{places, process};

/// Names in a datadir that the server, its provider or the program itself write during a transfer that changes nothing.
const ALIVE: [&str; 11] = [
    "grastate.dat",
    "gvwstate.dat",
    "galera.cache",
    "gcache.page",
    "rejoin-joiner-",
    "rejoin-donor-",
    "rejoin-status.json",
    "rejoin-set.json",
    "rejoin-lineage.json",
    "rejoin-fingerprints",
    "rejoin-lock",
];

/// Directories of the program's own.
const OWN_DIRECTORIES: [&str; 2] = [".rejoin", "#sql-rejoin"];

/// A file as it was: path, inode, length, time of the last change in nanoseconds.
pub type Listing = BTreeMap<PathBuf, (u64, u64, i128)>;

/// The position a donor's server gave its program last (`--gtid`).
pub fn given_position(donor_log: &str) -> Result<Position> {
    // What stands before the command is another text in each series of the server.
    let last = donor_log.lines().rfind(|line| line.contains("--role 'donor'") && line.contains("--gtid '"));
    let text = last.and_then(|line| line.split_once("--gtid '")?.1.split('\'').next());
    text.and_then(Position::parse).context("no --gtid in the donor's log")
}

/// The last attempt of the transfer with which a joiner started came from this snapshot (and for this reason, where the
/// text goes on with one).
pub fn assert_snapshot(joiner: &Node, snapshot: &str) -> Result<()> {
    let log = joiner.log_since_start();
    let last = log.lines().rev().find_map(|line| line.split_once("WSREP_SST: [INFO] snapshot: "));
    let (_, last) = last.context("no snapshot in the joiner's log")?;
    ensure!(last.starts_with(snapshot), "the snapshot was {last}, not {snapshot}");
    Ok(())
}

/// The position a joiner's server read from the files it was given.
pub fn recovered_position(joiner_log: &str) -> Result<Position> {
    let last = joiner_log.lines().rev().find_map(|line| line.split_once("Recovered position from storage:"));
    last.and_then(|(_, text)| Position::parse(text)).context("no recovered position in the joiner's log")
}

/// A server that truncates an undo tablespace at its start before it reads its position forgets those positions that were
/// noted in that tablespace's rollback segments only: the newest, perhaps (MariaDB 10.11.19).
pub fn truncated_undo_first(joiner_log: &str) -> bool {
    let start = joiner_log.rsplit_once("Recovered position from storage:").map_or("", |(before, _)| before);
    let opened = start.rsplit_once(" undo tablespaces are active").map_or(start, |(_, after)| after);
    opened.contains("InnoDB: Truncated ")
}

/// The joiner must not be behind what its donor promised.
pub fn assert_not_behind(donor: &Node, joiner: &Node) -> Result<()> {
    let given = given_position(&donor.log_text())?;
    let recovered = recovered_position(&joiner.log_since_start())?;
    ensure!(given.uuid == recovered.uuid, "{given:?} given, {recovered:?} recovered");
    ensure!(recovered.seqno >= given.seqno, "{given:?} given, {recovered:?} recovered: behind");
    Ok(())
}

impl Node {
    /// Adds lines to a group of the option file. The server must be down; the last line of an option wins.
    pub fn add_options(&self, group: &str, lines: &[&str]) -> Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(self.option_file())?;
        writeln!(file, "\n[{group}]\n{}", lines.join("\n")).context("the option file")
    }

    /// Starts the server, which must end by itself because its transfer fails. Answers what it logged.
    pub fn fail_to_join(&self) -> Result<String> {
        self.begin(&[])?;
        if self.wait_exit(Duration::from_secs(90)).is_none() {
            let log = self.log_since_start();
            self.kill();
            bail!("{} neither joined nor ended:\n{}", self.name(), process::tail(&log, 30));
        }
        // The group may have ended the server before its program ends.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.sst_processes().is_empty() {
            ensure!(Instant::now() < deadline, "the program outlives its server: {:?}", self.sst_processes());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self.log_since_start())
    }

    /// Starts the server of a joiner and kills it once so many bytes of the transfer have come; its program goes with it.
    pub fn cut_joining(&self, donor: &Node, bytes: u64) -> Result<()> {
        let status = StatusReader::of_next(self);
        self.begin(&[])?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while status.read().is_none_or(|s| s.wire_bytes < Some(bytes)) {
            let log = || process::tail(&self.log_since_start(), 30);
            ensure!(Instant::now() < deadline, "{bytes} bytes did not come: {:?}\n{}", status.read(), log());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill();
        self.wait_exit(Duration::from_secs(20)).context("the joiner's server goes on")?;
        donor.wait_synced_again(Duration::from_secs(30))
    }

    /// Redo that is not in the files yet would travel too: a server that ends writes all pages. Its companions have ended.
    pub fn write_pages(&self) -> Result<()> {
        self.stop()?;
        self.bootstrap().map(drop)
    }

    /// As [`Node::write_pages`], of a server that goes on.
    pub fn checkpoint(&self) -> Result<()> {
        self.exec(&["SET GLOBAL innodb_log_checkpoint_now=ON"]).map(drop)
    }

    /// Waits until the node is Synced again after it was a donor.
    pub fn wait_synced_again(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !self.is_synced() {
            ensure!(Instant::now() < deadline, "{} is not Synced again", self.name());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until nothing of the transfer is left in any directory of this node but its logs.
    pub fn wait_tidy(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let all = self.files()?;
            let ours = |path: &&PathBuf| {
                path.components().any(|c| OWN_DIRECTORIES.iter().any(|own| c.as_os_str() == *own))
            };
            let left: Vec<&PathBuf> = all.keys().filter(ours).collect();
            if left.is_empty() && !OWN_DIRECTORIES.iter().any(|own| self.datadir().join(own).exists()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "left by the transfer: {left:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Every file of this node's data directories, except those that are written while a transfer fails.
    pub fn files(&self) -> Result<Listing> {
        let mut found = Listing::new();
        for dir in self.data_dirs() {
            list(&dir, &mut found)?;
        }
        Ok(found)
    }

    /// Runs `innochecksum` over every tablespace that can be checked; the server must have been stopped cleanly.
    pub fn innochecksum(&self) -> Result<usize> {
        ensure!(!self.is_alive(), "{} runs", self.name());
        let files = self.files()?;
        let mut checked = 0;
        for (path, (_, length, _)) in &files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let tablespace = name.ends_with(".ibd") || (name.starts_with("undo") && name.len() == 7);
            if (tablespace || name == "ibdata1") && *length > 0 {
                innochecksum(path, name == "ibdata1").with_context(|| path.display().to_string())?;
                checked += 1;
            }
        }
        Ok(checked)
    }
}

/// The doublewrite area, the second and third megabyte of the system tablespace, holds copies of pages of all
/// tablespaces: innochecksum finds fault with them on any server.
fn innochecksum(path: &Path, with_doublewrite: bool) -> Result<()> {
    let ranges = match with_doublewrite {
        false => vec![vec![]],
        true => {
            let megabyte = (1 << 20) / page_size(path)?;
            vec![vec![format!("--end-page={}", megabyte - 1)], vec![format!("--start-page={}", 3 * megabyte)]]
        }
    };
    for range in ranges {
        let mut command = std::process::Command::new(places::program("innochecksum")?);
        command.args(range).arg(path);
        process::run(command, Duration::from_secs(120))?;
    }
    Ok(())
}

/// From the flags on the first page.
fn page_size(path: &Path) -> Result<u32> {
    let mut flags = [0; 4];
    fs::File::open(path)?.read_exact_at(&mut flags, 54)?;
    let flags = u32::from_be_bytes(flags);
    let shift = if flags & 16 != 0 { flags & 15 } else { flags >> 6 & 15 };
    Ok(if shift == 0 { 16384 } else { 512 << shift })
}

fn list(dir: &Path, found: &mut Listing) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if ALIVE.iter().any(|alive| name.starts_with(alive)) {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            list(&entry.path(), found)?;
        } else {
            let changed = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            found.insert(entry.path(), (meta.ino(), meta.len(), changed));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_found_in_the_lines_of_servers() {
        let donor = "x [Note] WSREP: Running: 'wsrep_sst_rejoin --role 'donor' --address 'a' \
                     --gtid '2f0eaefd-0000-11f0-a0a0-000000000000:3408' --gtid-domain-id 0'\n";
        assert_eq!(given_position(donor).unwrap().seqno, 3408);
        let newer = "x [Note] WSREP: Initiating SST/IST transfer on DONOR side (wsrep_sst_rejoin --role 'donor' \
                     --address 'a' --gtid '80cdd102-e885-11f1-80ed-fe8003b6e918:540' --gtid-domain-id 0)\n";
        assert_eq!(given_position(newer).unwrap().seqno, 540);
        let joiner = "y WSREP: Recovered position from storage: 2f0eaefd-0000-11f0-a0a0-000000000000:3409\n";
        assert_eq!(recovered_position(joiner).unwrap().seqno, 3409);
    }
}
