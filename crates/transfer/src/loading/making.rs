//! One table that is being made: what has arrived of it, and what is to be done with it next.
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::logical::{Content, Rows, Table};

use super::in_words;
use super::schedule::broke;
use crate::failure::Failure;

/// What can be done with a table now; the most urgent first. Keys are made by one thread, so they are begun as soon as all rows are
/// there; and tables are made only where there is nothing to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wants {
    /// All its rows are loaded.
    ToBeFinished,
    /// It is made, and rows wait.
    Rows,
    /// Rows wait for it.
    ToBeMadeForRows,
    /// It is not made.
    ToBeMade,
    /// It is not made, and names others that must be there (`MERGE`).
    ToBeMadeLast,
}

/// How far a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unmade,
    /// It takes rows.
    Made,
    /// A thread makes or finishes it.
    Busy,
    Finished,
}

/// A table that is being made.
#[derive(Debug)]
pub(super) struct Making {
    table: Arc<Table>,
    /// The number of its rows, and all their parts, are known.
    ended: bool,
    /// Several statements can fill it at once.
    divisible: bool,
    stage: Stage,
    /// What makes the keys that are added after its rows.
    add: Vec<Vec<u8>>,
    /// Paths of the parts that have arrived.
    arrived: HashSet<String>,
    /// Files of those that nobody has begun to load.
    waiting: Vec<PathBuf>,
    /// How many of them are loaded.
    loaded: usize,
    rows: u64,
}

impl Making {
    /// A table of which nothing has arrived.
    pub fn of(table: Table) -> Making {
        // The rows of a table that is still to be read are not known.
        let ended = rows_of(&table).is_none_or(|rows| !rows.parts.is_empty());
        Making {
            ended,
            divisible: is_innodb(&table),
            table: Arc::new(table),
            stage: Stage::Unmade,
            add: Vec::new(),
            arrived: HashSet::new(),
            waiting: Vec::new(),
            loaded: 0,
            rows: 0,
        }
    }

    /// The table, as far as it is known.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Its bytes on the donor, about.
    pub fn bytes(&self) -> u64 {
        rows_of(&self.table).map_or(0, |rows| rows.bytes)
    }

    /// Whether all others are made before it. A table without rows of its own can be one of the engine `MERGE`.
    pub fn may_name_others(&self) -> bool {
        matches!(self.table.content, Content::Nothing)
    }

    /// Rows that were loaded.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What can be done with it now.
    pub fn wants(&self) -> Option<Wants> {
        let all = self.ended.then(|| self.parts().len());
        match self.stage {
            Stage::Busy | Stage::Finished => None,
            Stage::Unmade if self.may_name_others() => Some(Wants::ToBeMadeLast),
            Stage::Unmade if self.waiting.is_empty() => Some(Wants::ToBeMade),
            Stage::Unmade => Some(Wants::ToBeMadeForRows),
            Stage::Made if all == Some(self.loaded) => Some(Wants::ToBeFinished),
            Stage::Made if self.waiting.is_empty() => None,
            // Other engines lock the table for a statement, and fill an empty one faster.
            Stage::Made if self.divisible || all == Some(self.waiting.len()) => Some(Wants::Rows),
            Stage::Made => None,
        }
    }

    /// Rows of it are here.
    ///
    /// # Errors
    /// They were here already, or are not the table's.
    pub fn arrived(&mut self, path: String, staged: PathBuf) -> Result<(), Failure> {
        if self.arrived.contains(&path) {
            return Err(broke(format!("sent two parts {path:?}")));
        }
        if self.ended && self.arrived.len() >= self.parts().len() {
            return Err(broke(format!("sent rows of {} after the last ones", in_words(&self.table))));
        }
        self.arrived.insert(path);
        self.waiting.push(staged);
        Ok(())
    }

    /// The number of its rows is known, and their parts are; or that it has no tablespace.
    ///
    /// # Errors
    /// It was described otherwise before.
    pub fn ends(&mut self, last: &Table) -> Result<(), Failure> {
        let known = match (&last.content, &self.table.content) {
            (Content::Rows(rows), Content::Rows(begun)) if !self.ended => {
                Rows { count: begun.count, parts: begun.parts.clone(), ..rows.clone() } == *begun
            }
            (Content::Discarded, Content::Rows(_)) if !self.ended => true,
            (last, known) => last == known,
        };
        if !known || last.create != self.table.create {
            return Err(broke(format!("described {} in two ways", in_words(&self.table))));
        }
        self.ended = true;
        // A thread that loads some of its rows has it meanwhile.
        Arc::make_mut(&mut self.table).content.clone_from(&last.content);
        Ok(())
    }

    /// Fails unless exactly those of its parts that are known have arrived.
    ///
    /// # Errors
    /// One is missing, or is another's.
    pub fn check_arrived(&self) -> Result<(), Failure> {
        let parts = self.parts();
        if let Some(missing) = parts.iter().find(|part| !self.arrived.contains(*part)) {
            return Err(broke(format!("never sent the part {missing:?} of {}", in_words(&self.table))));
        }
        match parts.len() == self.arrived.len() {
            true => Ok(()),
            false => {
                Err(broke(format!("sent rows of {} that it does not name any more", in_words(&self.table))))
            }
        }
    }

    /// A thread makes it.
    pub fn make(&mut self) {
        self.stage = Stage::Busy;
    }

    /// It is made.
    pub fn made(&mut self, add: Vec<Vec<u8>>) {
        (self.add, self.stage) = (add, Stage::Made);
    }

    /// A thread loads so many parts of what waits; all of it if only one statement can load the table.
    pub fn load(&mut self, parts: usize) -> Vec<PathBuf> {
        let parts = if self.divisible { parts.min(self.waiting.len()) } else { self.waiting.len() };
        self.waiting.drain(..parts).collect()
    }

    /// So many parts were loaded, and so many rows were in them.
    pub fn loaded(&mut self, parts: usize, rows: u64) {
        self.loaded += parts;
        self.rows += rows;
    }

    /// A thread finishes it. Returns how many rows were loaded, and what makes its keys.
    pub fn finish(&mut self) -> (u64, Vec<Vec<u8>>) {
        self.stage = Stage::Busy;
        (self.rows, std::mem::take(&mut self.add))
    }

    /// It is complete.
    pub fn finished(&mut self) {
        self.stage = Stage::Finished;
    }

    fn parts(&self) -> &[String] {
        rows_of(&self.table).map_or(&[], |rows| &rows.parts)
    }
}

fn rows_of(table: &Table) -> Option<&Rows> {
    match &table.content {
        Content::Rows(rows) => Some(rows),
        Content::Nothing | Content::Discarded | Content::Sequence(_) => None,
    }
}

/// InnoDB takes rows from several statements at once.
fn is_innodb(table: &Table) -> bool {
    const ENGINE: &[u8] = b"\n) ENGINE=InnoDB";
    table.create.windows(ENGINE.len()).any(|window| window == ENGINE)
}
