//! The states a joiner's datadir may be in when it needs an SST.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fastrand::Rng;

use crate::cluster::Cluster;
use crate::node::Node;

/// What the joiner has before it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinerState {
    /// A new machine.
    Empty,
    /// It was a member once, and lost its position only.
    Old,
    /// It was another cluster's.
    Foreign,
    /// It was a member once; files are cut short, gone, or hold rubbish.
    Broken,
}

impl JoinerState {
    /// All, in the order a scenario cycles through them.
    pub const ALL: [Self; 4] = [Self::Empty, Self::Old, Self::Foreign, Self::Broken];
}

/// A datadir of another history, to be put under joiners.
#[derive(Debug)]
pub struct Foreign {
    // Its node's datadir is what is copied.
    cluster: Cluster,
}

impl Foreign {
    /// Bootstraps another server, gives it tables of its own (some of the names the cluster uses, too), stops it.
    pub fn make() -> Result<Self> {
        let cluster = Cluster::builder().nodes(1).method("rsync").build()?;
        let node = cluster.node(1);
        node.bootstrap()?;
        node.exec(&[
            "CREATE DATABASE foreign_only",
            "USE foreign_only",
            "CREATE TABLE foreign_only.t (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB",
            "INSERT INTO foreign_only.t SELECT seq, REPEAT(MD5(seq), 20) FROM seq_1_to_5000",
            "CREATE TABLE foreign_only.m (a INT) ENGINE=MyISAM",
            "CREATE DATABASE sbtest",
            "CREATE TABLE sbtest.sbtest1 (x VARCHAR(99) PRIMARY KEY) ENGINE=InnoDB ROW_FORMAT=REDUNDANT",
            "INSERT INTO sbtest.sbtest1 SELECT MD5(seq) FROM seq_1_to_5000",
            "CREATE USER 'foreigner'@'%'",
        ])?;
        node.stop()?;
        Ok(Self { cluster })
    }
}

impl Node {
    /// Brings the datadir of this node, which is down and was a member, into `state`.
    pub fn prepare(&self, state: JoinerState, foreign: &Foreign, rng: &mut Rng) -> Result<()> {
        match state {
            JoinerState::Empty => self.wipe(),
            JoinerState::Old => self.remove_grastate(),
            JoinerState::Foreign => self.restore(&foreign.cluster.node(1).snapshot("foreign")?),
            JoinerState::Broken => {
                self.remove_grastate()?;
                self.damage(rng)
            }
        }
    }

    /// Cuts, removes and overwrites some files of the datadir.
    pub fn damage(&self, rng: &mut Rng) -> Result<()> {
        let mut files = Vec::new();
        data_files(&self.datadir(), &mut files)?;
        files.sort();
        for file in &files {
            let must = file.ends_with("ibdata1");
            if must || rng.u32(0..3) == 0 {
                spoil(file, rng).with_context(|| file.display().to_string())?;
            }
        }
        Ok(())
    }
}

fn spoil(file: &Path, rng: &mut Rng) -> Result<()> {
    let length = file.metadata()?.len();
    match rng.u32(0..4) {
        0 => fs::remove_file(file)?,
        1 => OpenOptions::new().write(true).open(file)?.set_len(rng.u64(0..=length))?,
        2 => File::create(file).map(drop)?,
        _ => {
            let open = OpenOptions::new().write(true).open(file)?;
            let mut rubbish = vec![0; 4096];
            rng.fill(&mut rubbish);
            for _ in 0..=length / (1 << 20) {
                open.write_all_at(&rubbish, rng.u64(0..=length.saturating_sub(4096)))?;
            }
        }
    }
    Ok(())
}

fn data_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            data_files(&path, found)?;
        } else if kind.is_file() && !entry.file_name().to_string_lossy().starts_with("galera") {
            found.push(path);
        }
    }
    Ok(())
}
