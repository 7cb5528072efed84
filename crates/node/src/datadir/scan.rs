//! What a donor sends.
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};

use super::database::table_of;
use super::engines::{self, EnginePolicy};
use super::layout::Layout;
use super::walk::{self, Found, Walked, What};
use crate::disk::identity::Look;
use crate::failure::{Failure, Kind};

/// A file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedFile {
    /// As the joiner will know it.
    pub entry: FileEntry,
    /// Where it is on this node.
    pub path: PathBuf,
    /// Which file it is and in which state.
    pub look: Look,
}

/// Database and table of which nothing is sent.
pub type Skipped = HashSet<(String, String)>;

/// A file that is not sent, for a reason worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it is.
    pub path: PathBuf,
    /// Why it stays.
    pub why: String,
}

/// All of a donor's files.
#[derive(Debug, Default)]
pub struct Scan {
    /// To send, numbered from 0: system tablespace, undo, redo and Aria logs, then tables with the largest first.
    pub files: Vec<ScannedFile>,
    /// Not sent and not of a kind that never is.
    pub left_out: Vec<LeftOut>,
    /// Reasons why this node cannot be a donor; empty when it can.
    pub refusals: Vec<Failure>,
    /// Worth a line in the log.
    pub warnings: Vec<String>,
    /// Tables that the operator wants left out.
    pub skipped: Skipped,
}

/// Lists a donor's files. Files that vanish meanwhile are not listed.
///
/// # Errors
/// A directory or file cannot be looked at.
pub fn scan(layout: &Layout, policy: &EnginePolicy) -> Result<Scan> {
    let walked = walk::walk(layout)?;
    let judged = engines::judge(&walked.lonely, policy)?;
    let (refusals, warnings, skipped) = (judged.refusals, judged.warnings, judged.skipped);
    let mut scan = Scan { refusals, warnings, skipped, ..Scan::default() };
    scan.take(walked);
    scan.refusals.extend(missing(layout, &scan.files));
    scan.left_out.sort_by(|a, b| a.path.cmp(&b.path));
    scan.number();
    Ok(scan)
}

/// Bytes of these files; without the redo log that is about what a server sends that goes on writing it: only what it
/// writes meanwhile is sent of that.
pub fn bytes(files: &[ScannedFile], with_redo: bool) -> u64 {
    let counts = |file: &&ScannedFile| with_redo || file.entry.role != FileRole::Redo;
    files.iter().filter(counts).map(|file| file.entry.size).sum()
}

/// Lists a donor's files as [`scan`] did, without looking at engines again, in no order and numbered alike.
///
/// # Errors
/// A directory or file cannot be looked at.
pub fn list(layout: &Layout, skipped: &Skipped) -> Result<Vec<ScannedFile>> {
    let mut scan = Scan { skipped: skipped.clone(), ..Scan::default() };
    scan.take(walk::walk(layout)?);
    Ok(scan.files)
}

/// As [`list`], only redo, undo and Aria logs and the files of one database.
///
/// # Errors
/// As [`list`].
pub fn list_database(layout: &Layout, name: &str, skipped: &Skipped) -> Result<Vec<ScannedFile>> {
    let mut scan = Scan { skipped: skipped.clone(), ..Scan::default() };
    scan.take(walk::walk_database(layout, name)?);
    Ok(scan.files)
}

fn is_skipped(path: &str, tables: &Skipped) -> bool {
    if tables.is_empty() {
        return false;
    }
    path.split_once('/')
        .is_some_and(|(db, name)| tables.contains(&(db.to_owned(), table_of(name).to_owned())))
}

impl Scan {
    fn take(&mut self, walked: Walked) {
        for found in walked.found {
            match found.what {
                What::LeftOut(why) => self.left_out.push(LeftOut { path: found.path, why }),
                What::Travels { ref path, place: Place::Datadir, .. } if is_skipped(path, &self.skipped) => {
                    let why = "its engine is in skip-engines".to_owned();
                    self.left_out.push(LeftOut { path: found.path, why });
                }
                What::Travels { .. } => self.add(found),
                What::Past { .. } | What::Own => {}
            }
        }
    }

    fn add(&mut self, found: Found) {
        let (What::Travels { place, path, role }, Some(look)) = (found.what, found.look) else { return };
        // A link is its name and where it points to.
        let link = matches!(role, FileRole::Link { .. });
        let (size, allocated) = if link { (0, 0) } else { (look.signature.size, look.allocated) };
        let entry = FileEntry { id: FileId(0), place, path, size, allocated, role };
        match entry.check() {
            Ok(()) => self.files.push(ScannedFile { entry, path: found.path, look }),
            Err(bad) => self.left_out.push(LeftOut { path: found.path, why: bad.why.to_owned() }),
        }
    }

    fn number(&mut self) {
        self.files.sort_by(|a, b| order(a).cmp(&order(b)));
        for (id, file) in (0..).zip(&mut self.files) {
            file.entry.id = FileId(id);
        }
    }
}

/// Kind, then size from the largest, then name.
fn order(file: &ScannedFile) -> (u8, u16, std::cmp::Reverse<u64>, &str) {
    let (kind, index) = match &file.entry.role {
        FileRole::SystemTablespace { index } => (0, *index),
        FileRole::Undo => (1, 0),
        FileRole::Redo => (2, 0),
        FileRole::AriaLog => (3, 0),
        FileRole::Table | FileRole::TableElsewhere { .. } => (4, 0),
        FileRole::Link { .. } | FileRole::Server => (5, 0),
    };
    (kind, index, std::cmp::Reverse(file.entry.size), &file.entry.path)
}

/// Files that are not there and without which no server can start on the copy: the configuration this program read is not
/// the server's.
pub fn missing(layout: &Layout, files: &[ScannedFile]) -> Vec<Failure> {
    let has = |wanted: &dyn Fn(&FileRole) -> bool| files.iter().any(|file| wanted(&file.entry.role));
    let lost = |what: &str, path: &Path| {
        Failure::new(
            Kind::Configuration,
            format!("{what} is not where the configuration says: {}", path.display()),
        )
        .hint("the option files this program reads must be those the server was started with")
    };
    let mut failures = Vec::new();
    for (index, file) in layout.system_files.iter().enumerate() {
        if !has(&|role| matches!(role, FileRole::SystemTablespace { index: at } if usize::from(*at) == index))
        {
            failures.push(lost("a file of the system tablespace", &file.path));
        }
    }
    if !has(&|role| *role == FileRole::Redo) {
        failures.push(lost("the redo log", &layout.log_home.join("ib_logfile0")));
    }
    failures
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
