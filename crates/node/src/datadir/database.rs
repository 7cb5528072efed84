//! The files of one database.
use std::collections::HashSet;
use std::fs::{self, DirEntry, Metadata};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use formats::mariadb::file_kind::{self, TableFile};
use protocol::inventory::{FileRole, Place};

use super::layout::{Layout, absolute};
use super::walk::{Found, Walked, What, entries, follow, is_gone, metadata};

/// Longest `.isl` content: one path (`OS_FILE_MAX_PATH` is 4000).
const ISL_BYTES_MAX: u64 = 4096;

/// A `.frm` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// Directory name of the database.
    pub database: String,
    /// File name without `.frm`.
    pub table: String,
    pub path: PathBuf,
}

/// One database's directory: a single reading of it, one look at each file.
pub(super) fn list(
    walked: &mut Walked,
    layout: &Layout,
    dir: &Path,
    database: &str,
    own_dirs: &[PathBuf],
) -> Result<()> {
    let mut named = Vec::new();
    let listed = match entries(dir) {
        // The server runs as the same user: what it cannot list is no database of its own.
        Err(e) if is_denied(&e) => {
            push(
                walked,
                dir.to_path_buf(),
                What::LeftOut("it cannot be listed: permission denied".to_owned()),
                None,
            );
            return Ok(());
        }
        listed => listed?,
    };
    for entry in listed {
        match entry.file_name().into_string() {
            Ok(name) => named.push((name, entry)),
            Err(_) => push(walked, entry.path(), What::LeftOut("its name is not UTF-8".to_owned()), None),
        }
    }
    let is_table = |name: &str| file_kind::in_database(name) != TableFile::Unknown;
    if !named.iter().any(|(name, _)| is_table(name)) {
        let why =
            if named.is_empty() { "an empty directory" } else { "a directory without a file of a table" };
        push(walked, dir.to_path_buf(), What::LeftOut(why.to_owned()), None);
        return Ok(());
    }
    walked.databases.push(dir.to_path_buf());
    let with_data: HashSet<&str> = named
        .iter()
        .filter(|(name, _)| has_data(file_kind::in_database(name)))
        .map(|(name, _)| table_of(name))
        .collect();
    let mut files = Files { walked, layout, database, own_dirs };
    for (name, entry) in &named {
        let Some(meta) = metadata(entry)? else { continue };
        let travels = files.one(name, entry, &meta)?;
        let definition = file_kind::in_database(name) == TableFile::Definition;
        if travels && definition && !with_data.contains(table_of(name)) {
            let table = table_of(name).to_owned();
            files.walked.lonely.push(Definition { database: database.to_owned(), table, path: entry.path() });
        }
    }
    Ok(())
}

/// Kinds that hold the rows of a table, or lead to them: a definition beside one needs no look.
fn has_data(kind: TableFile) -> bool {
    matches!(
        kind,
        TableFile::InnodbTablespace
            | TableFile::InnodbLink
            | TableFile::MyisamData
            | TableFile::AriaData
            | TableFile::CsvData
            | TableFile::ArchiveData
            | TableFile::Merge
    )
}

/// The table a file belongs to: the name up to its extension, or up to the partition's name.
pub(super) fn table_of(name: &str) -> &str {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let partition = stem.find("#P#").or_else(|| stem.find("#p#"));
    partition.and_then(|at| stem.get(..at)).unwrap_or(stem)
}

struct Files<'a> {
    walked: &'a mut Walked,
    layout: &'a Layout,
    database: &'a str,
    own_dirs: &'a [PathBuf],
}

