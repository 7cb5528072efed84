//! What an install will do, as a value: computed before anything moves, written down, then carried out.
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Kind};
pub use crate::flavor::class::{Class, Set};
use crate::flavor::pattern::Pattern;
use crate::install::names::{file_name, own_directory, waiting_room};
use crate::install::roots::Roots;
pub use crate::install::steps::{Keep, Kept, KeptPatch, OldKind, Patched, Placed, Retired, Sweep, Unchanged};

/// Version of the record; another one is not read.
pub const VERSION: u32 = 3;

/// Whether a plan brings the new state or brings the old one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// The new state.
    Install,
    /// The old state.
    Rollback,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Install => "install",
            Purpose::Rollback => "rollback",
        })
    }
}

/// How far a plan has come, as far as the files themselves do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Old files leave: what is at an old file's path and not yet kept is the old file.
    Aside,
    /// All old files have left: what is at a path and was not placed by us is foreign.
    Placing,
}

/// Everything that will be done. See [`crate::install::forward`] for the order and its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallPlan {
    /// [`VERSION`].
    pub version: u32,
    /// To the new state or back.
    pub purpose: Purpose,
    /// How far it has come.
    pub phase: Phase,
    /// The datadir it was made for; a copied or moved `#sql-rejoin/` is not acted upon.
    pub datadir: PathBuf,
    /// Roots in use, the datadir's own first.
    pub roots: Vec<PathBuf>,
    /// `uuid:seqno` of the state that comes.
    pub position: String,
    /// When it was made, in milliseconds since 1970; also makes names in `old/` unique.
    pub made: u64,
    /// What happens to what is replaced; [`Keep::Old`] also when an earlier install's kept files stay.
    pub keep: Keep,
    /// Old files that leave.
    pub retired: Vec<Retired>,
    /// New files that come.
    pub placed: Vec<Placed>,
    /// Tables that are patched in place.
    pub patched: Vec<Patched>,
    /// What a rollback puts back.
    pub kept: Vec<Kept>,
    /// What a rollback applies to tables that were patched.
    pub kept_patches: Vec<KeptPatch>,
    /// Files that must be unmodified. Before the first file is retired: files that stay or are patched, and those that an
    /// earlier install left in place. Later, for a rollback: files that stayed, and the results of patches.
    pub unchanged: Vec<Unchanged>,
    /// Directories that must be there, parents first.
    pub directories: Vec<PathBuf>,
    /// Directories that the state to come does not have, children first; removed if empty.
    pub emptied: Vec<PathBuf>,
    /// What a server started in between may have made.
    pub sweep: Vec<Sweep>,
    /// Old files that never left (those that stay; with a rollback of a begun install others too), as far as a sweep would take
    /// them: not to be swept.
    pub untouched: Vec<PathBuf>,
}

impl From<&InstallPlan> for InstallPlan {
    fn from(plan: &InstallPlan) -> InstallPlan {
        plan.clone()
    }
}

/// What a plan is made from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The datadir.
    pub datadir: &'a Path,
    /// Old files that are managed; all others stay.
    pub managed: &'a [(PathBuf, OldKind)],
    /// Staged files and where they go.
    pub staged: Vec<Placed>,
    /// Old files that are not staged because they are the same.
    pub unchanged: Vec<Unchanged>,
    /// Old files that are patched, and as they were compared.
    pub patched: &'a [(Patched, Unchanged)],
    /// Roots chosen for all paths of both: those of the staging, extended ([`Roots::extend`]) by the managed paths.
    pub roots: &'a Roots,
    /// What happens to what is replaced.
    pub keep: Keep,
    /// The last finished install, when it could be rolled back.
    pub earlier: Option<&'a InstallPlan>,
    /// Files that a server makes when it starts.
    pub sweep: &'a [Sweep],
    /// `uuid:seqno` of the new state.
    pub position: &'a str,
    /// Now, in milliseconds since 1970.
    pub made: u64,
}

