//! Records are validated like messages from a peer, because anyone who can write to the datadir can write
//! them.
//!
//! | a record names | it must be |
//! |---|---|
//! | a staging root | the datadir's own, or a directory called `.rejoin` that belongs to our user, with no link in its path; if it does not exist yet: in a directory of the next row |
//! | a file of the server | in the datadir or one of its databases, in a directory that the configuration names, or behind a link in one of these |
//! | a file of a table elsewhere | named like a file of that table; the record or the datadir has the link or `.isl` file of that table, or a link to it |
//! | a staged file or one of the previous state | directly in `stage`, `copy`, `old` or `discard` of a root of the same record, which are not links |
//!
//! Whether the link of a table elsewhere leads to that very file is not asked: in the middle of an install it may be the old
//! one, the new one or none.
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

use crate::datadir::layout::Layout;
use crate::failure::{Failure, Kind};
use crate::flavor::{Flavor, TableFile};
use crate::install::files::{Disk, Files, What};
use crate::install::names::{
    GRASTATE, INSTALL, INSTALLED, OF_PROGRAMS, OWN_DIRECTORY, RELEASED, ROOTS, directory_of, file_name,
    own_directory, waiting_room,
};
use crate::install::plan::{InstallPlan, Purpose};
use crate::install::record::read_record;
use crate::install::roots::remembered;

/// The directories of a root that contain files.
const ROOMS: [&str; 4] = ["stage", "copy", "old", "discard"];

/// Checks every record of a datadir before any of it is carried out. `layout` is called only if there is a
/// record. The caller holds the lock of the datadir.
///
/// Of a finished install only the previous state is checked, since nothing else is removed later; before a
/// rollback, [`check_undo`] checks the rest. The node's directories may have been reconfigured since the
/// install.
///
/// # Errors
/// The record, the path, and what is wrong with it.
pub fn check(datadir: &Path, layout: impl FnOnce() -> Result<Layout>) -> Result<()> {
    let own = own_directory(datadir);
    for directory in [own.clone(), waiting_room(&own)] {
        if !matches!(Disk.what(&directory)?, None | Some(What::Directory)) {
            bail!(refused(&directory, "it is not a directory"));
        }
    }
    let mut plans = Vec::new();
    for name in [INSTALL, INSTALLED, RELEASED, ROOTS] {
        match Disk.what(&own.join(name))? {
            None => {}
            Some(What::File) if name == ROOTS => plans.push((name, None)),
            Some(What::File) => plans.push((name, read_record(&Disk, datadir, name)?)),
            Some(_) => bail!(refused(&own.join(name), "it is not a regular file")),
        }
    }
    if plans.is_empty() {
        return Ok(());
    }
    let places = Places::of(datadir, &layout()?);
    for (name, plan) in plans {
        let checked = match &plan {
            Some(plan) if name == INSTALL => Record { places: &places, plan }.check(Of::Plan),
            Some(plan) => Record { places: &places, plan }.check_kept(),
            None => remembered(&Disk, datadir)?.iter().try_for_each(|root| places.root(root, false)),
        };
        checked.map_err(|wrong| names(&own.join(name), wrong))?;
    }
    Ok(())
}

/// Checks all paths of the last finished install, before it is rolled back.
///
/// # Errors
/// The path, and what is wrong with it.
pub fn check_undo(datadir: &Path, layout: &Layout) -> Result<()> {
    let Some(plan) = read_record(&Disk, datadir, INSTALLED)? else { return Ok(()) };
    let checked = Record { places: &Places::of(datadir, layout), plan: &plan }.check(Of::Undo);
    checked.map_err(|wrong| names(&own_directory(datadir).join(INSTALLED), wrong).into())
}

fn names(record: &Path, (path, why): (PathBuf, &str)) -> Failure {
    let text = format!("{} names {}: {why}; nothing was done", record.display(), path.display());
    let hint = "give the --defaults-file that the server used then; if the server never had files there, rejoin did not write the record";
    Failure::new(Kind::Disk, text).hint(hint)
}

