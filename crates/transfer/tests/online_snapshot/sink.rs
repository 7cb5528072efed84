//! Puts a snapshot into a directory, as a joiner would into its datadir.
use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use rejoin_transfer::snapshot::sink::{Manifest, SnapshotSink};
use rustix::fs::{FallocateFlags, fallocate};

/// Files lie in `dir/.new/ID` until the manifest names them.
pub struct DirectorySink {
    dir: PathBuf,
    open: Mutex<HashMap<FileId, ()>>,
}

impl DirectorySink {
    pub fn new(dir: &Path) -> Result<DirectorySink> {
        fs::create_dir_all(dir.join(".new"))?;
        Ok(DirectorySink { dir: dir.to_owned(), open: Mutex::default() })
    }

    fn staged(&self, id: FileId) -> PathBuf {
        self.dir.join(".new").join(id.0.to_string())
    }

    fn target(&self, entry: &FileEntry) -> Result<PathBuf> {
        if entry.place == Place::External {
            bail!("{} lies outside the datadir", entry.path);
        }
        Ok(self.dir.join(&entry.path))
    }
}

impl SnapshotSink for DirectorySink {
    fn announce(&self, entry: &FileEntry) -> Result<()> {
        entry.check()?;
        File::create(self.staged(entry.id))?;
        self.open.lock().expect("lock").insert(entry.id, ());
        Ok(())
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        if !self.open.lock().expect("lock").contains_key(&file) {
            bail!("file {} was not announced", file.0);
        }
        let out = File::options().write(true).open(self.staged(file))?;
        for (at, block) in bytes.chunks(4096).enumerate() {
            // Zeros are written too where the range was written before.
            let at = offset + at as u64 * 4096;
            if block.iter().any(|&b| b != 0) || at < out.metadata()?.len() {
                out.write_all_at(block, at)?;
            }
        }
        Ok(())
    }

    fn drop_redo(&self, file: FileId, range: Range<u64>) -> Result<()> {
        let out = File::options().write(true).open(self.staged(file))?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&out, flags, range.start, range.end - range.start)?)
    }

    fn finish(&self, manifest: &Manifest) -> Result<()> {
        for entry in manifest.files.iter() {
            if matches!(entry.role, FileRole::Link { .. }) {
                continue;
            }
            let target = self.target(&entry)?;
            fs::create_dir_all(target.parent().context("no directory")?)?;
            let from = self.staged(entry.id);
            File::options().write(true).open(&from)?.set_len(entry.size)?;
            if target.exists() {
                bail!("two files for {}", target.display());
            }
            fs::rename(from, &target)?;
        }
        fs::remove_dir_all(self.dir.join(".new"))?;
        Ok(())
    }
}

/// Slows the copy down, so that something can happen during it.
pub struct Slow<'a>(pub &'a DirectorySink, pub Duration);

impl SnapshotSink for Slow<'_> {
    fn announce(&self, entry: &FileEntry) -> Result<()> {
        self.0.announce(entry)
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<()> {
        if file.0 != 0 && bytes.len() > 65536 {
            std::thread::sleep(self.1);
        }
        self.0.write(file, offset, bytes)
    }

    fn drop_redo(&self, file: FileId, range: Range<u64>) -> Result<()> {
        self.0.drop_redo(file, range)
    }

    fn finish(&self, manifest: &Manifest) -> Result<()> {
        self.0.finish(manifest)
    }
}
