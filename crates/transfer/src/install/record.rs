//! The plan on disk: `install.json` while it is carried out, `installed.json` and `released.json` afterwards.
//!
//! A record is of one datadir: one that was copied or moved is refused.
use std::path::Path;

use anyhow::{Context, Result};

use crate::failure::{Failure, Kind};
use crate::install::files::Files;
use crate::install::names::{INSTALL, INSTALLED, own_directory};
use crate::install::plan::{InstallPlan, VERSION};

/// Writes the plan to `install.json`, durably.
pub(super) fn write_record(files: &dyn Files, plan: &InstallPlan) -> Result<()> {
    let record = own_directory(&plan.datadir).join(INSTALL);
    files.write_through(&record, &mut |to| {
        // There can be very many files: entry by entry.
        serde_json::to_writer(to, plan).with_context(|| format!("cannot write {}", record.display()))
    })
}

/// The plan that was begun and is not finished.
pub fn pending(files: &dyn Files, datadir: &Path) -> Result<Option<InstallPlan>> {
    read_record(files, datadir, INSTALL)
}

/// The last finished install, as long as its record is there.
pub fn installed(files: &dyn Files, datadir: &Path) -> Result<Option<InstallPlan>> {
    read_record(files, datadir, INSTALLED)
}

pub(super) fn read_record(files: &dyn Files, datadir: &Path, name: &str) -> Result<Option<InstallPlan>> {
    let path = own_directory(datadir).join(name);
    let Some(text) = files.open(&path)? else { return Ok(None) };
    let plan: InstallPlan =
        serde_json::from_reader(text).with_context(|| format!("{} is not readable", path.display()))?;
    let refuse = |why: String| Err(Failure::new(Kind::Disk, why).into());
    if plan.version != VERSION {
        return refuse(format!("{} has version {}, this program {VERSION}", path.display(), plan.version));
    }
    if plan.datadir != datadir {
        let text = format!("{} was made for {}", path.display(), plan.datadir.display());
        return Err(Failure::new(Kind::Disk, text)
            .hint(other_datadir_hint(files, &plan.datadir, datadir))
            .into());
    }
    Ok(Some(plan))
}

/// The same directory may have two names: its record must not be removed then.
fn other_datadir_hint(files: &dyn Files, made_for: &Path, datadir: &Path) -> String {
    let record = |datadir: &Path| files.read(&own_directory(datadir).join(INSTALL)).ok().flatten();
    let installed = |datadir: &Path| files.read(&own_directory(datadir).join(INSTALLED)).ok().flatten();
    let own = own_directory(datadir);
    if record(made_for) == record(datadir) && installed(made_for) == installed(datadir) {
        return format!(
            "{} and {} have the same records: if they are one directory, reached by a link, use the first name everywhere (datadir \
             of the server, --datadir); if one is a copy, remove {} of the copy",
            made_for.display(),
            datadir.display(),
            own.display()
        );
    }
    format!("if this datadir is a copy or was moved, remove {}", own.display())
}