/// Checks a plan before it is recorded, because a record that would be refused later must not be written.
///
/// # Errors
/// The path, and what is wrong with it.
pub fn check_plan(plan: &InstallPlan, layout: &Layout) -> Result<()> {
    let places = Places::of(&plan.datadir, layout);
    let Err((path, why)) = (Record { places: &places, plan }).check(Of::Plan) else { return Ok(()) };
    let text = format!("the install would change {}: {why}; nothing was done", path.display());
    bail!(
        Failure::new(Kind::Refused, text).hint(
            "look for a link that the server did not create, and put the file at the server's own path"
        )
    )
}

fn refused(path: &Path, why: &str) -> Failure {
    Failure::new(Kind::Disk, format!("{}: {why}; nothing was done", path.display()))
        .hint("rejoin did not create it: find out which program did, and remove it")
}

type Checked = Result<(), (PathBuf, &'static str)>;

/// The directories of a server's files.
struct Places {
    flavor: &'static dyn Flavor,
    datadir: PathBuf,
    /// The directories, also with links resolved.
    directories: BTreeSet<PathBuf>,
    /// The targets of links in them.
    linked: HashSet<PathBuf>,
}

impl Places {
    fn of(datadir: &Path, layout: &Layout) -> Places {
        let files = [&layout.relay_log, &layout.relay_log_index, &layout.tc_log, &layout.buffer_pool_dump];
        let more =
            files.into_iter().chain(&layout.binlog_index).chain(&layout.ddl_logs).chain(&layout.temp_files);
        let named =
            layout.directories().into_iter().chain(more.filter_map(|file| file.parent())).chain([datadir]);
        let directories: BTreeSet<PathBuf> = named
            .flat_map(|dir| [dir.to_owned(), Disk.real_path(dir).unwrap_or_else(|_| dir.to_owned())])
            .collect();
        let mut linked = HashSet::new();
        for path in directories.iter().flat_map(|dir| Disk.list(dir).unwrap_or_default()) {
            if path.is_symlink() {
                linked.extend(fs::canonicalize(&path));
            }
        }
        Places { flavor: layout.flavor, datadir: datadir.to_owned(), directories, linked }
    }

    /// Whether the server has files in this directory: a configured one, a database, or the target of a link.
    fn has_directory(&self, dir: &Path) -> bool {
        let database = dir.parent() == Some(&self.datadir) && !self.is_ours(dir);
        database
            || self.directories.contains(dir)
            || self.linked.contains(dir)
            || self.linked.iter().any(|file| file.parent() == Some(dir))
    }

    fn is_ours(&self, path: &Path) -> bool {
        let own = own_directory(&self.datadir);
        path.starts_with(waiting_room(&own))
            || path.starts_with(own)
            || path == crate::disk::lock::path(&self.datadir)
    }

    fn has_file(&self, path: &Path) -> bool {
        let in_directory = path.parent().is_some_and(|dir| {
            self.directories.contains(dir) || {
                dir.parent() == Some(&self.datadir) || self.linked.contains(dir)
            }
        });
        !self.is_ours(path) && (in_directory || self.linked.contains(path))
    }

    fn root(&self, root: &Path, is_used: bool) -> Checked {
        let refuse = |why| Err((root.to_owned(), why));
        if !is_plain(root) {
            return refuse("it is not an absolute path");
        }
        if *root != own_directory(&self.datadir) {
            match fs::symlink_metadata(root) {
                _ if file_name(root) != OWN_DIRECTORY => return refuse("it is not called .rejoin"),
                Err(error) if error.kind() != ErrorKind::NotFound => return refuse("it cannot be accessed"),
                Err(_) if is_used && !root.parent().is_some_and(|dir| self.has_directory(dir)) => {
                    return refuse("this server has no files there");
                }
                Err(_) => return Ok(()),
                Ok(meta) if !meta.is_dir() => return refuse("it is not a directory"),
                Ok(meta) if meta.uid() != rustix::process::geteuid().as_raw() => {
                    return refuse("it belongs to another user");
                }
                Ok(_) if fs::canonicalize(root).ok().as_deref() != Some(root) => {
                    return refuse("a link leads there");
                }
                Ok(_) => {}
            }
        }
        let names = ROOMS.iter().chain(&OF_PROGRAMS);
        let link = names.map(|name| directory_of(root, name)).find(|dir| dir.is_symlink());
        link.map_or(Ok(()), |link| Err((link, "it is a link")))
    }
}

/// What a record is checked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// To carry out its plan.
    Plan,
    /// To roll back the install that it tells of.
    Undo,
}

