//! Which files there are, again and again, without looking at all of them each time.
//!
//! The first listing reads every directory and looks at every file. From before it on the kernel notes which names in
//! them change ([`Watch`]); each further listing looks at those, at what is written in place without redo, and at the few
//! files of no database. So the listing in the consistency point costs what changed since the one right before it.
//!
//! # Why nothing is missed
//! - A directory is watched before it is read: what changes later is an event, what changed before was seen.
//! - An event is queued before the system call that causes it returns. In the consistency point no statement is between
//!   two such calls: BLOCK_DDL waited for them. What InnoDB does to files by itself there has redo, and `checks` finds it.
//! - Looking once too often is harmless: a listing may come between an event and the question for it.
//! - Data files that only their pages change in have redo and need no look. IMPORT TABLESPACE has none: it closes the file
//!   that it has written, which is an event.
//! - Where the kernel drops events, or a directory cannot be watched, it is listed as the first time, also in the
//!   consistency point; and so is a database of which files lie elsewhere.
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;

use anyhow::{Context, Result};

use super::catalog::{Catalog, Todo};
use super::listing::{self, Listed, Roots};
use crate::disk::watch::{Changed, Watch};

/// The datadir's own name among those that are watched; no database has it.
const DATADIR: &str = "";

/// Lists the files of one server.
#[derive(Debug)]
pub struct Lister<'a> {
    roots: &'a Roots,
    /// `None`: everything is listed each time.
    watch: Option<Watch>,
    /// Everything was listed once, so that the watch says what is new.
    begun: bool,
    /// Files that are written in place, by database.
    in_place: HashMap<String, HashSet<OsString>>,
    /// Databases of which files lie elsewhere.
    elsewhere: HashSet<String>,
    /// Names in the datadir that were databases.
    databases: HashSet<String>,
}

/// What was looked at, and what of it is there.
type Found = (HashMap<String, Changed>, Vec<Listed>);

impl<'a> Lister<'a> {
    /// Nothing listed yet.
    pub fn new(roots: &'a Roots) -> Lister<'a> {
        let watch = Watch::new().inspect_err(|e| {
            tracing::info!(
                "changes of the datadir cannot be watched ({e}): all files are listed while replication is paused; \
                 fs.inotify.max_user_instances limits it"
            );
        });
        Lister {
            roots,
            watch: watch.ok(),
            begun: false,
            in_place: HashMap::new(),
            elsewhere: HashSet::new(),
            databases: HashSet::new(),
        }
    }

    /// Brings the catalog up to date: looks at what may have changed since the last time, or at everything.
    ///
    /// # Errors
    /// A directory or file that cannot be looked at.
    pub fn refresh(&mut self, catalog: &mut Catalog) -> Result<Todo> {
        if let Some((looked, files)) = self.changed()?
            && let Some(todo) = catalog.update_changed(&self.roots.layout.datadir, &looked, files)
        {
            return Ok(todo);
        }
        let mut files = self.all()?;
        if catalog.files().is_empty() {
            // Lists of names that resemble their neighbours travel in half the bytes.
            files.sort_by(|a, b| a.name().cmp(b.name()));
        }
        Ok(catalog.update(files))
    }

    /// All files. What changes from now on will be known.
    fn all(&mut self) -> Result<Vec<Listed>> {
        self.in_place.clear();
        self.elsewhere.clear();
        self.databases.clear();
        let Some(watch) = &mut self.watch else { return listing::list(self.roots) };
        watch.clear();
        watch.changes().context("what changed in the datadir")?;
        watch.add(DATADIR, &self.roots.layout.datadir);
        let files = listing::list_told(self.roots, &mut |name, path| {
            self.databases.insert(name.to_owned());
            watch.add(name, path);
        })?;
        self.begun = true;
        self.remember(&files);
        let entries = fs::read_dir(&self.roots.layout.datadir).context("the datadir")?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        self.remember_dangling(names);
        Ok(files)
    }

    /// What may have changed since the last listing; `None` when that could be anything.
    fn changed(&mut self) -> Result<Option<Found>> {
        let Some(watch) = self.watch.as_mut().filter(|_| self.begun) else { return Ok(None) };
        let Some(mut looked) = watch.changes().context("what changed in the datadir")? else {
            return Ok(None);
        };
        let datadir = &self.roots.layout.datadir;
        match looked.remove(DATADIR) {
            None => {}
            Some(Changed::All) => return Ok(None),
            Some(Changed::Names(names)) => {
                // Databases that came or went, among files that are always looked at or belong to this host.
                let names = names.iter().filter_map(|name| name.to_str());
                let is_directory =
                    |name: &str| datadir.join(name).is_dir() || datadir.join(name).is_symlink();
                let names = names.filter(|name| self.databases.contains(*name) || is_directory(name));
                looked.extend(names.map(|name| (name.to_owned(), Changed::All)));
            }
        }
        looked.extend(self.elsewhere.iter().map(|name| (name.clone(), Changed::All)));
        for (database, names) in &self.in_place {
            let changed = looked.entry(database.clone()).or_insert_with(|| Changed::Names(HashSet::new()));
            if let Changed::Names(all) = changed {
                all.extend(names.iter().cloned());
            }
        }
        let files = listing::list_changed(self.roots, &looked, &mut |name, path| {
            self.databases.insert(name.to_owned());
            watch.add(name, path);
        })?;
        self.remember(&files);
        let whole = looked.iter().filter(|(_, changed)| **changed == Changed::All);
        let names: Vec<String> = whole.map(|(name, _)| name.clone()).collect();
        self.remember_dangling(names.into_iter());
        Ok(Some((looked, files)))
    }

    /// A link of the datadir that leads nowhere may lead to a database without a change of its own.
    fn remember_dangling(&mut self, names: impl Iterator<Item = String>) {
        let datadir = &self.roots.layout.datadir;
        let dangles = |name: &String| datadir.join(name).is_symlink() && !datadir.join(name).is_dir();
        self.elsewhere.extend(names.filter(dangles));
    }

    fn remember(&mut self, files: &[Listed]) {
        for file in files {
            let Some((database, name)) = file.in_database() else { continue };
            if file.is_elsewhere() {
                self.elsewhere.insert(database.into_owned());
            } else if file.is_written_in_place() {
                self.in_place.entry(database.into_owned()).or_default().insert(name.into_owned().into());
            }
        }
    }
}

#[cfg(test)]
#[path = "lister_tests.rs"]
mod tests;
