//! Puts back what an install replaced.
//!
//! A rollback is a plan like an install, carried out by the same roll-forward: what is there now leaves (to `discard/`),
//! the kept files come, the old system set last. Its record takes the place of `install.json` in one step, so that an
//! interrupted rollback is finished as such, also when what it undoes was itself an interrupted install.
//! Nothing is deleted before the old state is durably complete.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::files::Files;
use super::forward::{
    adopt_new_aria_logs, aria_is_kept, clean_up, first_changed, roll_forward, write_record,
};
use super::install::{self, finish, installed, pending};
use super::names::{GRASTATE, IN_PLACE, INSTALL, INSTALLED, RELEASED, directory_of, own_directory};
use super::plan::{
    Class, Displaced, InstallPlan, Keep, Kept, KeptPatch, OldKind, Patched, Phase, Placed, Purpose, VERSION,
    directories_to_make, directories_to_remove, sort_leaving, system_numbers,
};
use super::roots::{Roots, clear};
use crate::failure::{Failure, Kind};

/// What a rollback did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Files put back.
    pub files: usize,
    /// `uuid:seqno` of the state that was dropped.
    pub dropped: String,
}

/// Puts the kept files back and drops the new ones.
///
/// `found_now` are the managed files that are there now: what the server made since the install goes too.
/// `server_on` names the server that runs on the datadir, if one does.
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
                adopt_new_aria_logs(files, &mut undone)?;
            }
            let plan = plan_rollback(files, &undone, found_now, made)?;
            super::roots::remember(files, datadir, &plan.roots)?;
            write_record(files, &plan)?;
            plan
        }
    };
    roll_forward(files, &mut plan)?;
    finish(files, &plan)?;
    Ok(RolledBack { files: plan.placed.len() + plan.patched.len(), dropped: plan.position })
}

fn nothing_to_undo(files: &dyn Files, datadir: &Path) -> Result<Failure> {
    let own = own_directory(datadir);
    let text = if files.exists(&own.join(IN_PLACE))? {
        "the transfer was made in place: the old files are gone, only a transfer can complete the datadir"
    } else if files.exists(&own.join(RELEASED))? {
        "the old files are being deleted: the node was Synced since"
    } else {
        "no install to undo"
    };
    Ok(Failure::new(Kind::Refused, text))
}

/// What was kept, as far as it left its place, and what never left it.
struct Remains {
    kept: Vec<Kept>,
    untouched: BTreeSet<PathBuf>,
}

/// The outer error is of the disk, the inner one the answer.
fn may_be_undone(files: &dyn Files, undone: &InstallPlan) -> Result<Result<(), Failure>> {
    let refused = |text: &str| Ok(Err(Failure::new(Kind::Refused, text)));
    match undone.keep {
        Keep::Old if !undone.kept.is_empty() => {}
        Keep::InPlace => {
            return refused("the transfer was made in place: there are no old files to go back to");
        }
        _ => return refused("the old files were not kept"),
    }
    // Before it was placed, what is there is the old state, also when its server wrote to it.
    let staying = undone.staying.iter().filter(|_| undone.phase == Phase::Placing);
    let Some(changed) = first_changed(files, staying)? else { return Ok(Ok(())) };
    let text = format!(
        "{} stayed where it was, the same in the old state and the new one or patched, and was written to since",
        changed.display()
    );
    let hint = "with keep-old=always under [sst] whole copies are kept";
    Ok(Err(Failure::new(Kind::Refused, text).hint(hint)))
}

fn plan_rollback(
    files: &dyn Files,
    undone: &InstallPlan,
    found_now: &[(PathBuf, OldKind)],
    made: u64,
) -> Result<InstallPlan> {
    // What we are about to see must not be undone by a power loss after it was written down.
    sync_all_directories(files, undone)?;
    let mut remains = remains(files, undone)?;
    remains.untouched.extend(undone.staying.iter().map(|s| s.path.clone()));
    let whole: BTreeSet<&PathBuf> = remains.kept.iter().map(|k| &k.path).collect();
    let patched = undone.kept_patches.iter().map(|p| &p.table);
    remains.untouched.extend(patched.filter(|table| !whole.contains(table)).cloned());
    let datadir = &undone.datadir;
    let mut leaving: BTreeMap<PathBuf, OldKind> = BTreeMap::new();
    for placed in &undone.placed {
        let kind = if placed.class.is_innodb() { OldKind::System } else { OldKind::Table };
        leaving.insert(placed.target.clone(), kind);
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
    let displaced = displaced(&leaving, &undone.placed, &remains.kept, &roots, made);
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
        emptied: emptied(undone, &displaced, &placed, &remains.untouched),
        displaced,
        kept: Vec::new(),
        kept_patches: Vec::new(),
        patched: ways_back(files, undone)?,
        // Of an install that had not begun, the old state's server may still write to them.
        staying: if undone.phase == Phase::Placing { undone.staying.clone() } else { Vec::new() },
        sweep: undone.sweep.clone(),
        untouched: remains.untouched.into_iter().collect(),
        placed,
    })
}