struct Record<'a> {
    places: &'a Places,
    plan: &'a InstallPlan,
}

impl Record<'_> {
    fn check(&self, of: Of) -> Checked {
        let plan = self.plan;
        let elsewhere = Elsewhere::of(self.places, plan);
        let target = |path: &PathBuf| match () {
            () if !is_plain(path) => Err((path.clone(), "it is not an absolute path, or contains ..")),
            () if self.places.has_file(path) || elsewhere.has(path) => Ok(()),
            () => Err((path.clone(), "this server has no file there")),
        };
        self.changed().try_for_each(target)?;
        // An install puts nothing back. What an earlier one has kept may come from a directory that the server no longer uses.
        if of == Of::Undo || plan.purpose == Purpose::Rollback {
            self.put_back().try_for_each(target)?;
        }
        plan.directories.iter().chain(&plan.emptied).try_for_each(|dir| self.in_datadir(dir))?;
        let swept = |dir: &PathBuf| match self.places.has_directory(dir) && is_plain(dir) {
            true => Ok(()),
            false => Err((dir.clone(), "this server has no files there")),
        };
        plan.sweep.iter().map(|sweep| &sweep.directory).try_for_each(swept)?;
        let near = |root: &Path| root.parent().is_some_and(|dir| elsewhere.is_near(dir));
        plan.roots.iter().try_for_each(|root| self.places.root(root, !near(root)))?;
        self.all_are_in_rooms()
    }

    /// The files that a release removes. A missing root does not matter.
    fn check_kept(&self) -> Checked {
        self.plan.roots.iter().try_for_each(|root| self.places.root(root, false))?;
        self.all_are_in_rooms()
    }

    /// Paths of the server's files.
    fn targets(&self) -> impl Iterator<Item = &PathBuf> {
        self.changed().chain(self.put_back())
    }

    /// Those that the plan changes, or relies on.
    fn changed(&self) -> impl Iterator<Item = &PathBuf> {
        let plan = self.plan;
        let old = plan.retired.iter().map(|d| &d.path);
        let new = plan.placed.iter().map(|p| &p.target).chain(plan.patched.iter().map(|p| &p.table));
        let same = plan.kept_patches.iter().map(|p| &p.table).chain(plan.unchanged.iter().map(|s| &s.path));
        old.chain(new).chain(same).chain(&plan.untouched)
    }

    /// Those that a rollback of it puts back.
    fn put_back(&self) -> impl Iterator<Item = &PathBuf> {
        self.plan.kept.iter().map(|k| &k.path)
    }

    /// Paths of staged files and of the previous state.
    fn waiting(&self) -> impl Iterator<Item = &PathBuf> {
        let plan = self.plan;
        let old = plan.retired.iter().filter_map(|d| d.to.as_ref()).chain(plan.kept.iter().map(|k| &k.copy));
        let new = plan.placed.iter().map(|p| &p.staged).chain(plan.patched.iter().map(|p| &p.patch));
        let ways = plan.patched.iter().flat_map(|p| p.back.iter().chain(&p.kept));
        old.chain(new).chain(ways).chain(plan.kept_patches.iter().map(|p| &p.patch))
    }

    fn all_are_in_rooms(&self) -> Checked {
        let own = own_directory(&self.places.datadir);
        let roots = self.plan.roots.iter().chain([&own]);
        let rooms: Vec<PathBuf> =
            roots.flat_map(|root| ROOMS.iter().map(move |name| directory_of(root, name))).collect();
        let in_a_room = |path: &Path| rooms.iter().any(|room| path.parent() == Some(room.as_path()));
        let grastate = own.join(GRASTATE);
        match self.waiting().find(|path| **path != grastate && !(is_plain(path) && in_a_room(path))) {
            None => Ok(()),
            Some(path) => Err((path.clone(), "it is not in a staging directory of this record")),
        }
    }

    /// A directory that is created or removed. It may be a link only if it is a database.
    fn in_datadir(&self, dir: &Path) -> Checked {
        let datadir = &self.places.datadir;
        let below = dir.parent().into_iter().flat_map(Path::ancestors).take_while(|above| *above != datadir);
        let refuse = |why| Err((dir.to_owned(), why));
        match () {
            () if !is_plain(dir) || !dir.starts_with(datadir) || dir == datadir => {
                refuse("it is not in the datadir")
            }
            () if self.places.is_ours(dir) => refuse("the server has no file there"),
            () if below.into_iter().any(Path::is_symlink) => refuse("a link leads there"),
            () => Ok(()),
        }
    }
}

