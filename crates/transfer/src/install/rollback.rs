//! Restores the files that an install replaced.
//!
//! A rollback is a plan like an install, carried out by the same roll-forward: the present files are moved
//! away (to `discard/`), the previous state is put back, the old system set last. Its record replaces
//! `install.json` in one step, so that an interrupted rollback is continued as a rollback, even if it undoes
//! an interrupted install. Nothing is deleted before the old state is durably complete.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::failure::{Failure, Kind};
use crate::flavor::class::Set;
use crate::install::carry_out::carry_out;
use crate::install::dry_run;
use crate::install::files::Files;
use crate::install::forward::first_changed;
use crate::install::guard::Guards;
use crate::install::names::{GRASTATE, IN_PLACE, RELEASED, own_directory};
use crate::install::plan::{
    Class, InstallPlan, Keep, Kept, KeptPatch, OldKind, Patched, Phase, Placed, Purpose, Retired, VERSION,
    directories_to_make, directories_to_remove, sort_leaving,
};
use crate::install::record::write_record;
use crate::install::record::{installed, pending};
use crate::install::roots::Roots;
use crate::install::second_engine;

/// The result of a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Files put back.
    pub files: usize,
    /// `uuid:seqno` of the discarded state.
    pub dropped: String,
}

/// Puts the previous state back and discards the new files.
///
/// `found_now` are the managed files that exist now, because files that the server created since the install
/// are discarded too. `server_on` returns the server that runs on the datadir, if there is one.
pub fn rollback(
    files: &dyn Files,
    datadir: &Path,
    found_now: &[(PathBuf, OldKind)],
    server_on: impl FnOnce(&Path) -> Result<Option<String>>,
    made: u64,
) -> Result<RolledBack> {
    if let Some(server) = server_on(datadir)? {
        let text = format!("{server} runs on {}", datadir.display());
        bail!(Failure::new(Kind::Server, text).hint("stop it first"));
    }
    let mut plan = match pending(files, datadir)? {
        Some(begun) if begun.purpose == Purpose::Rollback => begun,
        begun => {
            let Some(mut undone) = begun.map_or_else(|| installed(files, datadir), |plan| Ok(Some(plan)))?
            else {
                bail!(nothing_to_undo(files, datadir)?)
            };
            may_be_undone(files, &undone)??;
            if undone.phase == Phase::Aside {
                second_engine::adopt_new_logs(files, &mut undone)?;
            }
            Guards::of(&undone).clear_parts(files)?;
            let plan = plan_rollback(files, &undone, found_now, made)?;
            crate::install::roots::remember(files, datadir, &plan.roots)?;
            let tried = dry_run::dry_run(files, &plan)?;
            tried.warnings.iter().for_each(|line| tracing::warn!("{line}"));
            tried.refused(plan.purpose)?;
            write_record(files, &plan)?;
            plan
        }
    };
    carry_out(files, &mut plan)?;
    Ok(RolledBack { files: plan.placed.len() + plan.patched.len(), dropped: plan.position })
}

fn nothing_to_undo(files: &dyn Files, datadir: &Path) -> Result<Failure> {
    let own = own_directory(datadir);
    let text = if files.exists(&own.join(IN_PLACE))? {
        "the transfer was made in place: the old files are gone, and only a transfer can complete the datadir"
    } else if files.exists(&own.join(RELEASED))? {
        "the previous state is being deleted, because the node has been Synced"
    } else {
        return Ok(Failure::new(Kind::Refused, format!("nothing to roll back in {}", datadir.display())));
    };
    Ok(Failure::new(Kind::Refused, text))
}

/// The parts of the previous state: files that were moved, and files that stayed in place.
struct Remains {
    kept: Vec<Kept>,
    untouched: BTreeSet<PathBuf>,
}

