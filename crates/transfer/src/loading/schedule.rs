//! Which statement is next, while rows still arrive: a value without I/O, which is told what has arrived and what was done.
//!
//! Parts are looked at in the order of their numbers, whatever the order in which they arrive. So everything that is loaded belongs to
//! the snapshot whose definitions came last, and a donor that begins its snapshot again is noticed before a row of the new one is
//! loaded. What was loaded before is void as a whole ([`Schedule::snapshot`] is another one then).
//!
//! InnoDB takes rows from several statements at once as fast as from one, because each of them fills pages of its own. A statement
//! is one transaction, so it also bounds what InnoDB keeps to undo it: files do not shrink again.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use protocol::inventory::FileId;
use protocol::logical::{Content, Contents, Table};

use super::in_words;
use super::making::{Making, Wants};
use super::referenced::Referenced;
use crate::failure::{Failure, Kind};
use crate::snapshot::logical::part::prefix;

/// Statements for each thread, if there are enough rows: who is done first has something left to do.
const FOR_EACH_THREAD: usize = 4;
/// Parts of rows that one statement loads, if there are more: the beginning and the end of a statement cost little beside so many,
/// and what is kept to undo them stays small. If there are fewer, nobody waits for more.
const PARTS: RangeInclusive<usize> = 4..=32;

/// What a part has, once it is here and as the donor sent it.
#[derive(Debug)]
pub(super) enum Arrived {
    /// A snapshot begins: this is known of it.
    Definitions(Box<Contents>),
    /// All rows of this table were sent before.
    Table(Table),
    /// Rows, in this file.
    Rows(String, PathBuf),
}

/// What a thread does next with the table of this number.
#[derive(Debug)]
pub(super) enum Step {
    /// Make it.
    Make(usize, Arc<Table>),
    /// Load the rows in these files, by the statement of this number.
    Load(usize, Arc<Table>, Vec<PathBuf>, usize),
    /// So many rows of it were loaded, which is all: add these keys.
    Finish(usize, Arc<Table>, u64, Vec<Vec<u8>>),
}

/// Whether there is something to do.
#[derive(Debug)]
pub(super) enum Next {
    /// This.
    Step(Step),
    /// Not now.
    Wait,
    /// Nothing is left.
    Done,
}

/// Everything that has arrived, and what was done with it.
#[derive(Debug)]
pub(super) struct Schedule {
    threads: usize,
    /// Parts that wait for those with smaller numbers, or for the first definitions.
    ahead: BTreeMap<FileId, Arrived>,
    /// The number of the part that is looked at next.
    next: u32,
    current: Option<Snapshot>,
}

/// What is loaded.
#[derive(Debug)]
struct Snapshot {
    /// The number of the part that began it.
    number: FileId,
    /// Everything but the tables: of those only sequences.
    contents: Arc<Contents>,
    /// Columns whose keys other tables need at once.
    referenced: Arc<Referenced>,
    /// How many tables there are, with sequences.
    count: usize,
    /// The largest first, so that the last ones end together.
    tables: Vec<Making>,
    by_prefix: HashMap<String, usize>,
    /// What can be done now.
    ready: BTreeSet<(Wants, usize)>,
    /// Tables that must be made before those that name them.
    unmade: usize,
    /// Parts of rows that nobody has begun to load.
    waiting: usize,
    /// Statements that were begun.
    statements: usize,
    /// Tables that are complete.
    finished: usize,
    /// Rows of `mysql`, which are loaded after all others, by their paths.
    system: HashMap<String, PathBuf>,
    /// The donor has said that there is no more.
    is_last: bool,
}

impl Schedule {
    /// Nothing has arrived; so many threads will ask for steps.
    pub fn new(threads: usize) -> Schedule {
        Schedule { threads: threads.max(1), ahead: BTreeMap::new(), next: 0, current: None }
    }

    /// A part is here. A part whose number was used before is a fault of the donor.
    ///
    /// # Errors
    /// The parts contradict each other.
    pub fn arrived(&mut self, number: FileId, part: Arrived) -> Result<(), Failure> {
        if number.0 < self.next || self.ahead.insert(number, part).is_some() {
            return Err(broke(format!("sent part number {} twice", number.0)));
        }
        while let Some(first) = self.ahead.first_entry() {
            let begins = matches!(first.get(), Arrived::Definitions(_));
            if first.key().0 != self.next || !begins && self.current.is_none() {
                break;
            }
            let (number, part) = first.remove_entry();
            self.next = self.next.saturating_add(1);
            self.look_at(number, part)?;
        }
        Ok(())
    }

