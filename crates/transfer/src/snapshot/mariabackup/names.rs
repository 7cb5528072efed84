//! What each file of the stream is: the files that were listed before are known, new ones are recognised by their names.
use std::collections::{HashMap, HashSet};

use formats::mariadb::file_kind::is_binlog_of;
use protocol::inventory::{FileEntry, FileId, FileRole};

use super::without_redo::has_no_redo;
use crate::datadir::backup_files::{file_in_backup, name_in_backup, table_of_new};
use crate::datadir::layout::Layout;
use crate::datadir::scan::{ScannedFile, Skipped, is_skipped};

/// What becomes of a file of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is sent.
    Sent,
    /// It is sent, and says at which position of the cluster the backup is.
    Position,
    /// The newest binary log; it is not sent.
    Binlog,
    /// It is not sent.
    Left,
}

/// The names of the files with the cluster's position: of 10.11, and of 11.1 and later.
pub(crate) const POSITION_FILES: [&str; 2] = ["xtrabackup_galera_info", "mariadb_backup_galera_info"];

/// Gives each file of the stream its entry.
pub(super) struct Names<'a> {
    layout: &'a Layout,
    skipped: &'a Skipped,
    known: HashMap<String, FileEntry>,
    /// Those of them that were in the stream: another one of this name has a number of its own.
    used: HashSet<String>,
    next: FileId,
    /// Base name of the binary logs, without directories.
    binlog: Option<String>,
}

impl<'a> Names<'a> {
    pub fn new(layout: &'a Layout, skipped: &'a Skipped, listed: &[ScannedFile]) -> Names<'a> {
        let next = listed.iter().map(|file| file.entry.id.0 + 1).max().unwrap_or(0);
        let sent = |entry: &&FileEntry| match &entry.role {
            // The stream has the table itself instead.
            FileRole::Link { .. } => false,
            FileRole::TableElsewhere { owner } => owner.ends_with(".isl"),
            _ => true,
        };
        let known = listed.iter().map(|file| &file.entry).filter(sent);
        let binlog = layout.binlog.as_ref().and_then(|base| Some(base.file_name()?.to_str()?.to_owned()));
        let known = known.map(|entry| (name_in_backup(entry), entry.clone())).collect();
        Names { layout, skipped, known, used: HashSet::new(), next: FileId(next), binlog }
    }

    /// The files that were listed and are expected in the stream.
    pub fn expected(&self) -> Vec<&FileEntry> {
        let mut expected: Vec<&FileEntry> = self.known.values().collect();
        expected.sort_by_key(|entry| entry.id);
        expected
    }

    /// What a file of the stream is. Called once for each, also for a second one of a name.
    pub fn of(&mut self, path: &str) -> (Use, FileEntry) {
        if let Some(entry) = self.known.get(path).cloned() {
            if self.used.insert(path.to_owned()) {
                return (Use::Sent, entry);
            }
            return (Use::Sent, FileEntry { id: self.next(), ..entry });
        }
        let (place, role) = file_in_backup(self.layout.flavor, path);
        let what = match () {
            () if POSITION_FILES.contains(&path) => Use::Position,
            () if self.binlog.as_ref().is_some_and(|base| is_binlog_of(base, path)) => Use::Binlog,
            // Of engines whose data is not sent.
            () if path.starts_with('#') || is_skipped(path, self.skipped) => Use::Left,
            () => Use::Sent,
        };
        let id = self.next();
        // A table that was created since the last checkpoint is whole in such a file.
        let table = table_of_new(path).and_then(|table| self.known.get(&table));
        let size = table.map_or(0, |table| table.size);
        (what, FileEntry { id, place, path: path.to_owned(), size, allocated: 0, role })
    }

    /// Whether a file of this name is of a table and has no redo.
    pub fn have_no_redo(&self, path: &str) -> bool {
        has_no_redo(path, &file_in_backup(self.layout.flavor, path).1)
    }

    /// Gives a file that was sent another name.
    pub fn rename(&self, entry: &mut FileEntry, path: &str) {
        (entry.place, entry.role, entry.path) = match self.known.get(path).cloned() {
            Some(FileEntry { place, role, path, .. }) => (place, role, path),
            None => {
                let (place, role) = file_in_backup(self.layout.flavor, path);
                (place, role, path.to_owned())
            }
        };
    }

    fn next(&mut self) -> FileId {
        let id = self.next;
        self.next = FileId(id.0 + 1);
        id
    }
}