/// The outer error is a disk error; the inner one is the answer.
fn may_be_undone(files: &dyn Files, undone: &InstallPlan) -> Result<Result<(), Failure>> {
    let refused = |text: &str| Ok(Err(Failure::new(Kind::Refused, text)));
    match undone.keep {
        Keep::Old if !undone.kept.is_empty() => {}
        Keep::InPlace => {
            return refused("the transfer was made in place: there is no previous state");
        }
        _ => return refused("the previous state was not kept"),
    }
    // Before the new files were installed, the files are the old state, even if its server wrote to them.
    let unchanged = undone.unchanged.iter().filter(|_| undone.phase == Phase::Placing);
    let Some(changed) = first_changed(files, unchanged)? else { return Ok(Ok(())) };
    let text = format!(
        "{} stayed in place (it was unchanged or patched) and was written to after the install",
        changed.display()
    );
    let hint = "keep-previous=always under [sst] keeps whole copies";
    Ok(Err(Failure::new(Kind::Refused, text).hint(hint)))
}

fn plan_rollback(
    files: &dyn Files,
    undone: &InstallPlan,
    found_now: &[(PathBuf, OldKind)],
    made: u64,
) -> Result<InstallPlan> {
    // A power loss must not undo anything that we are about to see and record.
    sync_all_directories(files, undone)?;
    let mut remains = remains(files, undone)?;
    remains.untouched.extend(undone.unchanged.iter().map(|s| s.path.clone()));
    let whole: BTreeSet<&PathBuf> = remains.kept.iter().map(|k| &k.path).collect();
    let patched = undone.kept_patches.iter().map(|p| &p.table);
    remains.untouched.extend(patched.filter(|table| !whole.contains(table)).cloned());
    let datadir = &undone.datadir;
    let mut leaving: BTreeMap<PathBuf, OldKind> = BTreeMap::new();
    for placed in &undone.placed {
        leaving.insert(placed.target.clone(), OldKind::Data(placed.class));
    }
    leaving.extend(found_now.iter().cloned());
    let saved = own_directory(datadir).join(GRASTATE);
    let mut placed: Vec<Placed> = Vec::new();
    if files.exists(&saved)? {
        leaving.insert(datadir.join(GRASTATE), OldKind::RemoveOnly);
        placed.push(Placed { staged: saved, target: datadir.join(GRASTATE), class: Class::Table });
    }
    leaving.retain(|path, _| !remains.untouched.contains(path));
    placed.extend(remains.kept.iter().map(|k| Placed {
        staged: k.copy.clone(),
        target: k.path.clone(),
        class: k.class,
    }));
    placed.sort_by(|a, b| a.class.placing().cmp(&b.class.placing()).then(a.target.cmp(&b.target)));
    let roots = Roots::choose(files, datadir, leaving.keys().map(PathBuf::as_path))?;
    let retired = retired(&leaving, &roots, made);
    let mut all_roots = undone.roots.clone();
    all_roots.extend(roots.all().iter().filter(|r| !undone.roots.contains(r)).cloned());
    Ok(InstallPlan {
        version: VERSION,
        purpose: Purpose::Rollback,
        phase: Phase::Aside,
        datadir: datadir.clone(),
        roots: all_roots,
        position: undone.position.clone(),
        made,
        keep: Keep::Nothing,
        directories: directories_to_make(placed.iter().map(|p| p.target.as_path()), datadir),
        emptied: emptied(undone, &retired, &placed, &remains.untouched),
        retired,
        kept: Vec::new(),
        kept_patches: Vec::new(),
        patched: ways_back(files, undone)?,
        // If the install had not begun, the old state's server may still write to them.
        unchanged: if undone.phase == Phase::Placing { undone.unchanged.clone() } else { Vec::new() },
        sweep: undone.sweep.clone(),
        untouched: remains.untouched.into_iter().collect(),
        placed,
    })
}

/// The patches that undo the install's patches. If one does not exist yet, its table is still the old one.
fn ways_back(files: &dyn Files, undone: &InstallPlan) -> Result<Vec<Patched>> {
    let own: BTreeSet<&PathBuf> = undone.patched.iter().filter_map(|p| p.kept.as_ref()).collect();
    let mut ways = Vec::new();
    for KeptPatch { table, patch } in &undone.kept_patches {
        if files.exists(patch)? {
            ways.push(Patched { table: table.clone(), patch: patch.clone(), back: None, kept: None });
        } else if undone.phase == Phase::Placing || !own.contains(patch) {
            bail!(is_gone(table))
        }
    }
    Ok(ways)
}