    fn look_at(&mut self, number: FileId, part: Arrived) -> Result<(), Failure> {
        match (part, &mut self.current) {
            (Arrived::Definitions(contents), current) => *current = Some(Snapshot::new(number, *contents)),
            (Arrived::Table(table), Some(current)) => current.table_ends(&table)?,
            (Arrived::Rows(path, staged), Some(current)) => current.rows_arrived(path, staged)?,
            (_, None) => {}
        }
        Ok(())
    }

    /// The donor has sent everything; all of it has arrived. `contents` is its last word, and no part of it has a smaller number than
    /// `first`.
    ///
    /// # Errors
    /// It is not what was sent.
    pub fn is_complete(&mut self, contents: &Contents, first: FileId) -> Result<(), Failure> {
        if self.current.is_none() {
            // A donor of an earlier version describes a snapshot at its end only. It may have begun again.
            self.ahead = self.ahead.split_off(&first);
            self.current = Some(Snapshot::new(first, contents.clone()));
        }
        for (number, part) in std::mem::take(&mut self.ahead) {
            self.next = number.0.saturating_add(1);
            self.look_at(number, part)?;
        }
        let current = self.current.as_mut().filter(|current| current.number == first);
        current.ok_or_else(|| broke("named parts of an earlier snapshot as its last one"))?.ends(contents)
    }

    /// The number of the snapshot that is loaded, and what was known of it when it began: without its tables, but with sequences.
    pub fn snapshot(&self) -> Option<(FileId, Arc<Contents>)> {
        self.current.as_ref().map(|current| (current.number, Arc::clone(&current.contents)))
    }

    /// Columns of its tables whose keys other tables need at once.
    pub fn referenced(&self) -> Option<Arc<Referenced>> {
        self.current.as_ref().map(|current| Arc::clone(&current.referenced))
    }

    /// Where some rows of `mysql` are, if all these parts are here.
    pub fn system(&self, parts: &[String]) -> Option<Vec<PathBuf>> {
        let system = &self.current.as_ref()?.system;
        parts.iter().map(|part| system.get(part).cloned()).collect()
    }

    /// What to do next.
    pub fn next(&mut self) -> Next {
        let threads = self.threads;
        match &mut self.current {
            Some(current) => current.next(threads),
            None => Next::Wait,
        }
    }

    /// A table was made; `add` makes the keys that it does not have yet.
    pub fn made(&mut self, table: usize, add: Vec<Vec<u8>>) {
        let Some(current) = &mut self.current else { return };
        let made = |making: &mut Making| {
            making.made(add);
            !making.may_name_others()
        };
        if current.change(table, made) == Some(true) {
            current.unmade -= 1;
        }
    }

    /// A statement has loaded so many rows from so many parts.
    pub fn loaded(&mut self, table: usize, parts: usize, rows: u64) {
        self.change(table, |making| making.loaded(parts, rows));
    }

    /// A table is complete.
    pub fn finished(&mut self, table: usize) {
        if let Some(current) = &mut self.current {
            current.finished += 1;
        }
        self.change(table, Making::finished);
    }

    /// Rows that were loaded.
    pub fn rows(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.tables.iter().map(Making::rows).sum())
    }

    fn change(&mut self, table: usize, change: impl FnOnce(&mut Making)) {
        if let Some(current) = &mut self.current {
            current.change(table, change);
        }
    }
}

impl Snapshot {
    fn new(number: FileId, mut contents: Contents) -> Snapshot {
        let count = contents.tables.len();
        let referenced = Arc::new(Referenced::by(&contents.tables));
        let (sequences, tables) = contents.tables.into_iter().partition::<Vec<_>, _>(is_sequence);
        contents.tables = sequences;
        let mut tables: Vec<Making> = tables.into_iter().map(Making::of).collect();
        tables.sort_by_key(|making| std::cmp::Reverse(making.bytes()));
        let unmade = tables.iter().filter(|making| !making.may_name_others()).count();
        let by_prefix = tables.iter().enumerate();
        let by_prefix = by_prefix.map(|(at, making)| (prefix_of(making.table()), at)).collect();
        let ready =
            tables.iter().enumerate().filter_map(|(at, making)| Some((making.wants()?, at))).collect();
        Snapshot {
            number,
            contents: Arc::new(contents),
            referenced,
            count,
            tables,
            by_prefix,
            ready,
            unmade,
            waiting: 0,
            statements: 0,
            finished: 0,
            system: HashMap::new(),
            is_last: false,
        }
    }