/// Decides what the install will do. Pure.
///
/// If an earlier install's previous state still exists, the node was not Synced since. That state remains the one that a
/// rollback restores, and the files of the unsynced install are deleted, except those that the previous state shares or
/// that were patched from its files.
pub fn plan(mut inputs: Inputs<'_>) -> Result<InstallPlan, Failure> {
    if !inputs.staged.iter().any(|p| p.class == Class::System(0)) {
        return Err(Failure::new(Kind::Refused, "the donor sent no system tablespace: nothing is installed"));
    }
    let (earlier, earlier_patches) =
        inputs.earlier.map(|e| (e.kept.clone(), e.kept_patches.clone())).unwrap_or_default();
    inputs.staged.sort_by(|a, b| a.class.placing().cmp(&b.class.placing()).then(a.target.cmp(&b.target)));
    let keep_now = inputs.keep == Keep::Old && earlier.is_empty();
    let retired = retired(&inputs, keep_now)?;
    refuse_targets_through_leaving_links(&inputs, &retired)?;
    let patched = patched(&inputs, keep_now)?;
    let kept = earlier.into_iter().chain(kept_of(&retired)).collect::<Vec<_>>();
    let keep = if kept.is_empty() { inputs.keep } else { Keep::Old };
    let kept_patches = earlier_patches.into_iter().chain(patched.iter().filter_map(kept_patch)).collect();
    let mut roots = inputs.roots.all().to_vec();
    let own = own_directory(inputs.datadir);
    let waiting = waiting_room(&own);
    // In the datadir files wait apart from the root they belong to.
    let root_of = |room| if room == waiting { own.as_path() } else { room };
    let staging = inputs.staged.iter().filter_map(|p| p.staged.parent()?.parent()).map(root_of);
    let earlier = inputs.earlier.iter().flat_map(|e| &e.roots).map(PathBuf::as_path);
    for root in staging.chain(earlier) {
        if !roots.iter().any(|known| known == root) {
            roots.push(root.to_path_buf());
        }
    }
    let datadir = inputs.datadir.to_owned();
    let targets = || inputs.staged.iter().map(|p| p.target.as_path());
    let directories = directories_to_make(targets(), &datadir);
    let emptied = directories_to_remove(&retired, targets().chain(stays(&inputs)), &datadir);
    let sweep = sweeps(&inputs, &retired);
    let is_swept = |path: &&Path| {
        sweep.iter().any(|s| path.parent() == Some(&s.directory) && s.pattern.matches(file_name(path)))
    };
    let untouched = stays(&inputs).filter(is_swept).map(Path::to_path_buf).collect();
    // There can be very many: these lists become the plan's own.
    let (placed, mut unchanged) = (inputs.staged, inputs.unchanged);
    unchanged.extend(inputs.patched.iter().map(|(_, was)| was.clone()));
    if !keep_now {
        // Still what the kept files need beside them.
        unchanged.extend(inputs.earlier.iter().flat_map(|e| e.unchanged.iter().cloned()));
    }
    Ok(InstallPlan {
        version: VERSION,
        purpose: Purpose::Install,
        phase: Phase::Aside,
        directories,
        emptied,
        untouched,
        sweep,
        datadir,
        roots,
        position: inputs.position.to_owned(),
        made: inputs.made,
        keep,
        retired,
        placed,
        patched,
        kept,
        kept_patches,
        unchanged,
    })
}

/// Old files that do not leave.
fn stays<'a>(inputs: &'a Inputs<'_>) -> impl Iterator<Item = &'a Path> {
    let patched = inputs.patched.iter().map(|(patched, _)| patched.table.as_path());
    inputs.unchanged.iter().map(|s| s.path.as_path()).chain(patched)
}

fn patched(inputs: &Inputs<'_>, keep: bool) -> Result<Vec<Patched>, Failure> {
    let kept = |(number, (patched, _)): (usize, &(Patched, Unchanged))| {
        let table = &patched.table;
        let kept = match (keep, &patched.back) {
            (false, None) => None,
            (true, Some(_)) => Some(kept_place(inputs, table, &format!("back-{number}"))?),
            _ => {
                let text = format!("the patch of {} was staged for another plan", table.display());
                return Err(Failure::new(Kind::Disk, text));
            }
        };
        Ok(Patched { kept, ..patched.clone() })
    };
    inputs.patched.iter().enumerate().map(kept).collect()
}

fn kept_patch(patched: &Patched) -> Option<KeptPatch> {
    Some(KeptPatch { table: patched.table.clone(), patch: patched.kept.clone()? })
}

/// Where what is replaced at a path is kept.
fn kept_place(inputs: &Inputs<'_>, path: &Path, name: &str) -> Result<PathBuf, Failure> {
    let missing =
        || Failure::new(Kind::Disk, format!("no staging directory was chosen for {}", path.display()));
    let root = inputs.roots.for_path(path).ok_or_else(missing)?;
    Ok(root.join("old").join(format!("{}-{name}", inputs.made)))
}

fn retired(inputs: &Inputs<'_>, keep: bool) -> Result<Vec<Retired>, Failure> {
    let stays: HashSet<&Path> = stays(inputs).collect();
    // What the kept files need beside them leaves with them.
    let needed: HashSet<&PathBuf> =
        inputs.earlier.iter().flat_map(|e| &e.unchanged).map(|s| &s.path).collect();
    let mut retired = Vec::with_capacity(inputs.managed.len());
    let leaving = inputs.managed.iter().enumerate().filter(|(_, (path, _))| !stays.contains(path.as_path()));
    for (number, (path, kind)) in leaving {
        let keeps = (keep || needed.contains(path)) && *kind != OldKind::RemoveOnly;
        let to = keeps.then(|| kept_place(inputs, path, &number.to_string())).transpose()?;
        retired.push(Retired { path: path.clone(), to, class: kind.class() });
    }
    sort_leaving(&mut retired);
    Ok(retired)
}

