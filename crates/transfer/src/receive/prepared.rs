//! A received backup becomes the files of a datadir: another program works on the staged files in a directory in which they have
//! the names that they have in a backup. Then what it has left takes their places in the staging directories.
//!
//! Files stay on the filesystem of their targets: one that is staged elsewhere is a symbolic link in that directory.
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::limits::{FILES_MAX, PATH_BYTES_MAX};

use crate::datadir::backup_files::{file_in_backup, name_in_backup};
use crate::disk::durable::remove_directory_if_there;
use crate::failure::{Failure, Kind};
use crate::flavor::Flavor;
use crate::install::files::{Disk, Files};
use crate::install::names::{PREPARE, own_directory, working_directory};
use crate::receive::moving::move_file;
use crate::receive::rested::StagedFiles;
use crate::receive::staged::StagedFile;
use crate::receive::staging::Staging;

/// Removes the directory in which the program worked.
fn forget(datadir: &Path) -> Result<()> {
    remove_directory_if_there(&working_directory(&own_directory(datadir), PREPARE))
}

impl Staging {
    /// Has `program` work on the settled files, which are `files`. Returns what it has left; `target_of` says where each of that
    /// is installed.
    ///
    /// # Errors
    /// From the program; from the disk; a file of the result cannot be installed.
    pub fn prepare(
        &self,
        files: &Entries,
        program: impl FnOnce(&Path) -> Result<()>,
        target_of: impl Fn(&FileEntry) -> Result<PathBuf, Failure>,
    ) -> Result<Entries> {
        forget(&self.datadir)?;
        let directory = working_directory(&own_directory(&self.datadir), PREPARE);
        let prepared = self.in_directory(files, &directory, program, target_of);
        // Whatever is left there belongs to the backup, or to a transfer that has failed.
        let removed = forget(&self.datadir);
        let prepared = prepared?;
        removed.map(|()| prepared)
    }

    fn in_directory(
        &self,
        files: &Entries,
        directory: &Path,
        program: impl FnOnce(&Path) -> Result<()>,
        target_of: impl Fn(&FileEntry) -> Result<PathBuf, Failure>,
    ) -> Result<Entries> {
        let known = self.lay_out(files, directory)?;
        program(directory)?;
        let (mut shared, mut entries, mut staged) =
            (self.shared(), Entries::default(), StagedFiles::default());
        let begun = std::mem::take(&mut shared.files);
        for (number, name) in (0..).zip(names(directory)?) {
            let Some(entry) = entry(self.flavor, directory, &name, FileId(number), &known)? else { continue };
            if number >= FILES_MAX {
                bail!(Failure::new(Kind::Refused, "the prepared backup has too many files"));
            }
            let to = self.choose(&mut shared, &entry, &target_of(&entry)?)?;
            move_file(&directory.join(&name), &to.path)?;
            staged.insert(
                entry.id,
                Arc::new(StagedFile { made: AtomicBool::new(true), patchable: false, ..to }),
            );
            staged.rest(entry.id);
            entries.insert(&entry);
        }
        shared.files = staged;
        // Those that were dropped, or renamed, while they were a link.
        let kept = shared.files.numbers().into_iter();
        let kept: HashSet<PathBuf> =
            kept.filter_map(|file| Some(shared.files.look(file)?.path.clone())).collect();
        for number in begun.numbers() {
            if let Some(file) = begun.look(number).filter(|file| !kept.contains(&file.path)) {
                Disk.remove(&file.path)?;
            }
        }
        Ok(entries)
    }

    /// Gives the settled files their names in a backup. Returns their entries by these names.
    fn lay_out(&self, files: &Entries, directory: &Path) -> Result<HashMap<String, FileEntry>> {
        let (mut known, own) = (HashMap::new(), working_directory(&own_directory(&self.datadir), "stage"));
        for entry in files.iter() {
            let (name, staged) = (name_in_backup(&entry), self.path(entry.id)?);
            let path = directory.join(&name);
            let parent = path.parent().context("a file of a backup without a directory")?;
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
            if known.insert(name, entry).is_some() {
                bail!(Failure::new(Kind::Peer, format!("the donor sent {} twice", path.display())));
            }
            let laid = match staged.parent() == Some(&*own) {
                true => fs::rename(&staged, &path),
                false => std::os::unix::fs::symlink(&staged, &path),
            };
            laid.with_context(|| format!("cannot give {} its name in the backup", staged.display()))?;
        }
        Ok(known)
    }
}

/// Names of the files in a directory and in its directories, sorted.
fn names(directory: &Path) -> Result<Vec<String>> {
    let list = |at: &Path| -> Result<Vec<(String, bool)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(at).with_context(|| format!("cannot list {}", at.display()))? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            // A file of the server has no such name.
            names.extend(name.ok().map(|name| (name, entry.path().is_dir())));
        }
        Ok(names)
    };
    let mut names = Vec::new();
    for (name, is_directory) in list(directory)? {
        if is_directory {
            let inside = list(&directory.join(&name))?.into_iter().filter(|(_, is_directory)| !is_directory);
            names.extend(inside.map(|(file, _)| format!("{name}/{file}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// What a file of the prepared backup is; `None` if it belongs to the backup.
fn entry(
    flavor: &dyn Flavor,
    directory: &Path,
    name: &str,
    id: FileId,
    known: &HashMap<String, FileEntry>,
) -> Result<Option<FileEntry>> {
    let path = directory.join(name);
    let meta = fs::metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?;
    let (size, allocated) = (meta.len(), meta.blocks() * 512);
    let entry = match known.get(name) {
        Some(known) => FileEntry { id, size, allocated, ..known.clone() },
        None => {
            let (place, role) = file_in_backup(flavor, name);
            FileEntry { id, place, path: name.to_owned(), size, allocated, role }
        }
    };
    if entry.role == FileRole::Backup {
        return Ok(None);
    }
    // A table that was created or renamed while the backup was made.
    let elsewhere = name.strip_suffix(".ibd").map(|table| format!("{table}.isl"));
    let owner = elsewhere.filter(|owner| entry.place == Place::Datadir && directory.join(owner).is_file());
    Ok(Some(match owner {
        None => entry,
        Some(owner) => {
            let path = link_target(&directory.join(&owner))?;
            FileEntry { place: Place::External, path, role: FileRole::TableElsewhere { owner }, ..entry }
        }
    }))
}

/// The path in an `.isl` file.
fn link_target(path: &Path) -> Result<String> {
    let text = crate::disk::small_file::read(path, PATH_BYTES_MAX as u64 + 1)?.unwrap_or_default();
    let text = String::from_utf8(text).with_context(|| format!("{} is not text", path.display()))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
#[path = "prepared_tests.rs"]
mod tests;
