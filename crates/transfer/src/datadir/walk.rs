//! Looks at every name of a node's directories once and says what each is. [`super::scan`] (what a donor sends) and
//! [`super::managed`] (what a joiner replaces) are two views of the same list, so that they cannot disagree.
use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::mariadb::file_kind::is_binlog_of;
use protocol::inventory::{FileRole, Place};

use super::database;
use super::found::{Take, Walked, What, canonical_name, entries, is_gone, metadata};
use super::layout::{Layout, follow, with_suffix};
use super::lineage;
use super::{FINGERPRINTS_FILE, KEPT_DIRECTORY};
use crate::disk::lock;
use crate::disk::watch::Changed;
use crate::flavor::{Flavor, InDatadir, Numbered};
use crate::server::changes::CHANGES_FILE;
use crate::server::log;
use crate::server::status::STATUS_FILE;
use crate::writesets::ist::rate::REPLAY_FILE;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Logs {
    Binary,
    Relay,
}

/// Told the name and the path of a database's directory before it is read.
pub(crate) type Before<'a> = &'a mut dyn FnMut(&str, &Path);

/// Lists all directories of the layout. What vanishes meanwhile is not listed.
pub(super) fn walk<'a>(layout: &Layout, before: Before<'_>, take: Take<'a>) -> Result<Walked<'a>> {
    let mut walked = Walked::new(take);
    walked.configured_files(layout)?;
    walked.numbered_files(layout)?;
    walked.logs_of(layout.binlog.as_deref(), Logs::Binary)?;
    walked.logs_of(Some(&layout.relay_log), Logs::Relay)?;
    walked.datadir(layout, &|_| true, before)?;
    Ok(walked)
}

/// Lists the files that are of no database, and of databases what may have changed.
pub(super) fn walk_changed<'a>(
    layout: &Layout,
    changes: &HashMap<String, Changed>,
    before: Before<'_>,
    take: Take<'a>,
) -> Result<Walked<'a>> {
    let mut walked = Walked::new(take);
    walked.configured_files(layout)?;
    walked.numbered_files(layout)?;
    let wanted = |name: &str| {
        changes.get(name) == Some(&Changed::All) || layout.flavor.in_datadir(name) == InDatadir::Data
    };
    walked.datadir(layout, &wanted, before)?;
    let own_dirs: Vec<PathBuf> = layout.directories().into_iter().map(follow).collect();
    for (database, changed) in changes {
        if let Changed::Names(names) = changed {
            database::list_names(&mut walked, layout, database, names, &own_dirs)?;
        }
    }
    Ok(walked)
}

/// Lists only the numbered files and one database.
pub(super) fn walk_database<'a>(layout: &Layout, name: &str, take: Take<'a>) -> Result<Walked<'a>> {
    let mut walked = Walked::new(take);
    walked.numbered_files(layout)?;
    let own_dirs: Vec<PathBuf> = layout.directories().into_iter().map(follow).collect();
    database::list(&mut walked, layout, &layout.datadir.join(name), name, &own_dirs)?;
    Ok(walked)
}

