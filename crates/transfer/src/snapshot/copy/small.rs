//! Files without pages: read whole, as they are.
use anyhow::{Context, Result};
use protocol::limits::RANGE_BYTES;

use super::page_file::is_not_ours;
use super::pages::{Copier, Wanted};
use super::unread::{self, may_be_remembered};
use crate::disk::direct::Direct;
use crate::disk::identity::{Signature, look_at, now};

/// Longer than any kernel's clock tick, in nanoseconds.
const TICK: i128 = 20_000_000;

/// Copies a file. Returns its length and the state it was in before it was read; `None` if it is gone or its name
/// belongs to another file.
///
/// # Errors
/// From the system, the sink, or cancelled.
pub fn copy(copier: Copier<'_>, file: &Wanted) -> Result<Option<(u64, Signature)>> {
    let path = &file.path;
    let (began, quiet) = (now(), copier.quiet(file));
    let unread = unread::hand_over(copier, file, true)?;
    if let Some((unread, memory)) = unread.as_ref().zip(copier.memory).filter(|(unread, _)| unread.is_all()) {
        memory.keep(unread.at);
        let seen = unread.look.signature;
        return Ok(Some((seen.size, settled(seen, began))));
    }
    let open = match Direct::open(path, false) {
        Ok(open) => open,
        Err(e) if is_not_ours(&e) => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot open {}", path.display())),
    };
    let before = look_at(open.file()).with_context(|| format!("cannot look at {}", path.display()))?;
    if before.identity != file.identity {
        return Ok(None);
    }
    copier.sink.announce(&file.entry)?;
    let learner = copier.memory.filter(|_| may_be_remembered(&file.entry) && unread.is_none());
    if let Some(memory) = learner {
        memory.learner().begin(file.entry.id, path, &before, quiet, copier.live, None);
    }
    let size = before.signature.size;
    let mut buffer = vec![0; size.min(u64::from(RANGE_BYTES)) as usize];
    // What was handed over is not read. If the file was changed since, or has grown, a later listing finds that.
    let mut offset = unread.as_ref().map_or(0, |unread| unread.first_from(0));
    while offset < size {
        copier.cancel.check()?;
        (copier.pace)()?;
        let left = (size - offset).min(buffer.len() as u64) as usize;
        let read = open
            .read(&mut buffer[..left], offset)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        unread::learn(copier, file, unread.as_ref(), offset, &buffer[..read], true)?;
        copier.sink.write(file.entry.id, offset, &buffer[..read])?;
        offset += read as u64;
    }
    Ok(Some((offset, settled(before.signature, began))))
}

/// If a later change within the same clock tick could leave the same state, makes the state unequal to any other.
fn settled(seen: Signature, read_at: i128) -> Signature {
    if seen.changed() + TICK < read_at { seen } else { seen.unsure() }
}