/// What undoes the patches. Where there is no such thing yet, the table is still the old one.
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
    let text = format!("the kept copy of {} is gone", path.display());
    Failure::new(Kind::Refused, text).hint("the old state is not complete; nothing was changed")
}

/// Directories that the old state does not have, also those whose files are gone already, children first.
fn emptied(
    undone: &InstallPlan,
    displaced: &[Displaced],
    placed: &[Placed],
    untouched: &BTreeSet<PathBuf>,
) -> Vec<PathBuf> {
    let datadir = &undone.datadir;
    let staying = || placed.iter().map(|p| &p.target).chain(untouched).map(PathBuf::as_path);
    let old: BTreeSet<PathBuf> = directories_to_make(staying(), datadir).into_iter().collect();
    let mut emptied: BTreeSet<PathBuf> =
        directories_to_remove(displaced, staying(), datadir).into_iter().collect();
    emptied.extend(undone.emptied.iter().chain(&undone.directories).filter(|d| !old.contains(*d)).cloned());
    // A parent sorts before its children.
    emptied.into_iter().rev().collect()
}

fn displaced(
    leaving: &BTreeMap<PathBuf, OldKind>,
    placed: &[Placed],
    kept: &[Kept],
    roots: &Roots,
    made: u64,
) -> Vec<Displaced> {
    let new = placed.iter().map(|p| (p.target.as_path(), p.class));
    let numbers = system_numbers(new.chain(kept.iter().map(|k| (k.path.as_path(), k.class))));
    let mut displaced = Vec::with_capacity(leaving.len());
    for (number, (path, kind)) in leaving.iter().enumerate() {
        let class = Class::of_old(path, *kind, &numbers);
        // Aria's set would have to be copied to be discarded in safety; nobody wants it back.
        let discard = *kind != OldKind::RemoveOnly && !class.is_aria();
        let root = roots.for_path(path).filter(|_| discard);
        let to = root.map(|root| root.join("discard").join(format!("{made}-{number}")));
        displaced.push(Displaced { path: path.clone(), to, class });
    }
    sort_leaving(&mut displaced);
    displaced
}

fn sync_all_directories(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let mut directories: BTreeSet<&Path> = plan.directories.iter().map(PathBuf::as_path).collect();
    directories.extend(
        plan.displaced
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
    let aria_is_kept = aria_is_kept(files, &undone.displaced)?;
    // Only what this very plan moves aside can still be in its place; what an earlier install kept has long left.
    let leaving: BTreeSet<&Path> = undone.displaced.iter().filter_map(|d| d.to.as_deref()).collect();
    let mut remains = Remains { kept: Vec::new(), untouched: BTreeSet::new() };
    for kept in &undone.kept {
        let begun = undone.phase == Phase::Aside && leaving.contains(kept.copy.as_path());
        let whole = !(begun && kept.class.is_aria()) || aria_is_kept;
        if whole && files.exists(&kept.copy)? {
            remains.kept.push(kept.clone());
        } else if begun {
            remains.untouched.insert(kept.path.clone());
        } else {
            bail!(is_gone(&kept.path))
        }
    }
    Ok(remains)
}

/// The old state is in place: what was dropped is deleted, the records last.
pub(super) fn finish_rollback(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let own = own_directory(&plan.datadir);
    // The record of the install first: what it says was kept is no longer.
    files.remove(&own.join(INSTALLED))?;
    files.remove(&own.join(IN_PLACE))?;
    files.sync_directory(&own)?;
    for root in &plan.roots {
        for name in ["discard", "stage", "old"] {
            clear(files, &directory_of(root, name))?;
        }
    }
    clean_up(files, plan)?;
    files.remove(&own.join(INSTALL))?;
    files.sync_directory(&own)
}

/// Whether a rollback would be possible, and if not, why.
pub fn possible(files: &dyn Files, datadir: &Path) -> Result<Result<(), Failure>> {
    let undone = match install::pending(files, datadir)? {
        Some(plan) => Some(plan),
        None => installed(files, datadir)?,
    };
    let Some(plan) = undone else { return Ok(Err(nothing_to_undo(files, datadir)?)) };
    if plan.purpose == Purpose::Rollback { Ok(Ok(())) } else { may_be_undone(files, &plan) }
}
