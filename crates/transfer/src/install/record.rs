//! The plan on disk: `install.json` while it is carried out, `installed.json` and `released.json` afterwards.
//!
//! A record is of one datadir: one that was copied or moved is refused.
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use crate::failure::{Failure, Kind};
use crate::install::files::Files;
use crate::install::names::{INSTALL, INSTALLED, own_directory};
use crate::install::plan::{InstallPlan, VERSION};

/// The version is within so many bytes from the beginning.
const HEAD_BYTES: u64 = 64;

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
    require_version(&path, text)?;
    let Some(text) = files.open(&path)? else { return Ok(None) };
    let plan: InstallPlan =
        serde_json::from_reader(text).with_context(|| format!("{} is not readable", path.display()))?;
    if plan.datadir != datadir {
        let text = format!("{} was made for {}", path.display(), plan.datadir.display());
        return Err(Failure::new(Kind::Disk, text)
            .hint(other_datadir_hint(files, &plan.datadir, datadir))
            .into());
    }
    Ok(Some(plan))
}

/// Refuses a record of another version before anything else of it is read: its fields may be others. The version comes
/// first, because a record of very many files takes long to parse.
fn require_version(path: &Path, text: impl Read) -> Result<()> {
    let mut head = Vec::new();
    let read = text.take(HEAD_BYTES).read_to_end(&mut head);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    let version = version_in(&head).with_context(|| format!("{} is not readable", path.display()))?;
    if version == VERSION {
        return Ok(());
    }
    let text = format!("{} has version {version}, this program reads version {VERSION}", path.display());
    let hint = "nothing was changed; install the rejoin again that wrote it (\"program\" in rejoin-joiner-*.json in \
                the datadir), run `rejoin finish`, `rejoin rollback` or `rejoin release`, then upgrade";
    Err(Failure::new(Kind::Disk, text).hint(hint).into())
}

/// The version in the beginning of a record.
fn version_in(head: &[u8]) -> Option<u32> {
    let head = head.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    let rest = head.strip_prefix(br#""version""#)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::files::Disk;

    #[test]
    fn a_record_of_another_version_is_refused_by_its_version_whatever_its_fields_are() {
        let datadir = tempfile::tempdir().unwrap();
        let own = own_directory(datadir.path());
        std::fs::create_dir(&own).unwrap();
        let text = r#"{"version": 2, "purpose": "Elsewhere", "sweep": [{"pattern": "Aria"}]}"#;
        std::fs::write(own.join(INSTALLED), text).unwrap();
        let error = format!("{:#}", installed(&Disk, datadir.path()).unwrap_err());
        assert!(
            error.contains("has version 2")
                && error.contains("(hint: nothing was changed; install the rejoin again that wrote it"),
            "{error}"
        );
    }

    #[test]
    fn the_version_is_read_from_the_beginning_of_a_record() {
        assert_eq!(version_in(br#"{"version":3,"purpose":"Else"#), Some(3));
        assert_eq!(version_in(b" {\n  \"version\" : 14"), Some(14));
        for other in ["", "{", "[3]", r#"{"version"}"#, r#"{"version":"3"}"#, r#"{"version":99999999999}"#] {
            assert_eq!(version_in(other.as_bytes()), None, "{other}");
        }
    }
}
