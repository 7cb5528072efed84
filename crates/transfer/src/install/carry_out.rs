//! Carries out a recorded plan to its end, whether it installs a state or restores one.
use anyhow::Result;

use crate::failure::{Failure, kind_of};
use crate::install::files::Files;
use crate::install::forward::{clean_up, roll_forward};
use crate::install::names::{IN_PLACE, INSTALL, INSTALLED, directory_of, own_directory};
use crate::install::plan::{InstallPlan, Keep, Purpose};
use crate::install::roots::clear;

/// The result of a finished roll-forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The new state was installed, or the old one restored.
    pub purpose: Purpose,
    /// `uuid:seqno` of the new state; for a rollback that of the discarded state.
    pub position: String,
}

/// Carries out the rest of a recorded plan. An error names the remedy.
pub(super) fn carry_out(files: &dyn Files, plan: &mut InstallPlan) -> Result<Finished> {
    let done = roll_forward(files, plan).and_then(|()| finish(files, plan));
    done.map_err(|error| half_done(plan, &error).into())
}

fn half_done(plan: &InstallPlan, error: &anyhow::Error) -> Failure {
    let (what, at) = match plan.purpose {
        Purpose::Install => ("install", plan.datadir.display()),
        Purpose::Rollback => ("rollback", plan.datadir.display()),
    };
    let finish = format!(
        "remove the cause; then the next start of the server, or `rejoin finish`, completes the {what}"
    );
    let back = match (plan.purpose, plan.keep) {
        (Purpose::Install, Keep::Old) => {
            format!("`rejoin rollback --datadir {at}` restores the previous state instead")
        }
        (Purpose::Install, _) => "the previous state was not kept, so a rollback is not possible".to_owned(),
        (Purpose::Rollback, _) => "the previous state is not lost".to_owned(),
    };
    Failure::new(kind_of(error), format!("the {what} in {at} stopped in the middle: {error:#}"))
        .hint(format!("{finish}; {back}"))
}

pub(super) fn finish(files: &dyn Files, plan: &InstallPlan) -> Result<Finished> {
    match plan.purpose {
        Purpose::Install => finish_install(files, plan)?,
        Purpose::Rollback => finish_rollback(files, plan)?,
    }
    Ok(Finished { purpose: plan.purpose, position: plan.position.clone() })
}

fn finish_install(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let own = own_directory(&plan.datadir);
    clean_up(files, plan)?;
    // This comes before the rename: while install.json exists, the marker adds nothing; afterwards it would
    // be wrong.
    files.remove(&own.join(IN_PLACE))?;
    files.sync_directory(&own)?;
    files.rename(&own.join(INSTALL), &own.join(INSTALLED))?;
    files.sync_directory(&own)
}

/// The old state is in place: the discarded files are deleted, and finally the records.
fn finish_rollback(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let own = own_directory(&plan.datadir);
    // The record of the install is removed first, because its previous state no longer exists.
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
