//! What a new file has of the old one that it replaces: its bytes are copied from there, shared where the filesystem can.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::staging::Held;
use crate::disk::identity::{Look, look_at};
use crate::failure::{Failure, Kind};

/// Bytes that are copied at once where the kernel does not do it.
const STEP: usize = 1 << 20;

/// An old file, as it was when it was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Old {
    /// Where it is.
    pub path: PathBuf,
    /// Which file, in which state.
    pub look: Look,
}

/// Where the bytes of a range are that the donor calls the same.
#[derive(Clone, Debug)]
pub enum Origin {
    /// In the staged file already: an earlier transfer had received them.
    Received,
    /// In the old file.
    Old(Old),
}

/// Copies what is the same, up to `size`. The old file must be as it was compared.
pub(super) fn copy(held: &Held, to: &Path, size: u64) -> Result<()> {
    let Some(old) = held.old.as_ref().filter(|_| !held.same.is_empty()) else { return Ok(()) };
    let from = File::open(&old.path).with_context(|| format!("cannot open {}", old.path.display()))?;
    let into =
        File::options().write(true).open(to).with_context(|| format!("cannot open {}", to.display()))?;
    for range in held.same.iter().filter(|range| range.start < size) {
        copy_range(&from, &into, range.start, range.end.min(size))
            .with_context(|| format!("cannot copy from {} to {}", old.path.display(), to.display()))?;
    }
    let now = look_at(&from).with_context(|| format!("cannot look at {}", old.path.display()))?;
    if now.identity != old.look.identity || now.signature != old.look.signature {
        let text = format!("{} changed while it was compared", old.path.display());
        return Err(Failure::new(Kind::Disk, text).hint("does another server run on this datadir?").into());
    }
    Ok(())
}

fn copy_range(from: &File, into: &File, start: u64, end: u64) -> Result<()> {
    let (mut at, mut to) = (start, start);
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut at), into, Some(&mut to), wanted) {
            Ok(0) => anyhow::bail!("it ends at {at}, before {end}"),
            Ok(_) => {}
            Err(_) => return copy_bytes(from, into, at, end),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, into: &File, mut at: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; STEP];
    while at < end {
        let step = (end - at).min(STEP as u64) as usize;
        from.read_exact_at(&mut buffer[..step], at)?;
        into.write_all_at(&buffer[..step], at)?;
        at += step as u64;
    }
    Ok(())
}
