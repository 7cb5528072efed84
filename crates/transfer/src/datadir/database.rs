//! The files of one database.
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use protocol::inventory::{FileRole, Place};

use super::found::{Definition, Found, Names, Walked, What, is_gone, may_read};
use super::layout::{Layout, absolute, follow};
use crate::failure::{Failure, Kind};
use crate::flavor::TableFile;

/// Longest `.isl` content: one path (`OS_FILE_MAX_PATH` is 4000).
const ISL_BYTES_MAX: u64 = 4096;

/// Lists one database's directory: the directory is read once, and each file is examined once.
pub(super) fn list(
    walked: &mut Walked<'_>,
    layout: &Layout,
    dir: &Path,
    database: &str,
    own_dirs: &[PathBuf],
) -> Result<()> {
    let mut names = match Names::of(dir) {
        // The server runs as the same user: what it cannot list is no database of its own.
        Err(e) if is_denied(&e) => {
            let what = What::LeftOut("it cannot be listed: permission denied".to_owned());
            walked.found(Found { path: dir.to_path_buf(), what, look: None, readable: false });
            return Ok(());
        }
        names => names?,
    };
    for name in std::mem::take(&mut names.others) {
        push(walked, dir.join(name), What::LeftOut("its name is not UTF-8".to_owned()), None);
    }
    let kind_of = |name: &str| layout.flavor.in_database(name);
    if !names.iter().any(|name| kind_of(name).is_some()) {
        let why = match names.iter().next() {
            None => "an empty directory",
            Some(_) => "a directory without a file of a table",
        };
        push(walked, dir.to_path_buf(), What::LeftOut(why.to_owned()), None);
        return Ok(());
    }
    walked.databases.push(dir.to_path_buf());
    let has_rows = |name: &&str| kind_of(name).is_some_and(TableFile::has_rows);
    let with_data: HashSet<&str> = names.iter().filter(has_rows).map(table_of).collect();
    let mut files = Files { walked, layout, database, own_dirs };
    for name in names.iter() {
        let path = dir.join(name);
        let Some(meta) = metadata(&path)? else { continue };
        let travels = files.one(name, &path, &meta)?;
        let definition = kind_of(name) == Some(TableFile::Definition);
        if travels && definition && !with_data.contains(table_of(name)) {
            let table = table_of(name).to_owned();
            files.walked.lonely.push(Definition { database: database.to_owned(), table, path });
        }
    }
    Ok(())
}

/// Lists the given names in one database's directory, as [`list`] does, if they exist.
pub(super) fn list_names(
    walked: &mut Walked<'_>,
    layout: &Layout,
    database: &str,
    names: &HashSet<OsString>,
    own_dirs: &[PathBuf],
) -> Result<()> {
    let dir = layout.datadir.join(database);
    let mut files = Files { walked, layout, database, own_dirs };
    for name in names.iter().filter_map(|name| name.to_str()) {
        let path = dir.join(name);
        if let Some(meta) = metadata(&path)? {
            files.one(name, &path, &meta)?;
        }
    }
    Ok(())
}

/// A look at a name, links not followed; `None` when it is gone.
fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot look at {}", path.display())),
    }
}

/// The table that a file belongs to: the name up to its extension, or up to the partition's name.
pub(crate) fn table_of(name: &str) -> &str {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let partition = stem.find("#P#").or_else(|| stem.find("#p#"));
    partition.and_then(|at| stem.get(..at)).unwrap_or(stem)
}

struct Files<'a, 'w> {
    walked: &'a mut Walked<'w>,
    layout: &'a Layout,
    database: &'a str,
    own_dirs: &'a [PathBuf],
}

impl Files<'_, '_> {
    /// Classifies one name; true when it travels.
    fn one(&mut self, name: &str, path: &Path, meta: &Metadata) -> Result<bool> {
        let kind = self.layout.flavor.in_database(name);
        let what = if meta.is_dir() {
            let real = follow(path);
            let own = name.starts_with('.') || self.own_dirs.iter().any(|dir| dir.starts_with(&real));
            if own { What::Own } else { What::LeftOut("a directory inside a database".to_owned()) }
        } else if kind.is_none() {
            What::LeftOut("not a known kind of table file".to_owned())
        } else if kind == Some(TableFile::Leftover) {
            What::Past { keepable: true }
        } else if meta.is_symlink() {
            return self.link(name, path, meta);
        } else if !meta.is_file() {
            What::LeftOut("neither a file nor a link".to_owned())
        } else {
            if kind == Some(TableFile::TablespaceLink) && may_read(path, meta) {
                self.innodb_link(name, path)?;
            }
            self.travels(name, FileRole::Table)
        };
        let found = Found::new(path.to_path_buf(), what, Some(meta));
        let travels = matches!(found.what, What::Travels { .. }) && found.readable;
        self.walked.found(found);
        Ok(travels)
    }

