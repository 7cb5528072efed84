//! What a comparison found.
use serde::Serialize;

use super::difference::{Different, NAMED};
use super::pair::{Found, Pair};

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Files on both sides.
    pub files: u64,
    /// Their bytes, on the first side.
    pub bytes: u64,
    /// Files of tables that only the first side has.
    pub only_first: Vec<String>,
    /// Files of tables that only the second side has.
    pub only_second: Vec<String>,
    /// Files that differ.
    pub different: Vec<Different>,
    /// Corrupt pages with the path of their file; the first few.
    pub corrupt: Vec<String>,
    /// The number of corrupt pages.
    pub corrupt_pages: u64,
    /// A server runs on the second side: changes in its memory were not compared.
    pub running: bool,
    /// What else was not compared, as sentences: changes that are only in a redo log, files that are not
    /// sent.
    pub unseen: Vec<String>,
    /// Pages of either side may be older than its state, which is in a redo log that differs.
    pub state_in_redo: bool,
}

impl Report {
    /// Whether nothing relevant differs, and no change is known to be outside the compared files.
    pub fn is_same(&self) -> bool {
        !self.state_in_redo
            && self.only_first.is_empty()
            && self.only_second.is_empty()
            && self.different.iter().all(|d| d.own_life)
    }

    pub(super) fn take(&mut self, pair: &Pair, found: Found) {
        self.state_in_redo |= pair.is_redo() && found.different.is_some();
        match (&pair.files, found.different) {
            ([Some(_), None], Some(different)) if !different.own_life => {
                self.only_first.push(different.file);
            }
            ([None, Some(_)], Some(different)) if !different.own_life => {
                self.only_second.push(different.file);
            }
            (_, different) => self.different.extend(different),
        }
        self.corrupt_pages += found.damage.len() as u64;
        let room = NAMED.saturating_sub(self.corrupt.len());
        self.corrupt.extend(found.damage.into_iter().take(room));
    }

    pub(super) fn sort(&mut self) {
        self.only_first.sort();
        self.only_second.sort();
        self.corrupt.sort();
        self.different.sort_by(|a, b| a.file.cmp(&b.file));
    }
}
