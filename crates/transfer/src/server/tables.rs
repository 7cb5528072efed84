//! The bytes of a transfer by table, in bounded memory.
use std::collections::HashMap;
use std::sync::Arc;

use formats::mariadb::table_name;
use protocol::inventory::{FileEntry, FileId, FileRole};
use report::record::{TABLES_MAX, Table};

/// Tables are kept until there are twice as many; then the smaller half is only counted together.
const KEPT: usize = 2 * TABLES_MAX;
/// Most files whose table is remembered.
const FILES_MAX: usize = 20_000;

/// Counts bytes by table. Of very many tables the largest ones are counted each, by the size of their largest file, and all
/// others together.
#[derive(Debug, Default)]
pub(super) struct Tables {
    tables: HashMap<Arc<str>, (u64, Table)>,
    files: HashMap<FileId, Arc<str>>,
    redo: Vec<FileId>,
    /// Bytes of redo that were sent.
    redo_sent: u64,
    others: Table,
    /// Smaller tables are not kept.
    least: u64,
    /// Bytes of attempts that were given up.
    voided: Table,
}

impl Tables {
    /// A file is about to be counted. It may be named more than once.
    pub fn begin(&mut self, entry: &FileEntry) {
        let name = match &entry.role {
            FileRole::Redo if self.redo.contains(&entry.id) => return,
            FileRole::Redo => return self.redo.push(entry.id),
            FileRole::Link { .. } => return,
            _ if entry.size < self.least => return,
            FileRole::SystemTablespace { .. } => "(system tablespace)".to_owned(),
            FileRole::Undo => "(undo tablespaces)".to_owned(),
            FileRole::SecondLog => "(logs of the second engine)".to_owned(),
            FileRole::Server | FileRole::Backup => "(other files)".to_owned(),
            FileRole::TableElsewhere { owner } => table_name::of_path(owner),
            FileRole::Part => "(rows and definitions)".to_owned(),
            FileRole::Table => table_name::of_path(&entry.path),
        };
        self.begin_named(entry.id, &name, entry.size);
    }

    /// The same for something of this name and size.
    pub fn begin_named(&mut self, id: FileId, name: &str, bytes: u64) {
        let name: Arc<str> = match self.tables.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => name.into(),
        };
        let (size, _) = self.tables.entry(Arc::clone(&name)).or_default();
        *size = bytes.max(*size);
        if self.files.len() < FILES_MAX {
            self.files.insert(id, name);
        }
        if self.tables.len() > 2 * KEPT {
            self.drop_the_small();
        }
    }

    fn drop_the_small(&mut self) {
        let mut sizes: Vec<u64> = self.tables.values().map(|(size, _)| *size).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        self.least = sizes.get(KEPT).map_or(0, |size| size.saturating_add(1));
        let (least, others) = (self.least, &mut self.others);
        self.tables.retain(|_, (size, table)| {
            let stays = *size >= least;
            if !stays {
                add(others, table);
            }
            stays
        });
        let tables = &self.tables;
        self.files.retain(|_, name| tables.contains_key(name));
    }

    /// Counts bytes of a file.
    pub fn add(&mut self, file: FileId, bytes: &Table) {
        if self.redo.contains(&file) {
            self.redo_sent = self.redo_sent.saturating_add(bytes.sent);
            return;
        }
        let table = self.files.get(&file).and_then(|name| self.tables.get_mut(name));
        add(table.map_or(&mut self.others, |(_, table)| table), bytes);
    }

    /// Another attempt begins: nothing of the one before counts, except in [`Tables::moved`].
    pub fn begin_again(&mut self) {
        *self = Tables { voided: self.moved(), ..Tables::default() };
    }

    /// Bytes of files and redo in all attempts.
    pub fn moved(&self) -> Table {
        let mut moved = self.sum();
        moved.sent = moved.sent.saturating_add(self.redo_sent);
        add(&mut moved, &self.voided);
        moved
    }

    /// Bytes of all tables, without redo.
    fn sum(&self) -> Table {
        let mut sum = self.others.clone();
        self.tables.values().for_each(|(_, table)| add(&mut sum, table));
        sum
    }

    /// Bytes of redo that were sent.
    pub fn redo_sent(&self) -> u64 {
        self.redo_sent
    }

    /// The largest tables by bytes, the sum of the others, and the sum of all.
    pub fn sums(&self) -> (Vec<Table>, Option<Table>, Table) {
        let named = |(name, (_, table)): (&Arc<str>, &(u64, Table))| Table {
            name: name.to_string(),
            ..table.clone()
        };
        let mut tables: Vec<Table> = self.tables.iter().map(named).filter(|table| table.all() > 0).collect();
        tables.sort_by(|a, b| b.all().cmp(&a.all()).then_with(|| a.name.cmp(&b.name)));
        let mut others = self.others.clone();
        tables.drain(TABLES_MAX.min(tables.len())..).for_each(|table| add(&mut others, &table));
        others.name = "(all other tables)".to_owned();
        (tables, (others.all() > 0).then_some(others), self.sum())
    }
}

fn add(to: &mut Table, bytes: &Table) {
    to.sent = to.sent.saturating_add(bytes.sent);
    to.reused = to.reused.saturating_add(bytes.reused);
    to.rebuilt = to.rebuilt.saturating_add(bytes.rebuilt);
    to.zero = to.zero.saturating_add(bytes.zero);
}

#[cfg(test)]
mod tests {
    use protocol::inventory::Place;

    use super::*;

    fn entry(id: u32, path: &str, size: u64, role: FileRole) -> FileEntry {
        FileEntry {
            id: FileId(id),
            place: Place::Datadir,
            path: path.to_owned(),
            size,
            allocated: size,
            role,
        }
    }

    #[test]
    fn every_byte_is_counted_once_and_the_largest_tables_are_named() {
        let mut tables = Tables::default();
        let many = 5000u64;
        for number in 0..many {
            let id = number as u32;
            // The large ones are not the first ones.
            let size = (number * 7919) % many + 1;
            tables.begin(&entry(id, &format!("d/t{number}.ibd"), size, FileRole::Table));
            tables.add(FileId(id), &Table { sent: size, ..Table::default() });
        }
        tables.begin(&entry(9000, "ib_logfile0", 1, FileRole::Redo));
        tables.add(FileId(9000), &Table { sent: 77, ..Table::default() });
        let (named, others, sum) = tables.sums();
        assert_eq!(named.len(), TABLES_MAX);
        let sizes: Vec<u64> = named.iter().map(Table::all).collect();
        assert_eq!(sizes, (many - TABLES_MAX as u64 + 1..=many).rev().collect::<Vec<_>>());
        assert_eq!(sum.sent, many * (many + 1) / 2);
        assert_eq!(sum.sent, sizes.iter().sum::<u64>() + others.expect("there are others").sent);
        assert_eq!(tables.redo_sent(), 77);
        assert!(tables.tables.len() <= 2 * KEPT && tables.files.len() <= 2 * KEPT);
    }

    #[test]
    fn files_of_one_table_are_one_row() {
        let mut tables = Tables::default();
        for (id, path) in [(1, "d/t#P#a.ibd"), (2, "d/t#P#b.ibd"), (3, "d/t.frm")] {
            tables.begin(&entry(id, path, 10, FileRole::Table));
            tables.add(FileId(id), &Table { reused: 10, ..Table::default() });
        }
        let (named, others, _) = tables.sums();
        assert_eq!(named, [Table { name: "d.t".to_owned(), reused: 30, ..Table::default() }]);
        assert_eq!(others, None);
    }
}
