//! The directories of a private server: one on each filesystem on which the joiner's server has files, so that installing is
//! renaming.
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::datadir::layout::{Layout, SystemFileAt};
use crate::disk::durable::remove_directory_if_there;
use crate::install::names::{SERVER, own_directory, working_directory};
use crate::receive::staging::Staging;

/// Where the private server has its files.
#[derive(Clone, Debug)]
pub struct Homes {
    root: PathBuf,
    /// Its datadir.
    pub datadir: PathBuf,
    /// `innodb_data_home_dir`.
    pub data_home: PathBuf,
    /// `innodb_log_group_home_dir`.
    pub log_home: PathBuf,
    /// `innodb_undo_directory`.
    pub undo_dir: PathBuf,
    /// `aria_log_dir_path`.
    pub second_log_dir: PathBuf,
    /// `tmpdir`.
    pub tmp: PathBuf,
    /// `innodb_data_file_path` with names of its own.
    pub data_file_path: String,
    layout: Layout,
}

impl Homes {
    /// Chooses directories on the filesystems of the joiner's. `data_file_path`: the joiner's `innodb_data_file_path`.
    ///
    /// # Errors
    /// No staging directory can be made on one of them.
    pub fn choose(layout: &Layout, data_file_path: &str, staging: &Staging) -> Result<Homes> {
        let on = |directory: &Path, name: &str| -> Result<PathBuf> {
            let stage = staging.stage_for(&directory.join("x"))?;
            let room = stage.parent().context("a staging directory without a room")?;
            Ok(room.join(SERVER).join(name))
        };
        let datadir = on(&layout.datadir, "data")?;
        let beside = |directory: &Path, name: &str| match directory == layout.datadir {
            true => Ok(datadir.clone()),
            false => on(directory, name),
        };
        let data_home = beside(
            layout.system_files.first().and_then(|file| file.path.parent()).unwrap_or(&layout.data_home),
            "system",
        )?;
        let log_home = beside(&layout.log_home, "redo")?;
        let undo_dir = beside(&layout.undo_dir, "undo")?;
        let second_log_dir = beside(layout.second_log_dir.as_deref().unwrap_or(&layout.datadir), "second")?;
        let root = working_directory(&own_directory(&layout.datadir), SERVER);
        let file = |(number, file): (usize, &SystemFileAt)| SystemFileAt {
            path: data_home.join(data_file_name(number)),
            ..file.clone()
        };
        let own = Layout {
            system_files: layout.system_files.iter().enumerate().map(file).collect(),
            temp_files: vec![data_home.join("ibtmp1")],
            data_home: data_home.clone(),
            log_home: log_home.clone(),
            undo_dir: undo_dir.clone(),
            second_log_dir: layout.second_log_dir.as_ref().map(|_| second_log_dir.clone()),
            binlog: None,
            binlog_index: None,
            relay_log: datadir.join("relay-bin"),
            relay_log_index: datadir.join("relay-bin.index"),
            ddl_logs: vec![datadir.join("ddl_recovery.log"), datadir.join("ddl_recovery-backup.log")],
            tc_log: datadir.join("tc.log"),
            buffer_pool_dump: data_home.join("ib_buffer_pool"),
            keep: None,
            datadir: datadir.clone(),
            ..layout.clone()
        };
        let tmp = root.join("tmp");
        let data_file_path = renamed(data_file_path);
        Ok(Homes {
            root,
            datadir,
            data_home,
            log_home,
            undo_dir,
            second_log_dir,
            tmp,
            data_file_path,
            layout: own,
        })
    }

    /// The directory that holds them on the datadir's filesystem.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its error log.
    pub fn log(&self) -> PathBuf {
        self.root.join("error.log")
    }

    /// Its files, as those of any node.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes the directories; only our own user can enter them.
    ///
    /// # Errors
    /// One cannot be made.
    pub fn make(&self) -> Result<()> {
        for directory in self.all() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.with_context(|| format!("cannot make directory {}", directory.display()))?;
        }
        Ok(())
    }

    /// Removes whatever is left in them.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(&self) -> Result<()> {
        for directory in self.all().into_iter().chain([self.root()]) {
            remove_directory_if_there(directory)?;
            // The room of a filesystem that has only this; others stay.
            let _ = directory.parent().map(fs::remove_dir);
        }
        Ok(())
    }

    fn all(&self) -> [&Path; 6] {
        [&self.datadir, &self.data_home, &self.log_home, &self.undo_dir, &self.second_log_dir, &self.tmp]
    }
}

fn data_file_name(number: usize) -> String {
    format!("ibdata{}", number + 1)
}

/// The value of `innodb_data_file_path` with other names: the configured ones may be absolute, and so the joiner's own files.
fn renamed(path: &str) -> String {
    let name = |(number, file): (usize, &str)| match file.split_once(':') {
        Some((_, sizes)) => format!("{}:{sizes}", data_file_name(number)),
        None => file.to_owned(),
    };
    path.split(';').filter(|file| !file.trim().is_empty()).enumerate().map(name).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_files_keep_their_sizes_under_other_names() {
        assert_eq!(renamed("ibdata1:12M:autoextend"), "ibdata1:12M:autoextend");
        assert_eq!(
            renamed("/a/x:10M;/b/y:20M:autoextend:max:1G"),
            "ibdata1:10M;ibdata2:20M:autoextend:max:1G"
        );
        assert_eq!(renamed("a:1M;"), "ibdata1:1M");
    }
}