fn is_gone(path: &Path) -> Failure {
    let text = format!("the previous state's copy of {} is gone", path.display());
    Failure::new(Kind::Refused, text).hint("the previous state is incomplete; nothing was changed")
}

/// Directories that the old state does not have, including those that are already empty, children first.
fn emptied(
    undone: &InstallPlan,
    retired: &[Retired],
    placed: &[Placed],
    untouched: &BTreeSet<PathBuf>,
) -> Vec<PathBuf> {
    let datadir = &undone.datadir;
    let unchanged = || placed.iter().map(|p| &p.target).chain(untouched).map(PathBuf::as_path);
    let old: BTreeSet<PathBuf> = directories_to_make(unchanged(), datadir).into_iter().collect();
    let mut emptied: BTreeSet<PathBuf> =
        directories_to_remove(retired, unchanged(), datadir).into_iter().collect();
    emptied.extend(undone.emptied.iter().chain(&undone.directories).filter(|d| !old.contains(*d)).cloned());
    // A parent sorts before its children.
    emptied.into_iter().rev().collect()
}

fn retired(leaving: &BTreeMap<PathBuf, OldKind>, roots: &Roots, made: u64) -> Vec<Retired> {
    let mut retired = Vec::with_capacity(leaving.len());
    for (number, (path, kind)) in leaving.iter().enumerate() {
        let class = kind.class();
        // The second engine's set would have to be copied to be discarded safely, and nobody needs it.
        let discard = *kind != OldKind::RemoveOnly && class.set() != Some(Set::Second);
        let root = roots.for_path(path).filter(|_| discard);
        let to = root.map(|root| root.join("discard").join(format!("{made}-{number}")));
        retired.push(Retired { path: path.clone(), to, class });
    }
    sort_leaving(&mut retired);
    retired
}

fn sync_all_directories(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let mut directories: BTreeSet<&Path> = plan.directories.iter().map(PathBuf::as_path).collect();
    directories.extend(
        plan.retired
            .iter()
            .flat_map(|d| [Some(d.path.as_path()), d.to.as_deref()])
            .flatten()
            .filter_map(Path::parent),
    );
    directories.extend(plan.placed.iter().flat_map(|p| [p.staged.parent(), p.target.parent()]).flatten());
    directories.extend(plan.roots.iter().map(PathBuf::as_path));
    directories.into_iter().try_for_each(|d| files.sync_directory(d))
}

fn remains(files: &dyn Files, undone: &InstallPlan) -> Result<Remains> {
    let second_is_kept = second_engine::is_kept(files, undone)?;
    let guarded = Guards::of(undone).stand(files, undone)?;
    // Only files that this very plan retires can still be in place; those of an earlier install were moved
    // long ago.
    let leaving: BTreeSet<&Path> = undone.retired.iter().filter_map(|d| d.to.as_deref()).collect();
    let mut remains = Remains { kept: Vec::new(), untouched: BTreeSet::new() };
    for kept in &undone.kept {
        let begun = undone.phase == Phase::Aside && leaving.contains(kept.copy.as_path());
        let whole = !begun || kept.class.set() != Some(Set::Second) || second_is_kept;
        // Until a guard is in place nothing was moved: the previous state holds only second names and copies.
        if (guarded || !begun) && whole && files.exists(&kept.copy)? {
            remains.kept.push(kept.clone());
        } else if begun {
            remains.untouched.insert(kept.path.clone());
        } else {
            bail!(is_gone(&kept.path))
        }
    }
    Ok(remains)
}

/// Whether a rollback would be possible, and if not, why.
pub fn possible(files: &dyn Files, datadir: &Path) -> Result<Result<(), Failure>> {
    let undone = match pending(files, datadir)? {
        Some(plan) => Some(plan),
        None => installed(files, datadir)?,
    };
    let Some(plan) = undone else { return Ok(Err(nothing_to_undo(files, datadir)?)) };
    if plan.purpose == Purpose::Rollback { Ok(Ok(())) } else { may_be_undone(files, &plan) }
}
