//! Checks before anything is sent whether this node's directories can take the donor's databases.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Result;
use protocol::inventory::{FileEntry, FileRole, Place};

use crate::datadir::layout::{Layout, absolute, with_suffix};
use crate::datadir::managed::{Managed, ManagedFiles};
use crate::disk::probe::{Kind as What, Probe};
use crate::failure::{Failure, Kind};
use crate::flavor::{Flavor, InDatadir};
use crate::install::dry_run;
use crate::install::files::Disk;
use crate::install::findings::Findings;
use crate::install::plan::Purpose;
use crate::server::options::ServerOptions;
use crate::threads::lock;

/// The places where this transfer will put files, as far as they are known yet.
#[derive(Debug)]
pub(super) struct Places {
    flavor: &'static dyn Flavor,
    datadir: PathBuf,
    ignored: Vec<String>,
    /// Paths below the datadir that this node's server uses for something else, and what for.
    taken: Vec<(PathBuf, String)>,
    /// Files directly in the datadir that are retired.
    leaving: BTreeSet<PathBuf>,
    /// Databases that were checked.
    tried: Mutex<BTreeSet<String>>,
}

impl Places {
    pub fn new(layout: &Layout, options: &ServerOptions, server: Option<&str>, old: &ManagedFiles) -> Places {
        // Only paths at which a database's directory may be.
        let leaving = old.iter().filter(|file| {
            file.what != Managed::DatabaseDirectory && file.path.parent() == Some(&layout.datadir)
        });
        Places {
            flavor: layout.flavor,
            datadir: layout.datadir.clone(),
            ignored: layout.ignore_db_dirs.clone(),
            taken: taken(layout, options, server),
            leaving: leaving.map(|file| file.path).collect(),
            tried: Mutex::default(),
        }
    }

    /// Checks the directories of this node and those of the databases that the donor offers.
    ///
    /// # Errors
    /// Names the directories that cannot take them.
    pub fn try_all(&self, layout: &Layout, old: &ManagedFiles, databases: &[String]) -> Result<(), Failure> {
        let own = layout.directories().into_iter().chain(old.directories()).collect::<BTreeSet<_>>();
        let mut findings = dry_run::directories(&Disk, own);
        for database in databases {
            self.try_database(database, &mut findings)?;
        }
        findings.refused(Purpose::Install)
    }

    /// Checks the database of a file, once for each database: it may have been created since the offer.
    ///
    /// # Errors
    /// As [`Places::try_all`].
    pub fn try_for(&self, entry: &FileEntry) -> Result<(), Failure> {
        let in_database = matches!(entry.role, FileRole::Table | FileRole::Link { .. });
        let Some((database, _)) = entry.path.split_once('/').filter(|_| in_database) else { return Ok(()) };
        if entry.place != Place::Datadir {
            return Ok(());
        }
        let mut findings = Findings::default();
        self.try_database(database, &mut findings)?;
        findings.refused(Purpose::Install)
    }

    fn try_database(&self, name: &str, findings: &mut Findings) -> Result<(), Failure> {
        if !lock(&self.tried).insert(name.to_owned()) {
            return Ok(());
        }
        if name.contains('/') || !self.flavor.is_database(name) {
            let text = format!("the donor offers {name:?}, which is not the name of a database's directory");
            return Err(Failure::new(Kind::Peer, text));
        }
        let path = self.datadir.join(name);
        if let Some((_, what)) = self.taken.iter().find(|(taken, _)| *taken == path) {
            let text = format!("{} is {what}, and the donor has a database of this name", path.display());
            let hint = "change that option on this node, or rename the database on the donor";
            findings.refusals.push(Failure::new(Kind::Refused, text).hint(hint));
        } else if self.ignored.iter().any(|ignored| ignored == name) {
            let text = format!(
                "ignore_db_dirs of this node hides {name}, and the donor has a database of this name"
            );
            let hint = "take it out of ignore_db_dirs on this node, or put it in on the donor too";
            findings.refusals.push(Failure::new(Kind::Refused, text).hint(hint));
        } else if !self.leaving.contains(&path) && !makes_way(self.flavor, &path) {
            findings.refusals.extend(dry_run::directories(&Disk, [path.as_path()]).refusals);
        }
        Ok(())
    }
}

/// A marker of a transfer at the path of a database's directory: it is removed before the directory is made.
pub(super) fn makes_way(flavor: &dyn Flavor, path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_file = || Disk.entry(path).is_ok_and(|entry| entry.is_some_and(|entry| entry.kind == What::File));
    flavor.in_datadir(name) == InDatadir::TransferMarker && is_file()
}

