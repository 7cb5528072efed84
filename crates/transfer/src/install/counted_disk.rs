//! The real disk, for a probe that must tell an install that works from one that hangs.
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::disk::filesystem::FilesystemId;
use crate::disk::probe::{Entry, Probe, Rights};
use crate::install::files::{Disk, Files, What, Write};
use crate::install::patch;
use crate::server::local_work::LocalWork;

/// [`Disk`], each of whose operations is a step of local work. A patch is applied in several steps.
#[derive(Clone, Copy, Debug)]
pub struct CountedDisk<'a>(pub &'a LocalWork);

const DISK: &Disk = &Disk;

/// Methods that do what those of [`Disk`] do, and count a step when they have succeeded or failed.
macro_rules! counted {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {$(
        fn $name(&self, $($arg: $kind),*) -> $out {
            let done = DISK.$name($($arg),*);
            self.0.step();
            done
        }
    )*};
}

impl Probe for CountedDisk<'_> {
    counted! {
        entry(path: &Path) -> io::Result<Option<Entry>>;
        rights(directory: &Path) -> io::Result<Rights>;
        may_open(file: &Path, write: bool) -> bool;
    }
}

impl Files for CountedDisk<'_> {
    counted! {
        filesystem(path: &Path) -> Result<FilesystemId>;
        real_path(directory: &Path) -> Result<PathBuf>;
        what(path: &Path) -> Result<Option<What>>;
        state(path: &Path) -> Result<Option<(u64, i128)>>;
        list(directory: &Path) -> Result<Vec<PathBuf>>;
        read(path: &Path) -> Result<Option<Vec<u8>>>;
        open(path: &Path) -> Result<Option<Box<dyn Read + '_>>>;
        rename(from: &Path, to: &Path) -> Result<()>;
        rename_if_there(from: &Path, to: &Path) -> Result<()>;
        link(from: &Path, to: &Path) -> Result<bool>;
        copy_unsynced(from: &Path, to: &Path) -> Result<()>;
        temporary(path: &Path) -> Result<PathBuf>;
        remove_temporaries(path: &Path) -> Result<()>;
        write_unsynced(path: &Path, content: &[u8]) -> Result<()>;
        write_unsynced_through(path: &Path, write: Write<'_>) -> Result<()>;
        remove(path: &Path) -> Result<()>;
        make_directory(path: &Path) -> Result<()>;
        remove_directory(path: &Path) -> Result<()>;
        sync_file(path: &Path) -> Result<()>;
        sync_directory(path: &Path) -> Result<()>;
    }

    fn patch_unsynced(&self, patch: &Path, table: &Path) -> Result<()> {
        patch::apply(patch, table, &|| self.0.step())
    }
}
