//! Takes one action out of the provider's files: reads it, verifies it, and sees that it was not overwritten meanwhile.
use std::time::Duration;

use anyhow::Result;
use formats::archive::{BlockKind, PartHead};
use formats::galera::gcache::{Action, BufferHeader, HEADER_LEN};
use formats::galera::write_set_check::WriteSetCheck;
use formats::{Seqno, Uuid};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::attached::Closed;
use super::files::{CHANGE_MAX, Tail};
use crate::writesets::archive::output::Output;
use crate::writesets::archive::segment::read_at;
use crate::writesets::store::verify_action;

/// A larger action is read, verified and handed on in pieces of this size.
pub const PIECE: usize = 1 << 20;
/// So often bytes whose checksums do not fit are read again.
const TRIES: u32 = 5;

/// What came of it.
pub enum Taken {
    /// It was handed on.
    Action {
        /// See [`digest`].
        digest: u64,
        /// It was handed on in pieces.
        large: bool,
    },
    /// Its verdict may still change.
    NotFinal,
    /// Something else is there now.
    Overwritten,
    /// Its checksums do not fit.
    Damaged(String),
}

/// What an action is recognised by when the provider's files are looked through again.
pub fn digest(skipped: bool, bytes: &[u8]) -> u64 {
    xxh3_64(bytes) ^ u64::from(skipped)
}