/// Paths that this node's server creates or looks for in its datadir, whatever the data is, and their purpose. Only
/// paths that a database's directory can have: its name has letters, digits and `_`, everything else is written
/// `@hhhh` (tried on 10.11.19).
fn taken(layout: &Layout, options: &ServerOptions, server: Option<&str>) -> Vec<(PathBuf, String)> {
    let mut taken: Vec<(PathBuf, String)> = Vec::new();
    let mut add = |path: PathBuf, what: &str| taken.push((path, what.to_owned()));
    layout.system_files.iter().for_each(|f| add(f.path.clone(), "a file of innodb_data_file_path"));
    layout.temp_files.iter().for_each(|path| add(path.clone(), "a file of innodb_temp_data_file_path"));
    add(layout.redo_log(), "InnoDB's redo log");
    if let (Some(path), Some(engine)) = (layout.second_control(), layout.flavor.second_engine()) {
        add(path, &format!("{}'s control file", engine.name));
    }
    add(layout.buffer_pool_dump.clone(), "innodb_buffer_pool_filename");
    add(with_suffix(&layout.buffer_pool_dump, ".incomplete"), "innodb_buffer_pool_filename");
    add(layout.tc_log.clone(), "log_tc");
    layout.binlog_index.iter().for_each(|path| add(path.clone(), "log_bin_index"));
    add(layout.relay_log_index.clone(), "relay_log_index");
    for number in 1..=undo_tablespaces(options, server) {
        add(layout.undo_dir.join(format!("undo{number:03}")), "an undo tablespace (innodb_undo_tablespaces)");
    }
    for (option, name) in [("socket", "socket"), ("pid-file", "pid_file")] {
        if let Some(value) = options.server(option).filter(|value| !value.is_empty()) {
            add(absolute(&layout.datadir, value), name);
        }
    }
    for directory in layout.directories().into_iter().filter(|d| *d != layout.datadir) {
        add(directory.to_path_buf(), "a directory that an option of this node names");
    }
    taken
}

/// The configured number. Without one, 11.0 and later create three.
fn undo_tablespaces(options: &ServerOptions, server: Option<&str>) -> u32 {
    let configured = options.server("innodb-undo-tablespaces").and_then(|n| n.parse::<u32>().ok());
    let major = server.and_then(|version| version.split('.').next()?.parse::<u32>().ok()).unwrap_or(0);
    configured.unwrap_or(if major >= 11 { 3 } else { 0 }).min(127)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadir::testing::Tree;
    use crate::server::options::ServerOptions;
    use formats::wsrep::invocation::SstArgs;

    fn tried(tree: &Tree, words: &[&str], server: &str, database: &str) -> String {
        let layout = tree.layout(words);
        let args =
            SstArgs { mysqld_args: words.iter().map(|w| (*w).to_owned()).collect(), ..SstArgs::default() };
        let options = ServerOptions::load(&args).unwrap();
        let old = crate::datadir::managed::managed(&layout).unwrap();
        let places = Places::new(&layout, &options, Some(server), &old);
        match places.try_all(&layout, &old, &[database.to_owned()]) {
            Ok(()) => String::new(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn names_that_this_nodes_server_uses() {
        let tree = Tree::with_engine_files();
        let [old, new] = ["10.11.19-MariaDB", "11.8.6-MariaDB"];
        for (words, server, database, says) in [
            (&[][..], old, "shop", ""),
            (&[], old, "undo001", ""),
            (&["--innodb-undo-tablespaces=2"], old, "undo001", "undo001 is an undo tablespace"),
            (&["--innodb-undo-tablespaces=2"], old, "undo003", ""),
            (&[], new, "undo003", "undo003 is an undo tablespace"),
            (&["--innodb-undo-tablespaces=0"], new, "undo003", ""),
            (&[], old, "ib_logfile101", ""),
            (&[], old, "ibtmp1", "ibtmp1 is a file of innodb_temp_data_file_path"),
            (&[], old, "ibdata1", "ibdata1 is a file of innodb_data_file_path"),
            (&["--innodb-log-group-home-dir=logs"], old, "logs", "a directory that an option"),
            (&["--ignore-db-dirs=hidden"], old, "hidden", "ignore_db_dirs of this node hides hidden"),
            (&[], old, "../x", "not the name of a database"),
        ] {
            let said = tried(&tree, words, server, database);
            assert!(
                said.contains(says) && said.is_empty() == says.is_empty(),
                "{words:?} {database}: {said}"
            );
        }
        // Neither a file that is retired nor the marker of this transfer is in the way.
        tree.file("data/undo005", "x");
        tree.file("data/sst_in_progress", "");
        assert_eq!(tried(&tree, &[], old, "undo005"), "");
        assert_eq!(tried(&tree, &[], old, "sst_in_progress"), "");
        tree.file("data/in_the_way", "x");
        assert!(tried(&tree, &[], old, "in_the_way").contains("is a file, but must be a directory"));
    }
}