    fn travels(&self, name: &str, role: FileRole) -> What {
        What::Travels { place: Place::Datadir, path: self.relative(name), role }
    }

    fn relative(&self, name: &str) -> String {
        format!("{}/{name}", self.database)
    }

    /// `DATA DIRECTORY` and `INDEX DIRECTORY` of other engines than InnoDB: a symbolic link, and its target.
    fn link(&mut self, name: &str, path: &Path, meta: &Metadata) -> Result<bool> {
        let written = fs::read_link(path).unwrap_or_default();
        let target = if is_plain_absolute(&written) {
            absolute(Path::new("/"), &written.to_string_lossy())
        } else {
            follow(path)
        };
        let (what, meta) = match self.elsewhere(&target, self.relative(name))? {
            Outcome::Listed => {
                let role = FileRole::Link { target: target.to_string_lossy().into_owned() };
                (self.travels(name, role), Some(meta.clone()))
            }
            // The server follows the link; on the joiner it becomes a regular file.
            Outcome::Inside(meta) => (self.travels(name, FileRole::Table), Some(meta)),
            Outcome::Missing(why) => {
                let why = format!("a symbolic link to {}, which {why}", written.display());
                (What::LeftOut(why), None)
            }
        };
        let found = Found::new(path.to_path_buf(), what, meta.as_ref());
        let travels = matches!(found.what, What::Travels { .. }) && found.readable;
        self.walked.found(found);
        Ok(travels)
    }

    /// `DATA DIRECTORY` of InnoDB: a text file with the path of the tablespace.
    fn innodb_link(&mut self, name: &str, path: &Path) -> Result<()> {
        let Some(written) = read_short(path)? else { return Ok(()) };
        let mut target = absolute(&self.layout.datadir, written.trim_end());
        if !is_plain_absolute(&target) {
            target = follow(&target);
        }
        match self.elsewhere(&target, self.relative(name))? {
            Outcome::Listed => {}
            Outcome::Missing(why) => {
                push(self.walked, target, What::LeftOut(format!("{why} (an .isl file names it)")), None);
            }
            Outcome::Inside(_) => {
                let text = format!(
                    "{} names {}, a tablespace inside this node's datadir; other nodes may have another datadir",
                    path.display(),
                    target.display()
                );
                let hint = "stop this server, move the file to the name of the .isl file with .ibd instead, and remove the \
                            .isl file";
                self.walked.refusals.push(Failure::new(Kind::Configuration, text).hint(hint));
            }
        }
        Ok(())
    }

    /// Handles a file outside the datadir, which is listed once even if several links refer to it.
    fn elsewhere(&mut self, target: &Path, owner: String) -> Result<Outcome> {
        let meta = match fs::metadata(target) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Ok(Outcome::Missing("is not a file".to_owned())),
            Err(e) if is_gone(&e) => return Ok(Outcome::Missing("does not exist".to_owned())),
            // This is a loop, or a parent directory that the server's user may not search.
            Err(e) => return Ok(Outcome::Missing(format!("cannot be followed ({e})"))),
        };
        if follow(target).starts_with(follow(&self.layout.datadir)) {
            return Ok(Outcome::Inside(meta));
        }
        let Some(path) = target.to_str().map(str::to_owned) else {
            let text = format!("the table {owner} is in {}, whose path is not UTF-8", target.display());
            let hint = "give its directory a name in UTF-8";
            self.walked.refusals.push(Failure::new(Kind::Configuration, text).hint(hint));
            return Ok(Outcome::Missing("is not UTF-8".to_owned()));
        };
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
    /// It does not refer to a file, for this reason.
    Missing(String),
    /// It refers to this file of the datadir.
    Inside(Metadata),
}

fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
}

/// Reads a file of one line; `None` if it does not exist.
fn read_short(path: &Path) -> Result<Option<String>> {
    let mut text = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(ISL_BYTES_MAX).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Adds without the look for duplicates: names inside one directory are unique, and there can be very many.
fn push(walked: &mut Walked<'_>, path: PathBuf, what: What, meta: Option<&Metadata>) {
    walked.found(Found::new(path, what, meta));
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