    fn change<T>(&mut self, table: usize, change: impl FnOnce(&mut Making) -> T) -> Option<T> {
        let making = self.tables.get_mut(table)?;
        if let Some(wanted) = making.wants() {
            self.ready.remove(&(wanted, table));
        }
        let changed = change(making);
        self.ready.extend(making.wants().map(|wants| (wants, table)));
        Some(changed)
    }

    fn rows_arrived(&mut self, path: String, staged: PathBuf) -> Result<(), Failure> {
        let of = path.split('/').next().and_then(|prefix| self.by_prefix.get(prefix).copied());
        let Some(table) = of else {
            return match self.system.insert(path.clone(), staged) {
                None => Ok(()),
                Some(_) => Err(broke(format!("sent two parts {path:?}"))),
            };
        };
        self.waiting += 1;
        self.change(table, |making| making.arrived(path, staged)).unwrap_or(Ok(()))
    }

    fn table_ends(&mut self, table: &Table) -> Result<(), Failure> {
        let known = self.by_prefix.get(&prefix_of(table)).copied();
        let known = known.ok_or_else(|| broke(format!("described {} only later", in_words(table))))?;
        let ends = |making: &mut Making| making.ends(table).and_then(|()| making.check_arrived());
        self.change(known, ends).unwrap_or(Ok(()))
    }

    /// Everything is known now. Fails unless it is what the snapshot began with, and all of it has arrived.
    fn ends(&mut self, last: &Contents) -> Result<(), Failure> {
        let first = Arc::clone(&self.contents);
        let is_same = (first.version, &first.server_version, first.lower_case_table_names)
            == (last.version, &last.server_version, last.lower_case_table_names)
            && (&first.databases, &first.system, &first.texts)
                == (&last.databases, &last.system, &last.texts)
            && self.count == last.tables.len()
            && first.tables.iter().eq(last.tables.iter().filter(|table| is_sequence(table)));
        if !is_same {
            return Err(broke("described its snapshot in one way before its rows and in another after them"));
        }
        let mut named = HashSet::new();
        for table in last.tables.iter().filter(|table| !is_sequence(table)) {
            self.table_ends(table)?;
            if !named.insert((&table.database, &table.name)) {
                return Err(broke(format!("described {} twice", in_words(table))));
            }
        }
        let mut system = last.system.iter().flat_map(|system| &system.rows.parts);
        if let Some(missing) = system.find(|part| !self.system.contains_key(*part)) {
            return Err(broke(format!("never sent the part {missing:?} of its snapshot")));
        }
        self.is_last = true;
        Ok(())
    }

    fn next(&mut self, threads: usize) -> Next {
        let Some((wants, table)) = self.ready.first().copied() else {
            return if self.is_last && self.finished == self.tables.len() { Next::Done } else { Next::Wait };
        };
        let step = match wants {
            Wants::ToBeMadeLast if self.unmade > 0 => None,
            Wants::ToBeFinished => {
                let finish = |making: &mut Making| {
                    let (rows, add) = making.finish();
                    Step::Finish(table, Arc::clone(making.table()), rows, add)
                };
                self.change(table, finish)
            }
            Wants::Rows => {
                let parts = (self.waiting / (threads * FOR_EACH_THREAD)).clamp(*PARTS.start(), *PARTS.end());
                self.statements += 1;
                let number = self.statements;
                let load = |making: &mut Making| (making.load(parts), Arc::clone(making.table()));
                self.change(table, load).map(|(parts, of)| {
                    self.waiting = self.waiting.saturating_sub(parts.len());
                    Step::Load(table, of, parts, number)
                })
            }
            Wants::ToBeMadeForRows | Wants::ToBeMade | Wants::ToBeMadeLast => self.change(table, |making| {
                making.make();
                Step::Make(table, Arc::clone(making.table()))
            }),
        };
        step.map_or(Next::Wait, Next::Step)
    }
}

fn is_sequence(table: &Table) -> bool {
    matches!(table.content, Content::Sequence(_))
}

fn prefix_of(table: &Table) -> String {
    prefix(&table.database, &table.name)
}

/// A contradiction in what the donor sent.
pub(super) fn broke(what: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Peer, format!("the donor {what}"))
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