impl Files<'_> {
    /// Classifies one name; true when it travels.
    fn one(&mut self, name: &str, entry: &DirEntry, meta: &Metadata) -> Result<bool> {
        let path = entry.path();
        let kind = file_kind::in_database(name);
        let what = if meta.is_dir() {
            let real = follow(&path);
            let own = name.starts_with('.') || self.own_dirs.iter().any(|dir| dir.starts_with(&real));
            if own { What::Own } else { What::LeftOut("a directory inside a database".to_owned()) }
        } else if kind == TableFile::Unknown {
            What::LeftOut("not a file of a table that is known".to_owned())
        } else if kind == TableFile::ArchiveTemp || is_temporary_without_redo(name, kind) {
            What::Past { keepable: true }
        } else if meta.is_symlink() {
            return self.link(name, &path, meta);
        } else if !meta.is_file() {
            What::LeftOut("neither a file nor a link".to_owned())
        } else {
            if kind == TableFile::InnodbLink {
                self.innodb_link(name, &path)?;
            }
            self.travels(name, FileRole::Table)
        };
        let travels = matches!(what, What::Travels { .. });
        push(self.walked, path, what, Some(meta));
        Ok(travels)
    }

    fn travels(&self, name: &str, role: FileRole) -> What {
        What::Travels { place: Place::Datadir, path: self.relative(name), role }
    }

    fn relative(&self, name: &str) -> String {
        format!("{}/{name}", self.database)
    }

    /// `DATA DIRECTORY` and `INDEX DIRECTORY` of MyISAM and Aria: a symbolic link, and the file it leads to.
    fn link(&mut self, name: &str, path: &Path, meta: &Metadata) -> Result<bool> {
        let written = fs::read_link(path).unwrap_or_default();
        let target = if is_plain_absolute(&written) {
            absolute(Path::new("/"), &written.to_string_lossy())
        } else {
            follow(path)
        };
        let travels = match self.elsewhere(&target, self.relative(name))? {
            Outcome::Listed => true,
            Outcome::Missing => {
                let why = format!("a symbolic link to {}, which does not exist", written.display());
                push(self.walked, path.to_path_buf(), What::LeftOut(why), None);
                false
            }
            Outcome::Inside => {
                let why = format!("a symbolic link to {}, which is inside the datadir", written.display());
                push(self.walked, path.to_path_buf(), What::LeftOut(why), None);
                false
            }
        };
        if travels {
            let what = self.travels(name, FileRole::Link { target: target.to_string_lossy().into_owned() });
            push(self.walked, path.to_path_buf(), what, Some(meta));
        }
        Ok(travels)
    }

    /// `DATA DIRECTORY` of InnoDB: a text file with the path of the tablespace.
    fn innodb_link(&mut self, name: &str, path: &Path) -> Result<()> {
        let Some(written) = read_short(path)? else { return Ok(()) };
        let mut target = absolute(&self.layout.datadir, written.trim_end());
        if !is_plain_absolute(&target) {
            target = follow(&target);
        }
        let why = match self.elsewhere(&target, self.relative(name))? {
            Outcome::Listed => return Ok(()),
            Outcome::Missing => "does not exist (named by an .isl file)",
            Outcome::Inside => "is inside the datadir but an .isl file names it",
        };
        push(self.walked, target, What::LeftOut(why.to_owned()), None);
        Ok(())
    }

    /// A file outside the datadir, listed once however many lead to it.
    fn elsewhere(&mut self, target: &Path, owner: String) -> Result<Outcome> {
        let meta = match fs::metadata(target) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Ok(Outcome::Missing),
            Err(e) if is_gone(&e) => return Ok(Outcome::Missing),
            Err(e) => return Err(e).with_context(|| format!("cannot look at {}", target.display())),
        };
        if follow(target).starts_with(follow(&self.layout.datadir)) {
            return Ok(Outcome::Inside);
        }
        let path = target.to_string_lossy().into_owned();
        let what = What::Travels { place: Place::External, path, role: FileRole::TableElsewhere { owner } };
        self.walked.add(target.to_path_buf(), what, Some(&meta));
        Ok(Outcome::Listed)
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}

enum Outcome {
    Listed,
    Missing,
    Inside,
}

/// InnoDB's intermediate tables have redo and a place in its dictionary, so they travel; those of other engines are
/// leftovers of statements and temporary tables, and so is every temporary definition.
fn is_temporary_without_redo(name: &str, kind: TableFile) -> bool {
    let innodb = matches!(kind, TableFile::InnodbTablespace | TableFile::InnodbLink);
    file_kind::is_temporary(name) && !innodb
}

fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
}

/// Content of a file of one line; `None` when it is gone.
fn read_short(path: &Path) -> Result<Option<String>> {
    let mut text = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(ISL_BYTES_MAX).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Adds without the look for duplicates: names inside one directory are unique, and there can be very many.
fn push(walked: &mut Walked, path: PathBuf, what: What, meta: Option<&Metadata>) {
    walked.found.push(Found::new(path, what, meta));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_names() {
        for (name, table) in [
            ("t.ibd", "t"),
            ("t#P#p0.ibd", "t"),
            ("t#P#p0#SP#s1.MYD", "t"),
            ("t#p#p0.isl", "t"),
            ("t@002e1.frm", "t@002e1"),
            ("db.opt", "db"),
        ] {
            assert_eq!(table_of(name), table, "{name}");
        }
    }
}
