//! What a donor sends.
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};

use super::database::table_of;
use super::engines::{self, EnginePolicy};
use super::found::{Found, Walked, What};
use super::layout::Layout;
use super::walk::{self, Before};
use crate::disk::identity::Look;
use crate::disk::watch::Changed;
use crate::failure::{Failure, Kind};
use crate::flavor::Numbered;

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

/// Why a table of such an engine stays.
const SKIPPED: &str = "its engine is in skip-engines";

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
    /// To send, numbered from 0: system tablespace, undo, redo and the second engine's logs, then tables with the largest first.
    pub files: Vec<ScannedFile>,
    /// Not sent and not of a kind that never is.
    pub left_out: Vec<LeftOut>,
    /// Those of them that would be sent if this process might read them: files of tables, and directories.
    pub unreadable: Vec<PathBuf>,
    /// Reasons why this node cannot be a donor; empty when it can.
    pub refusals: Vec<Failure>,
    /// Worth a line in the log.
    pub warnings: Vec<String>,
    /// Tables that the operator wants left out.
    pub skipped: Skipped,
}

impl Scan {
    /// Nothing is left out silently.
    ///
    /// # Errors
    /// Every reason why this node cannot be a donor.
    pub fn refuse_what_cannot_travel(&self) -> Result<(), Failure> {
        if self.refusals.is_empty() {
            return Ok(());
        }
        let reasons: Vec<String> = self.refusals.iter().map(Failure::to_string).collect();
        Err(Failure::new(Kind::Refused, reasons.join("; ")))
    }
}