impl Walked<'_> {
    /// Files whose names the configuration gives.
    fn configured_files(&mut self, layout: &Layout) -> Result<()> {
        let mut names = HashSet::new();
        for (index, file) in layout.system_files.iter().enumerate() {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let mut path = file_name(&file.path).to_owned();
            if !names.insert(path.clone()) {
                // Two files of one name in two directories: on the wire the names must differ.
                path = format!("{index}-{path}");
            }
            let role = FileRole::SystemTablespace { index };
            self.configured(&file.path, What::Travels { place: Place::DataHome, path, role })?;
        }
        if let Some(name) =
            layout.buffer_pool_dump.strip_prefix(&layout.data_home).ok().and_then(Path::to_str)
        {
            let what =
                What::Travels { place: Place::DataHome, path: name.to_owned(), role: FileRole::Server };
            self.configured(&layout.buffer_pool_dump, what)?;
        }
        self.configured(
            &with_suffix(&layout.buffer_pool_dump, ".incomplete"),
            What::Past { keepable: false },
        )?;
        for path in layout
            .temp_files
            .iter()
            .chain(&layout.ddl_logs)
            .chain([&layout.tc_log])
            .chain(&layout.binlog_index)
        {
            self.configured(path, What::Past { keepable: false })?;
        }
        self.configured(&layout.relay_log_index, What::Past { keepable: true })
    }

    /// One file by its path. A symbolic link (an operator's own way to split a datadir) is followed: it stays, and the
    /// file behind it is what counts.
    fn configured(&mut self, path: &Path, what: What) -> Result<()> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_file() => {
                let (name, real) = (canonical_name(path), follow(path));
                if name == real || self.seen.insert(name) {
                    self.add(real, what, Some(&meta));
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(e) if is_gone(&e) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("cannot look at {}", path.display())),
        }
    }

    /// Redo, undo and the second engine's logs in their directories.
    fn numbered_files(&mut self, layout: &Layout) -> Result<()> {
        let places = [Place::LogHome, Place::UndoDir, Place::SecondLogDir];
        for (place, dir) in places.iter().filter_map(|place| Some((*place, layout.directory(*place)?))) {
            for entry in entries(dir)? {
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
                let what = match layout.flavor.numbered(place, &name) {
                    Some(Numbered::Data(role)) => What::Travels { place, path: name, role },
                    Some(Numbered::Past) => What::Past { keepable: false },
                    None => continue,
                };
                self.configured(&entry.path(), what)?;
            }
        }
        Ok(())
    }

    /// Binary or relay logs of a base name. A replica of several sources has `BASE-CONNECTION.NNNNNN` too.
    fn logs_of(&mut self, base: Option<&Path>, kind: Logs) -> Result<()> {
        let Some((base, dir)) = base.and_then(|base| Some((base, base.parent()?))) else { return Ok(()) };
        let stem = file_name(base);
        for entry in entries(dir)? {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let own_stem = match name.split_once('.') {
                Some((own, _)) if kind == Logs::Relay && own.starts_with(&format!("{stem}-")) => own,
                _ => stem,
            };
            if is_binlog_of(own_stem, &name) && entry.file_type().is_ok_and(|t| !t.is_dir()) {
                let Some(meta) = metadata(&entry)? else { continue };
                self.add(entry.path(), What::Past { keepable: kind == Logs::Relay }, Some(&meta));
            }
        }
        Ok(())
    }

    /// The datadir itself, then the databases: of names that are wanted.
    fn datadir(&mut self, layout: &Layout, wanted: &dyn Fn(&str) -> bool, before: Before<'_>) -> Result<()> {
        let own_dirs: Vec<PathBuf> = layout.directories().into_iter().map(follow).collect();
        for entry in entries(&layout.datadir)? {
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                self.add(path, What::LeftOut("its name is not UTF-8".to_owned()), None);
                continue;
            };
            if !wanted(&name) || self.seen.contains(&canonical_name(&path)) {
                continue;
            }
            let Some(meta) = metadata(&entry)? else { continue };
            let leads_to_directory = meta.is_symlink() && path.is_dir();
            if !meta.is_dir() && !leads_to_directory {
                self.add(path, top_level(layout.flavor, &name, &meta), Some(&meta));
            } else if own_dirs.contains(&follow(&path)) || is_no_databases(&name) {
                self.add(path, What::Own, None);
            } else if layout.ignore_db_dirs.contains(&name) {
                self.add(path, What::LeftOut("ignore_db_dirs names it".to_owned()), None);
            } else if !layout.flavor.is_database(&name) {
                let why = "a directory of another engine or server".to_owned();
                self.add(path, What::LeftOut(why), None);
            } else {
                before(&name, &path);
                database::list(self, layout, &path, &name, &own_dirs)?;
            }
        }
        Ok(())
    }
}

/// Directories that every server passes over, and ours.
fn is_no_databases(name: &str) -> bool {
    name.starts_with('.') || name == "lost+found" || name == KEPT_DIRECTORY
}

/// What a distribution's packages keep for themselves: `debian-10.11.flag` says which series was last installed on this host.
pub(crate) fn is_packagers(name: &str) -> bool {
    name.starts_with("debian-") && name.ends_with(".flag")
}

/// What a file directly in the datadir is that no setting names.
fn top_level(flavor: &dyn Flavor, name: &str, meta: &Metadata) -> What {
    if !meta.is_file() && !meta.is_symlink() {
        // Sockets, FIFOs.
        return What::Own;
    }
    match flavor.in_datadir(name) {
        InDatadir::Data => {
            What::Travels { place: Place::Datadir, path: name.to_owned(), role: FileRole::Server }
        }
        InDatadir::Past { keepable } => What::Past { keepable },
        InDatadir::ReplicationSource => What::Past { keepable: true },
        InDatadir::Own | InDatadir::TransferMarker => What::Own,
        InDatadir::LeftOut(why) => What::LeftOut(why.to_owned()),
        InDatadir::Unknown if is_a_programs(name) => What::Own,
        InDatadir::Unknown => What::LeftOut("not a known file of the server".to_owned()),
    }
}

/// Whether a file that no server has belongs to a running program, to the distribution, or to us.
fn is_a_programs(name: &str) -> bool {
    name.ends_with(".pid")
        || is_packagers(name)
        || [STATUS_FILE, CHANGES_FILE, FINGERPRINTS_FILE, REPLAY_FILE].iter().any(|own| name.starts_with(own))
        || log::is_ours(name)
        || [lineage::FILE, lock::FILE].contains(&name)
}

pub(super) fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
