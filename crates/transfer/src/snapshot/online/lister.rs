//! Lists the files repeatedly, without examining all of them each time.
//!
//! The first listing reads every directory and examines every file. From just before it, the kernel notes which names
//! in the directories change ([`Watch`]). Each further listing examines those names, the files that are written in
//! place without redo, and the few files that belong to no database. So the listing in the consistency point costs only
//! what changed since the one right before it.
//!
//! # Why nothing is missed
//! - A directory is watched before it is read: later changes are events, earlier ones were seen.
//! - An event is queued before the system call that causes it returns. In the consistency point no statement is between
//!   two such calls, because BLOCK_DDL waited for them. What InnoDB does to files by itself there has redo, and
//!   `checks` finds it.
//! - Examining a file once too often is harmless: a listing may come between an event and the query for it.
//! - Data files in which only pages change have redo and need not be examined. IMPORT TABLESPACE has no redo, but it
//!   closes the file that it has written, which is an event.
//! - If the kernel drops events, or a directory cannot be watched, everything is listed as the first time, also in the
//!   consistency point.
//! - A file elsewhere (`DATA DIRECTORY`) is not in a directory that is watched. It is examined each time, by way of the link or
//!   `.isl` file that names it; the other files of its database are not.
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::catalog::{Catalog, Todo};
use super::listing::{self, Listed, Roots};
use crate::disk::watch::{Changed, Watch};

/// Name of the datadir among the watched directories; no database has it.
const DATADIR: &str = "";

/// Lists the files of one server.
#[derive(Debug)]
pub struct Lister<'a> {
    roots: &'a Roots,
    /// `None`: everything is listed each time.
    watch: Option<Watch>,
    /// Everything was listed once, so the watch reports what is new.
    begun: bool,
    always: Always,
    /// Names in the datadir that were databases.
    databases: HashSet<String>,
}

/// What is examined each time, because its changes are no events.
#[derive(Debug, Default)]
struct Always {
    /// Files that are written in place, and those that name a file elsewhere, by database.
    by_name: HashMap<String, HashSet<OsString>>,
    /// Links in the datadir that lead nowhere.
    dangling: HashSet<String>,
}

impl<'a> Lister<'a> {
    /// Nothing has been listed yet.
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
            always: Always::default(),
            databases: HashSet::new(),
        }
    }

    /// Brings the catalog up to date: examines what may have changed since the last time, or everything.
    ///
    /// # Errors
    /// A directory or file cannot be examined.
    pub fn refresh(&mut self, catalog: &mut Catalog) -> Result<Todo> {
        if let Some(changed) = self.changed()? {
            let datadir = &self.roots.layout.datadir;
            let todo = catalog.update_changed(datadir, &changed, |take| self.all_changed(&changed, take))?;
            if let Some(todo) = todo {
                return Ok(todo);
            }
        }
        let first = catalog.files().is_empty();
        if !first && let Some(todo) = catalog.update_each(|take| self.all(take))? {
            return Ok(todo);
        }
        let mut files = Vec::new();
        self.all(&mut |file| files.push(file))?;
        if first {
            // Sorted names resemble their neighbours, so that the list is sent in half the bytes.
            files.sort_by(|a, b| a.name().cmp(b.name()));
        }
        Ok(catalog.update(files))
    }

    /// Takes what the kernel has noted so far. It keeps only so much of it, and a checkpoint that closes and opens
    /// thousands of files while they are copied would be more than that.
    ///
    /// # Errors
    /// From the system.
    pub fn collect(&mut self) -> Result<()> {
        self.watch.as_mut().map_or(Ok(()), Watch::collect).context("cannot see what changed in the datadir")
    }

    /// Lists all files, one at a time: there can be very many. Later changes are reported by the watch.
    fn all(&mut self, take: &mut dyn FnMut(Listed)) -> Result<()> {
        let Lister { roots, watch, begun, always, databases } = self;
        *always = Always::default();
        databases.clear();
        let Some(watch) = watch else { return listing::each(roots, take) };
        watch.clear();
        watch.changes().context("cannot see what changed in the datadir")?;
        let datadir = &roots.layout.datadir;
        watch.add(DATADIR, datadir);
        let mut before = |name: &str, path: &Path| {
            databases.insert(name.to_owned());
            watch.add(name, path);
        };
        listing::each_told(roots, &mut before, &mut |file| {
            always.remember(roots, &file);
            take(file);
        })?;
        *begun = true;
        let entries = fs::read_dir(datadir).context("cannot list the datadir")?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        always.remember_dangling(roots, names);
        Ok(())
    }

    /// What may have changed since the last listing; `None` if that could be anything.
    fn changed(&mut self) -> Result<Option<HashMap<String, Changed>>> {
        let Some(watch) = self.watch.as_mut().filter(|_| self.begun) else { return Ok(None) };
        let Some(mut looked) = watch.changes().context("cannot see what changed in the datadir")? else {
            return Ok(None);
        };
        let datadir = &self.roots.layout.datadir;
        match looked.remove(DATADIR) {
            None => {}
            Some(Changed::All) => return Ok(None),
            Some(Changed::Names(names)) => {
                // Only databases that appeared or disappeared: other names are always examined, or belong to this host.
                let names = names.iter().filter_map(|name| name.to_str());
                let is_directory =
                    |name: &str| datadir.join(name).is_dir() || datadir.join(name).is_symlink();
                let names = names.filter(|name| self.databases.contains(*name) || is_directory(name));
                looked.extend(names.map(|name| (name.to_owned(), Changed::All)));
            }
        }
        looked.extend(self.always.dangling.iter().map(|name| (name.clone(), Changed::All)));
        for (database, names) in &self.always.by_name {
            let changed = looked.entry(database.clone()).or_insert_with(|| Changed::Names(HashSet::new()));
            if let Changed::Names(all) = changed {
                all.extend(names.iter().cloned());
            }
        }
        Ok(Some(looked))
    }

    /// As [`Lister::all`], of what may have changed.
    fn all_changed(
        &mut self,
        changed: &HashMap<String, Changed>,
        take: &mut dyn FnMut(Listed),
    ) -> Result<()> {
        let Lister { roots, watch, always, databases, .. } = self;
        let mut before = |name: &str, path: &Path| {
            databases.insert(name.to_owned());
            if let Some(watch) = watch {
                watch.add(name, path);
            }
        };
        listing::each_changed(roots, changed, &mut before, &mut |file| {
            always.remember(roots, &file);
            take(file);
        })?;
        let whole = changed.iter().filter(|(_, changed)| **changed == Changed::All);
        let names: Vec<String> = whole.map(|(name, _)| name.clone()).collect();
        always.remember_dangling(roots, names.into_iter());
        Ok(())
    }
}

impl Always {
    /// A dangling link in the datadir can become a database without being changed itself.
    fn remember_dangling(&mut self, roots: &Roots, names: impl Iterator<Item = String>) {
        let datadir = &roots.layout.datadir;
        let dangles = |name: &String| datadir.join(name).is_symlink() && !datadir.join(name).is_dir();
        self.dangling.extend(names.filter(dangles));
    }

    fn remember(&mut self, roots: &Roots, file: &Listed) {
        let Some((database, name)) = file.in_database() else { return };
        if file.is_elsewhere() || file.is_written_in_place(roots.layout.flavor) {
            self.by_name.entry(database.into_owned()).or_default().insert(name.into_owned().into());
        }
    }
}

#[cfg(test)]
#[path = "lister_tests.rs"]
mod tests;
