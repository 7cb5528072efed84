//! What is done to a node's files while its server is down.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::node::Node;
use crate::{process, template};

/// A position in the history of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The history.
    pub uuid: String,
    /// The last write-set.
    pub seqno: i64,
}

impl Position {
    /// Reads `uuid:seqno`, whatever follows a comma.
    pub fn parse(text: &str) -> Option<Self> {
        let (uuid, seqno) = text.trim().split(',').next()?.rsplit_once(':')?;
        Some(Self { uuid: uuid.to_owned(), seqno: seqno.parse().ok()? })
    }
}

/// A copy of a node's data; see [`Node::snapshot`].
#[derive(Debug, Clone)]
pub struct Snapshot {
    dir: PathBuf,
}

impl Snapshot {
    /// One that was made in this directory earlier, perhaps by another run; `None` when there is none.
    pub fn at(dir: &Path) -> Option<Self> {
        let snapshot = Self { dir: dir.to_owned() };
        snapshot.datadir().is_dir().then_some(snapshot)
    }

    /// The copy of the datadir.
    pub fn datadir(&self) -> PathBuf {
        self.dir.join("0")
    }
}

impl Node {
    /// Replaces the datadir by a newly made one.
    pub(crate) fn fresh_datadir(&self, shaping: &[String]) -> Result<()> {
        if self.surroundings.own_dirs.is_empty() {
            return template::fresh_datadir(&self.installation, shaping, self.user, &self.datadir());
        }
        // Parts of the datadir lie elsewhere: no copy of another node's serves.
        template::install(&self.installation, &self.option_file(), &self.datadir(), self.user)
    }

    /// Leaves an empty datadir (and other data directories), as on a new machine.
    pub fn wipe(&self) -> Result<()> {
        self.must_be_down()?;
        self.data_dirs().iter().try_for_each(|dir| self.empty(dir))
    }

    /// As [`Node::wipe`], but what was there is moved into a directory beside. For a while ext4 passes over the inodes of files that
    /// were removed, and looks at each of them whenever a file is made: with 40,000 of them that takes longer than all else, and a
    /// new machine has none.
    pub fn move_data_aside(&self) -> Result<()> {
        self.must_be_down()?;
        let aside = self.dir().join("aside");
        fs::create_dir_all(&aside)?;
        for dir in self.data_dirs() {
            let name = format!("{}", fs::read_dir(&aside)?.count());
            if dir.exists() {
                fs::rename(&dir, aside.join(name)).with_context(|| dir.display().to_string())?;
            }
            self.empty(&dir)?;
        }
        Ok(())
    }

    /// Forgets the position, so that the next start asks for a full SST.
    pub fn remove_grastate(&self) -> Result<()> {
        self.must_be_down()?;
        match fs::remove_file(self.datadir().join("grastate.dat")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context("grastate.dat"),
            _ => Ok(()),
        }
    }

    /// Copies all data of this node aside, under a name of the caller's choice.
    pub fn snapshot(&self, name: &str) -> Result<Snapshot> {
        self.must_be_down()?;
        self.snapshot_to(&self.dir().join("snapshots").join(name))
    }

    /// As [`Node::snapshot`], to a directory that outlives this cluster.
    pub fn snapshot_to(&self, dir: &Path) -> Result<Snapshot> {
        self.must_be_down()?;
        let part = dir.with_extension("part");
        let _ = fs::remove_dir_all(dir);
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        for (i, from) in self.data_dirs().iter().enumerate() {
            template::copy_tree(from, &part.join(i.to_string()))?;
        }
        // What was not copied whole has not this name.
        fs::rename(&part, dir)?;
        Ok(Snapshot { dir: dir.to_owned() })
    }

    /// Makes this node's data what a snapshot (also another node's) holds.
    pub fn restore(&self, snapshot: &Snapshot) -> Result<()> {
        self.wipe()?;
        for (i, to) in self.data_dirs().iter().enumerate() {
            let from = snapshot.dir.join(i.to_string());
            if from.exists() {
                template::copy_tree(&from, to)?;
            }
        }
        Ok(())
    }

    /// What the server itself says is its position, after its crash recovery (`--wsrep-recover`).
    pub fn recover_position(&self) -> Result<Position> {
        self.must_be_down()?;
        let log = self.dir().join("recover.log");
        let _ = fs::remove_file(&log);
        let log_arg = format!("--log-error={}", log.display());
        process::run(self.command(&["--wsrep-recover", &log_arg])?, Duration::from_secs(120))?;
        let text = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
        let found = text.lines().rev().find_map(|line| line.split_once("Recovered position:"));
        found
            .and_then(|(_, position)| Position::parse(position))
            .with_context(|| format!("no recovered position in\n{}", process::tail(&text, 20)))
    }

    /// The position `grastate.dat` tells.
    pub fn grastate(&self) -> Result<Position> {
        let text = fs::read_to_string(self.datadir().join("grastate.dat")).context("grastate.dat")?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let seqno = field("seqno:").and_then(|seqno| seqno.parse().ok());
        Ok(Position {
            uuid: field("uuid:").context("uuid in grastate.dat")?.to_owned(),
            seqno: seqno.context("seqno in grastate.dat")?,
        })
    }

    /// The datadir and every other directory that holds this node's data.
    pub fn data_dirs(&self) -> Vec<PathBuf> {
        let mut dirs = vec![self.datadir(), self.dir().join("external")];
        dirs.extend(self.surroundings.own_dirs.iter().cloned());
        dirs
    }

    fn must_be_down(&self) -> Result<()> {
        ensure!(!self.is_alive(), "{} runs", self.name());
        Ok(())
    }

    fn empty(&self, dir: &Path) -> Result<()> {
        // The directory itself stays, because a filesystem may be mounted there.
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let remove = if entry.file_type()?.is_dir() { fs::remove_dir_all } else { fs::remove_file };
            remove(&entry.path()).with_context(|| entry.path().display().to_string())?;
        }
        self.user.own(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_with_and_without_gtid_are_read() {
        let seqno = |text| Position::parse(text).map(|p| p.seqno);
        assert_eq!(seqno(" 2f0eaefd-0000-11f0-a0a0-000000000000:34\n"), Some(34));
        assert_eq!(seqno("2f0eaefd-0000-11f0-a0a0-000000000000:-1,0-1-7"), Some(-1));
        assert_eq!(seqno("nothing"), None);
    }
}