/// Tables outside the datadir (`DATA DIRECTORY`).
struct Elsewhere<'a> {
    places: &'a Places,
    record: Record<'a>,
    /// Database and table of every file in the datadir that can lead to one elsewhere. Made when there is one: there can be very
    /// many files, and mostly none lies elsewhere.
    owners: OnceCell<HashSet<(String, String)>>,
}

impl<'a> Elsewhere<'a> {
    fn of(places: &'a Places, plan: &'a InstallPlan) -> Elsewhere<'a> {
        Elsewhere { places, record: Record { places, plan }, owners: OnceCell::new() }
    }

    fn owners(&self) -> &HashSet<(String, String)> {
        self.owners.get_or_init(|| {
            let in_datadir = self.record.targets().filter(|path| path.starts_with(&self.places.datadir));
            in_datadir.filter_map(|path| Some((directory_name(path)?, stem(path)?))).collect()
        })
    }

    fn kind(&self, path: &Path) -> Option<TableFile> {
        self.places.flavor.in_database(file_name(path))
    }

    fn has(&self, path: &Path) -> bool {
        if path.starts_with(&self.places.datadir) || self.places.is_ours(path) {
            return false;
        }
        (self.kind(path).is_some() && self.has_owner(path)) || self.is_led_to(path)
    }

    /// InnoDB puts its files into a directory named like the database; other engines use the given directory.
    fn has_owner(&self, path: &Path) -> bool {
        let (Some(directory), Some(stem)) = (directory_name(path), stem(path)) else { return false };
        let innodb = self.kind(path) == Some(TableFile::Tablespace);
        let named = self
            .owners()
            .iter()
            .any(|(database, table)| *table == stem && (!innodb || *database == directory));
        named || {
            let link = if innodb { format!("{stem}.isl") } else { file_name(path).to_owned() };
            let databases = Disk.list(&self.places.datadir).unwrap_or_default();
            let mut of_name = databases.iter().filter(|dir| !innodb || file_name(dir) == directory);
            of_name.any(|dir| dir.join(&link).symlink_metadata().is_ok())
        }
    }

    /// Whether a link in the datadir, in the staged files or in the previous state leads to it.
    fn is_led_to(&self, path: &Path) -> bool {
        self.record.targets().chain(self.record.waiting()).any(|link| {
            fs::read_link(link).is_ok_and(|to| to == path)
                || (link.is_symlink() && Disk.real_path(link).ok().as_deref() == Some(path))
        })
    }

    /// Whether such a table is in this directory.
    fn is_near(&self, dir: &Path) -> bool {
        let outside = self.record.targets().filter(|path| !path.starts_with(&self.places.datadir));
        outside
            .filter_map(|path| path.parent())
            .any(|of_table| of_table == dir || Disk.real_path(of_table).is_ok_and(|real| real == dir))
    }
}

fn directory_name(path: &Path) -> Option<String> {
    path.parent().map(|dir| file_name(dir).to_owned())
}

fn stem(path: &Path) -> Option<String> {
    path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned)
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && !path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir))
}

#[cfg(test)]
#[path = "record_check_tests.rs"]
mod tests;
