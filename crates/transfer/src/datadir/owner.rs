//! The owner of a datadir: root's verbs run as that user.
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::KEPT_DIRECTORY;
use crate::failure::{Failure, Kind};
use crate::server::privileges::{become_user, is_root};

/// Becomes the owner of a datadir, if this process runs as root. Must run before anything in the datadir is
/// read, and before the first thread starts.
///
/// Root stays root only if no other user can have written the files: the datadir and all its parent
/// directories belong to root, and there is no link in the path.
///
/// # Errors
/// The datadir does not exist; it belongs to root, but others can change it; the user cannot be changed.
pub fn become_owner_of(datadir: &Path) -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cannot = || format!("cannot open the datadir {}", datadir.display());
    let opened =
        openat(CWD, datadir, flags, Mode::empty()).map_err(std::io::Error::from).with_context(cannot)?;
    let owner = fs::File::from(opened).metadata().with_context(cannot)?;
    match (owner.uid(), owner.gid()) {
        (0, _) => only_root_can_change(datadir),
        (uid, gid) => become_user(uid, gid),
    }
}

fn only_root_can_change(datadir: &Path) -> Result<()> {
    let refuse = |why: String| -> Result<()> {
        let hint = "check that this is the right datadir; then run rejoin as the server's user";
        let text = format!("the datadir {} belongs to root, but {why}", datadir.display());
        bail!(Failure::new(Kind::Configuration, text).hint(hint))
    };
    let written = std::path::absolute(datadir)?;
    for above in written.ancestors() {
        let meta = fs::symlink_metadata(above).with_context(|| format!("cannot stat {}", above.display()))?;
        if meta.is_symlink() {
            return refuse(format!("{} is a link", above.display()));
        }
        // In a sticky directory only owners may rename, so root's entries stay.
        let sticky = above != written && meta.uid() == 0 && meta.mode() & 0o1000 != 0;
        if !sticky && !is_roots_alone(&meta) {
            return refuse(format!("others can change {}", above.display()));
        }
    }
    for own in [KEPT_DIRECTORY, ".rejoin"].map(|name| written.join(name)) {
        if own.symlink_metadata().is_ok_and(|meta| !is_roots_alone(&meta)) {
            return refuse(format!("others can change {}", own.display()));
        }
    }
    Ok(())
}

fn is_roots_alone(meta: &Metadata) -> bool {
    meta.uid() == 0 && meta.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Only root can have a datadir that only root can write; any other datadir is refused whatever its mode.
    #[test]
    fn root_stays_root_only_where_nobody_else_can_write() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let (datadir, link) = (base.join("data"), base.join("link"));
        fs::create_dir_all(datadir.join(KEPT_DIRECTORY)).unwrap();
        symlink(&datadir, &link).unwrap();
        let above = base.ancestors().skip(1).all(|dir| {
            let meta = dir.metadata().unwrap();
            is_roots_alone(&meta) || (meta.uid() == 0 && meta.mode() & 0o1000 != 0)
        });
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        [&base, &datadir, &datadir.join(KEPT_DIRECTORY)].into_iter().for_each(|path| set(path, 0o755));
        assert_eq!(only_root_can_change(&datadir).is_ok(), is_root() && above);
        for path in [datadir.clone(), datadir.join(KEPT_DIRECTORY), base.clone()] {
            set(&path, 0o775);
            let error = only_root_can_change(&datadir).unwrap_err().to_string();
            assert!(error.contains("others can change"), "{error}");
            set(&path, 0o755);
        }
        let error = only_root_can_change(&link).unwrap_err().to_string();
        assert!(error.contains("is a link"), "{error}");
    }
}