/// Lists a donor's files. Files that vanish meanwhile are not listed.
///
/// # Errors
/// A directory or file cannot be looked at.
pub fn scan(layout: &Layout, policy: &EnginePolicy) -> Result<Scan> {
    let mut scan = Scan::default();
    let mut files = Vec::new();
    let mut take = |found| files.extend(scan.take(found));
    let Walked { lonely, refusals, .. } = walk::walk(layout, &mut |_, _| {}, &mut take)?;
    let judged = engines::judge(&lonely, policy)?;
    (scan.warnings, scan.skipped, scan.files) = (judged.warnings, judged.skipped, files);
    let unfit = std::mem::replace(&mut scan.refusals, judged.refusals);
    scan.refusals.extend(refusals.into_iter().chain(unfit));
    scan.leave_skipped();
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

/// Takes each file as it is listed: there can be very many.
pub type Take<'a> = &'a mut dyn FnMut(ScannedFile);

/// Lists a donor's files as [`scan`] did, without looking at engines again, in no order and numbered alike. `before` is told
/// of each database's directory before it is read.
///
/// # Errors
/// A directory or file cannot be looked at.
pub fn list(layout: &Layout, skipped: &Skipped, before: Before<'_>, take: Take<'_>) -> Result<()> {
    let mut scan = Scan { skipped: skipped.clone(), ..Scan::default() };
    walk::walk(layout, before, &mut |found| scan.take(found).into_iter().for_each(&mut *take)).map(drop)
}

/// As [`list`], only the files that are of no database, and of databases what may have changed.
///
/// # Errors
/// As [`list`].
pub fn list_changed(
    layout: &Layout,
    skipped: &Skipped,
    changes: &HashMap<String, Changed>,
    before: Before<'_>,
    take: Take<'_>,
) -> Result<()> {
    let mut scan = Scan { skipped: skipped.clone(), ..Scan::default() };
    let mut take = |found| scan.take(found).into_iter().for_each(&mut *take);
    walk::walk_changed(layout, changes, before, &mut take).map(drop)
}

/// As [`list`], only redo, undo, the second engine's logs and the files of one database.
///
/// # Errors
/// As [`list`].
pub fn list_database(layout: &Layout, name: &str, skipped: &Skipped, take: Take<'_>) -> Result<()> {
    let mut scan = Scan { skipped: skipped.clone(), ..Scan::default() };
    walk::walk_database(layout, name, &mut |found| scan.take(found).into_iter().for_each(&mut *take))
        .map(drop)
}

pub(crate) fn is_skipped(path: &str, tables: &Skipped) -> bool {
    if tables.is_empty() {
        return false;
    }
    path.split_once('/')
        .is_some_and(|(db, name)| tables.contains(&(db.to_owned(), table_of(name).to_owned())))
}

impl Scan {
    /// The file to send, if it is one.
    fn take(&mut self, found: Found) -> Option<ScannedFile> {
        if !found.readable {
            self.unreadable(&found);
        }
        let why = match found.what {
            What::LeftOut(why) => why,
            What::Travels { ref path, place: Place::Datadir, .. } if is_skipped(path, &self.skipped) => {
                SKIPPED.to_owned()
            }
            What::Travels { .. } if found.readable => return self.fitting(found),
            What::Travels { .. } => "the server's user may not read it".to_owned(),
            What::Past { .. } | What::Own => return None,
        };
        self.left_out.push(LeftOut { path: found.path, why });
        None
    }

    /// Which tables are skipped is known only when all names are.
    fn leave_skipped(&mut self) {
        if self.skipped.is_empty() {
            return;
        }
        let skipped = &self.skipped;
        let leaves = |file: &mut ScannedFile| {
            file.entry.place == Place::Datadir && is_skipped(&file.entry.path, skipped)
        };
        for file in self.files.extract_if(.., leaves) {
            self.left_out.push(LeftOut { path: file.path, why: SKIPPED.to_owned() });
        }
    }

    fn fitting(&mut self, found: Found) -> Option<ScannedFile> {
        let (What::Travels { place, path, role }, Some(look)) = (found.what, found.look) else { return None };
        // A link is its name and where it points to.
        let link = matches!(role, FileRole::Link { .. });
        let (size, allocated) = if link { (0, 0) } else { (look.signature.size, look.allocated) };
        let entry = FileEntry { id: FileId(0), place, path, size, allocated, role };
        match entry.check() {
            Ok(()) => return Some(ScannedFile { entry, path: found.path, look }),
            // Where the server makes the name, there is none that does not fit.
            Err(bad) if entry.place == Place::External => {
                let text = format!("{} cannot be sent: its path {}", found.path.display(), bad.why);
                self.refusals.push(Failure::new(Kind::Configuration, text).hint("move the table elsewhere"));
            }
            Err(bad) => self.left_out.push(LeftOut { path: found.path, why: bad.why.to_owned() }),
        }
        None
    }

    /// A file that every server needs is a refusal. The caller decides about the others.
    fn unreadable(&mut self, found: &Found) {
        use FileRole::{Redo, SecondLog, SystemTablespace, Undo};
        match &found.what {
            What::Travels { role: SystemTablespace { .. } | Undo | Redo | SecondLog, .. } => {
                let at = found.path.display();
                let text = format!("{at} cannot be read by the server's user");
                let hint = format!("give it back: chown mysql: {at} && chmod u+rw {at}");
                self.refusals.push(Failure::new(Kind::Configuration, text).hint(hint));
            }
            _ => self.unreadable.push(found.path.clone()),
        }
    }

    fn number(&mut self) {
        // No two files are equal, and a stable sort takes half as much memory again for very many.
        self.files.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
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
        FileRole::SecondLog => (3, 0),
        FileRole::Table | FileRole::TableElsewhere { .. } => (4, 0),
        FileRole::Link { .. } | FileRole::Server | FileRole::Part | FileRole::Backup => (5, 0),
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
        failures.push(lost("the redo log", &layout.redo_log()));
    }
    failures
}

/// Whether the server's redo log is in archived files only (`innodb_log_archive=ON`): the one with which a joiner's server starts is
/// not there.
///
/// # Errors
/// The directory cannot be read.
pub fn redo_is_archived(layout: &Layout) -> Result<bool> {
    let mut is_archived = false;
    for entry in std::fs::read_dir(&layout.log_home).with_context(|| layout.log_home.display().to_string())? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name == layout.flavor.redo_log() {
            return Ok(false);
        }
        let kind = layout.flavor.numbered(Place::LogHome, name);
        is_archived |= matches!(kind, Some(Numbered::Data(FileRole::Redo)));
    }
    Ok(is_archived)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