/// Takes the action with this seqno at this place. `closed`: the provider closed its file, and with it every verdict.
/// Without an output it is only looked at.
pub fn take(
    tail: &mut Tail,
    at: u64,
    seqno: Seqno,
    closed: Option<&Closed>,
    mut output: Option<(Uuid, &mut Output<'_>)>,
) -> Result<Taken> {
    if let Some((history, output)) = output.as_mut()
        && let Some(taken) = take_from_window(tail, at, seqno, closed, *history, output)?
    {
        return Ok(taken);
    }
    let is_it = |header: &BufferHeader| header.seqno() == Some(seqno);
    let Some(header) = tail.header(at)?.filter(is_it) else { return Ok(Taken::Overwritten) };
    if output.is_some() && !is_final(&header, closed) {
        return Ok(Taken::NotFinal);
    }
    let still_there =
        || -> Result<bool> { Ok(tail.header(at)?.is_some_and(|now| is_it(&now) && now.size == header.size)) };
    if header.payload_len() > PIECE && header.action == Action::WriteSet {
        let Some((history, output)) = output else { return Ok(Taken::Overwritten) };
        return take_large(tail, at, seqno, &header, history, output, &still_there);
    }
    if header.payload_len() > CHANGE_MAX {
        return Ok(Taken::Damaged(format!("its length is said to be {}", header.payload_len())));
    }
    let mut wrong = String::new();
    for n in 0..TRIES {
        let bytes = read_at(tail.file(), at + HEADER_LEN as u64, header.payload_len())?;
        if !still_there()? {
            return Ok(Taken::Overwritten);
        }
        match verify_action(seqno, header.action, &bytes) {
            Ok(()) => {
                if let Some((history, output)) = output {
                    output.action(history, seqno, header.action, header.skipped, &bytes)?;
                }
                return Ok(Taken::Action { digest: digest(header.skipped, &bytes), large: false });
            }
            Err(what) => wrong = what,
        }
        std::thread::sleep(Duration::from_millis(u64::from(n)));
    }
    Ok(Taken::Damaged(wrong))
}

/// Whether its verdict can no longer change. To be asked after the header was read.
fn is_final(header: &BufferHeader, closed: Option<&Closed>) -> bool {
    header.released || closed.is_some_and(Closed::is_still)
}

/// Takes a write-set that is small, final and sound as the window has it: three system calls for each one cost more processor time
/// than all else. `None`: a closer look is needed.
///
/// A window that was read a moment ago says nothing wrong of a write-set whose checksums hold: a verdict that was final still is.
fn take_from_window(
    tail: &mut Tail,
    at: u64,
    seqno: Seqno,
    closed: Option<&Closed>,
    history: Uuid,
    output: &mut Output<'_>,
) -> Result<Option<Taken>> {
    let Some((header, bytes)) = tail.buffer(at)? else { return Ok(None) };
    // A configuration change has no checksum.
    let is_it = header.seqno() == Some(seqno) && header.action == Action::WriteSet;
    if !(is_it && is_final(&header, closed) && verify_action(seqno, header.action, bytes).is_ok()) {
        return Ok(None);
    }
    output.action(history, seqno, header.action, header.skipped, bytes)?;
    Ok(Some(Taken::Action { digest: digest(header.skipped, bytes), large: false }))
}

/// Hands on piece after piece; the last one, with which the action counts, only when everything is sound.
fn take_large(
    tail: &Tail,
    at: u64,
    seqno: Seqno,
    header: &BufferHeader,
    history: Uuid,
    output: &mut Output<'_>,
    still_there: &dyn Fn() -> Result<bool>,
) -> Result<Taken> {
    let total = header.payload_len() as u64;
    let (mut check, mut hash, mut offset) = (WriteSetCheck::default(), Xxh3::new(), 0);
    output.flush()?;
    while offset < total {
        // A whole transaction may take minutes.
        output.cancel.check()?;
        let wanted = (total - offset).min(PIECE as u64);
        let piece = read_at(tail.file(), at + HEADER_LEN as u64 + offset, wanted as usize)?;
        if piece.len() as u64 != wanted {
            return Ok(Taken::Overwritten);
        }
        hash.update(&piece);
        let mut verdict = check.take(&piece).map_err(|error| error.to_string());
        let is_last = offset + wanted == total;
        if is_last && verdict.is_ok() {
            verdict = match std::mem::take(&mut check).finish() {
                Ok(head) if head.seqno == seqno => Ok(()),
                Ok(head) => Err(format!("says that its seqno is {}", head.seqno)),
                Err(error) => Err(error.to_string()),
            };
        }
        match (still_there()?, verdict) {
            (false, _) => return Ok(Taken::Overwritten),
            (true, Err(what)) => return Ok(Taken::Damaged(what)),
            (true, Ok(())) => {}
        }
        let head = PartHead { offset, total, action: header.action, skipped: header.skipped };
        let kind = if is_last { BlockKind::LastPart } else { BlockKind::Part };
        output.block(history, kind, seqno, seqno, head.body(&piece))?;
        offset += wanted;
    }
    Ok(Taken::Action { digest: hash.digest() ^ u64::from(header.skipped), large: true })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::cancel::Cancel;
    use crate::failure::{Kind, kind_of};
    use crate::writesets::archive::follow::attached::{Found, Places};
    use crate::writesets::gcache::{Gcache, RingPlace};

    const STOPPED: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../formats/tests/data/gcache_stopped.bin"));

    /// Each of these takes as long as the provider's files are large.
    #[test]
    fn a_stop_ends_whatever_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = Cancel::new();
        let ring = dir.path().join("galera.cache");
        std::fs::write(&ring, STOPPED).unwrap();
        let cache = Gcache::open_unless(&ring, &cancel).unwrap();
        let mut tail = Tail::ring(&ring, cache.ring_layout(), RingPlace::START).unwrap();
        let mut found = Found { places: &mut Places::new(), tail: 0, wanted: 0 };

        // A page with one released write-set of 2 MiB.
        let size = HEADER_LEN + 2 * PIECE;
        let mut bytes = vec![0; size];
        bytes[0] = 7;
        bytes[16..20].copy_from_slice(&(size as u32).to_le_bytes());
        bytes[20..24].copy_from_slice(&[1, 0, 2, 0]);
        let path = dir.path().join("gcache.page.000000");
        std::fs::write(&path, bytes).unwrap();
        let mut page = Tail::page(&path).unwrap().unwrap();
        let (queue, blocks) = sync_channel(1);
        let seen = Mutex::default();
        let mut output = Output { queue, seen: &seen, cancel: &cancel, pending: None };
        let mut take_it = || take(&mut page, 0, Seqno(7), None, Some((Uuid::NIL, &mut output)));
        assert!(matches!(take_it(), Ok(Taken::Damaged(_))), "it would be read");

        cancel.cancel(Kind::Stopped, "told to end");
        let is_stop = |error: Option<anyhow::Error>| error.is_some_and(|e| kind_of(&e) == Kind::Stopped);
        assert!(is_stop(take_it().err()), "a large write-set");
        assert!(is_stop(tail.walk(&mut found, &cancel).err()), "a walk");
        assert!(is_stop(Gcache::open_unless(&ring, &cancel).err()), "a whole cache");
        assert!(blocks.try_recv().is_err());
    }

    /// A provider that opens its file again makes new verdicts.
    #[test]
    fn a_closed_file_makes_verdicts_final_until_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = Cancel::new();
        let ring = dir.path().join("galera.cache");
        std::fs::write(&ring, STOPPED).unwrap();
        let file = std::fs::File::open(&ring).unwrap();
        let head = crate::writesets::archive::follow::files::head_of(&file).unwrap();
        let closed = Closed { ring: file, head };

        // A page with one action that is not released.
        let mut bytes = vec![0; HEADER_LEN + 64];
        bytes[0] = 7;
        bytes[16..20].copy_from_slice(&(HEADER_LEN as u32 + 64).to_le_bytes());
        bytes[20..24].copy_from_slice(&[0, 0, 2, 0]);
        let path = dir.path().join("gcache.page.000000");
        std::fs::write(&path, bytes).unwrap();
        let mut page = Tail::page(&path).unwrap().unwrap();
        let (queue, _blocks) = sync_channel(1);
        let seen = Mutex::default();
        let mut output = Output { queue, seen: &seen, cancel: &cancel, pending: None };
        let mut take_it =
            || take(&mut page, 0, Seqno(7), Some(&closed), Some((Uuid::NIL, &mut output))).unwrap();
        assert!(!matches!(take_it(), Taken::NotFinal), "the file is closed");
        let mut opened = STOPPED.to_vec();
        opened[4] ^= 1;
        std::fs::write(&ring, opened).unwrap();
        assert!(matches!(take_it(), Taken::NotFinal), "the file is in use again");
    }
}