/// A directory that is a link now and leaves will be a directory of its own: a file staged for it may then lie on another
/// filesystem, and could not be renamed.
fn refuse_targets_through_leaving_links(inputs: &Inputs<'_>, retired: &[Retired]) -> Result<(), Failure> {
    // Files of the system set are never links: a database may take the name of one that leaves.
    let tables =
        inputs.managed.iter().filter(|(_, kind)| matches!(kind, OldKind::Data(class) if class.is_tables()));
    let tables: HashSet<&Path> = tables.map(|(path, _)| path.as_path()).collect();
    let leaving: HashSet<&Path> =
        retired.iter().map(|d| d.path.as_path()).filter(|path| tables.contains(path)).collect();
    let all = || inputs.staged.iter().map(|p| p.target.as_path()).chain(stays(inputs));
    let coming: HashSet<&Path> = all().collect();
    let through = |target: &&Path| {
        target.ancestors().skip(1).any(|above| leaving.contains(above) && !coming.contains(above))
    };
    match all().find(through) {
        None => Ok(()),
        Some(target) => {
            let text = format!("{} would be placed through a link that is removed", target.display());
            Err(Failure::new(Kind::Refused, text).hint("let the link stay, or make it a directory"))
        }
    }
}

/// Sorts old files by the order in which they leave; the order within a class stays as given, except that files of tables
/// leave before the link through which they are reached.
pub(super) fn sort_leaving(retired: &mut [Retired]) {
    retired.sort_by(|a, b| {
        let by_class = a.class.leaving().cmp(&b.class.leaving());
        let by_path = || if a.class == Class::Table { b.path.cmp(&a.path) } else { Ordering::Equal };
        by_class.then_with(by_path)
    });
}

fn kept_of(retired: &[Retired]) -> Vec<Kept> {
    let kept = |d: &Retired| d.to.clone().map(|copy| Kept { path: d.path.clone(), copy, class: d.class });
    retired.iter().filter_map(kept).collect()
}

/// Directories of these files and of their parents below the datadir, parents first.
pub(super) fn directories_to_make<'a>(
    targets: impl Iterator<Item = &'a Path>,
    datadir: &Path,
) -> Vec<PathBuf> {
    // There can be very many files, in few directories.
    let targets: Vec<&Path> = targets.collect();
    let parents: BTreeSet<&Path> = targets.iter().filter_map(|target| target.parent()).collect();
    // Outside the datadir the parent is there: a staging root lies in it or beside it.
    let inside = parents.into_iter().filter(|parent| parent.starts_with(datadir));
    let above = inside.flat_map(|parent| parent.ancestors().take_while(|above| *above != datadir));
    let mut directories: BTreeSet<PathBuf> = above.map(Path::to_path_buf).collect();
    // A link that comes itself is not made as a directory. A parent sorts before its children.
    for target in targets {
        directories.remove(target);
    }
    directories.into_iter().collect()
}

/// Directories that only leaving files have, children first.
pub(super) fn directories_to_remove<'a>(
    retired: &[Retired],
    unchanged: impl Iterator<Item = &'a Path>,
    datadir: &Path,
) -> Vec<PathBuf> {
    let leaving = directories_to_make(retired.iter().map(|d| d.path.as_path()), datadir);
    let unchanged: BTreeSet<PathBuf> = directories_to_make(unchanged, datadir).into_iter().collect();
    leaving.into_iter().rev().filter(|d| !unchanged.contains(d)).collect()
}

/// What a server makes at a start, and the files of the system tablespace, which it makes too.
fn sweeps(inputs: &Inputs<'_>, retired: &[Retired]) -> Vec<Sweep> {
    let mut sweeps = inputs.sweep.to_vec();
    let old = retired.iter().map(|d| (&d.path, d.class));
    for (path, class) in inputs.staged.iter().map(|p| (&p.target, p.class)).chain(old) {
        if let (Class::System(_), Some(directory)) = (class, path.parent()) {
            let pattern = Pattern::name(file_name(path));
            sweeps.push(Sweep { directory: directory.to_path_buf(), set: Set::Innodb, pattern });
        }
    }
    let mut unique = Vec::with_capacity(sweeps.len());
    for sweep in sweeps {
        if !unique.contains(&sweep) {
            unique.push(sweep);
        }
    }
    unique
}
