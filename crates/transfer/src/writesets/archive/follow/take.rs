//! Takes one action out of the provider's files: reads it, verifies it, and sees that it was not overwritten meanwhile.
use std::time::Duration;

use anyhow::Result;
use formats::archive::{BlockKind, PartHead};
use formats::galera::gcache::{Action, BufferHeader, HEADER_LEN};
use formats::galera::write_set_check::WriteSetCheck;
use formats::{Seqno, Uuid};

use super::attached::Closed;
use super::files::{CHANGE_MAX, Tail};
use crate::writesets::archive::output::Output;
use crate::writesets::archive::recognise::{START, digest};
use crate::writesets::archive::segment::read_at;
use crate::writesets::store::verify_action;

/// A larger action is read, verified and handed on in pieces of this size.
pub const PIECE: usize = START;
/// So often bytes whose checksums do not fit are read again.
const TRIES: u32 = 5;

/// What came of it.
pub enum Taken {
    /// It was handed on.
    Action {
        /// See [`digest`].
        digest: u64,
    },
    /// Its verdict may still change.
    NotFinal,
    /// Something else is there now.
    Overwritten,
    /// Its checksums do not fit.
    Damaged(String),
}

/// Takes the action with this seqno at this place. `closed`: the provider closed its file, and with it every verdict.
pub fn take(
    tail: &mut Tail,
    at: u64,
    seqno: Seqno,
    closed: Option<&Closed>,
    history: Uuid,
    output: &mut Output<'_>,
) -> Result<Taken> {
    if let Some(taken) = take_from_window(tail, at, seqno, closed, history, output)? {
        return Ok(taken);
    }
    let Some(header) = tail.header(at)?.filter(|header| header.seqno() == Some(seqno)) else {
        return Ok(Taken::Overwritten);
    };
    if !is_final(&header, closed) {
        return Ok(Taken::NotFinal);
    }
    if header.payload_len() > PIECE && header.action == Action::WriteSet {
        return take_large(tail, at, seqno, &header, history, output);
    }
    if header.payload_len() > CHANGE_MAX {
        return Ok(Taken::Damaged(format!("its length is said to be {}", header.payload_len())));
    }
    let mut wrong = String::new();
    for n in 0..TRIES {
        let bytes = read_at(tail.file(), at + HEADER_LEN as u64, header.payload_len())?;
        if !is_still_there(tail, at, &header)? {
            return Ok(Taken::Overwritten);
        }
        match verify_action(seqno, header.action, &bytes) {
            Ok(()) => {
                output.action(history, seqno, header.action, header.skipped, &bytes)?;
                return Ok(Taken::Action { digest: digest(bytes.len() as u64, &bytes) });
            }
            Err(what) => wrong = what,
        }
        std::thread::sleep(Duration::from_millis(u64::from(n)));
    }
    Ok(Taken::Damaged(wrong))
}

/// Whether the action with this seqno at this place is another one than that with this digest.
pub fn is_another(tail: &Tail, at: u64, seqno: Seqno, archived: u64) -> Result<bool> {
    let Some(header) = tail.header(at)?.filter(|header| header.seqno() == Some(seqno)) else {
        return Ok(false);
    };
    let start = read_at(tail.file(), at + HEADER_LEN as u64, header.payload_len().min(START))?;
    Ok(is_still_there(tail, at, &header)? && digest(header.payload_len() as u64, &start) != archived)
}

fn is_still_there(tail: &Tail, at: u64, header: &BufferHeader) -> Result<bool> {
    let is_it = |now: BufferHeader| now.seqno() == header.seqno() && now.size == header.size;
    Ok(tail.header(at)?.is_some_and(is_it))
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
    Ok(Some(Taken::Action { digest: digest(bytes.len() as u64, bytes) }))
}

/// Hands on piece after piece; the last one, with which the action counts, only when everything is sound.
fn take_large(
    tail: &Tail,
    at: u64,
    seqno: Seqno,
    header: &BufferHeader,
    history: Uuid,
    output: &mut Output<'_>,
) -> Result<Taken> {
    let total = header.payload_len() as u64;
    let (mut check, mut start, mut offset) = (WriteSetCheck::default(), None, 0);
    output.flush()?;
    while offset < total {
        // A whole transaction may take minutes.
        output.cancel.check()?;
        let wanted = (total - offset).min(PIECE as u64);
        let piece = read_at(tail.file(), at + HEADER_LEN as u64 + offset, wanted as usize)?;
        if piece.len() as u64 != wanted {
            return Ok(Taken::Overwritten);
        }
        start.get_or_insert_with(|| digest(total, &piece));
        let mut verdict = check.take(&piece).map_err(|error| error.to_string());
        let is_last = offset + wanted == total;
        if is_last && verdict.is_ok() {
            verdict = match std::mem::take(&mut check).finish() {
                Ok(head) if head.seqno == seqno => Ok(()),
                Ok(head) => Err(format!("says that its seqno is {}", head.seqno)),
                Err(error) => Err(error.to_string()),
            };
        }
        match (is_still_there(tail, at, header)?, verdict) {
            (false, _) => return Ok(Taken::Overwritten),
            (true, Err(what)) => return Ok(Taken::Damaged(what)),
            (true, Ok(())) => {}
        }
        let head = PartHead { offset, total, action: header.action, skipped: header.skipped };
        let kind = if is_last { BlockKind::LastPart } else { BlockKind::Part };
        output.block(history, kind, seqno, seqno, head.body(&piece))?;
        offset += wanted;
    }
    Ok(Taken::Action { digest: start.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::cancel::Cancel;
    use crate::failure::{Kind, kind_of};
    use crate::writesets::archive::follow::attached::{Found, Places};
    use crate::writesets::archive::follow::files::head_of;
    use crate::writesets::gcache::{Gcache, RingPlace};

    const STOPPED: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../formats/tests/data/gcache_stopped.bin"));

    /// What a provider has written: a ring that it closed in order, and a page beside it.
    struct Files {
        dir: tempfile::TempDir,
        page: Tail,
    }

    impl Files {
        /// With a page that holds one action of this many bytes under the seqno 7, with these flags of its header.
        fn new(len: usize, flags: u8) -> Files {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("galera.cache"), STOPPED).unwrap();
            let size = HEADER_LEN + len;
            let mut bytes = vec![0; size];
            bytes[0] = 7;
            bytes[16..20].copy_from_slice(&(size as u32).to_le_bytes());
            bytes[20..24].copy_from_slice(&[flags, 0, 2, 0]);
            let path = dir.path().join("gcache.page.000000");
            std::fs::write(&path, bytes).unwrap();
            Files { page: Tail::page(&path).unwrap().unwrap(), dir }
        }

        fn ring(&self) -> std::path::PathBuf {
            self.dir.path().join("galera.cache")
        }

        /// Takes the action of the page.
        fn take(&mut self, closed: Option<&Closed>, cancel: &Cancel) -> Result<Taken> {
            let (queue, _blocks) = sync_channel(1);
            let seen = Mutex::default();
            let mut output = Output { queue, seen: &seen, cancel, pending: None };
            take(&mut self.page, 0, Seqno(7), closed, Uuid::NIL, &mut output)
        }
    }

    /// Each of these takes as long as the provider's files are large.
    #[test]
    fn a_stop_ends_whatever_is_read() {
        let (mut files, cancel) = (Files::new(2 * PIECE, 1), Cancel::new());
        let ring = files.ring();
        let cache = Gcache::open_unless(&ring, &cancel).unwrap();
        let mut tail = Tail::ring(&ring, cache.ring_layout(), RingPlace::START).unwrap();
        let mut found = Found { places: &mut Places::new(), tail: 0, wanted: 0, next: None };
        assert!(matches!(files.take(None, &cancel), Ok(Taken::Damaged(_))), "it would be read");

        cancel.cancel(Kind::Stopped, "told to end");
        let is_stop = |error: Option<anyhow::Error>| error.is_some_and(|e| kind_of(&e) == Kind::Stopped);
        assert!(is_stop(files.take(None, &cancel).err()), "a large write-set");
        assert!(is_stop(tail.walk(&mut found, &cancel).err()), "a walk");
        assert!(is_stop(Gcache::open_unless(&ring, &cancel).err()), "a whole cache");
    }

    /// A provider that opens its file again makes new verdicts.
    #[test]
    fn a_closed_file_makes_verdicts_final_until_it_is_opened_again() {
        let (mut files, cancel) = (Files::new(64, 0), Cancel::new());
        let ring = std::fs::File::open(files.ring()).unwrap();
        let head = head_of(&ring).unwrap();
        let closed = Closed { ring, head };
        assert!(!matches!(files.take(Some(&closed), &cancel), Ok(Taken::NotFinal)), "the file is closed");
        let mut opened = STOPPED.to_vec();
        opened[4] ^= 1;
        std::fs::write(files.ring(), opened).unwrap();
        assert!(
            matches!(files.take(Some(&closed), &cancel), Ok(Taken::NotFinal)),
            "the file is in use again"
        );
    }

    /// What differs within the first MiB, or in its length, is another action; what was overwritten is none.
    #[test]
    fn a_large_action_of_another_branch_is_told_from_the_archived_one() {
        let (files, len) = (Files::new(2 * PIECE, 1), 2 * PIECE as u64);
        let (same, mut other) = (vec![0; PIECE], vec![0; PIECE]);
        other[40] = 1;
        let is_another = |seqno, archived| is_another(&files.page, 0, Seqno(seqno), archived).unwrap();
        assert!(!is_another(7, digest(len, &same)));
        assert!(is_another(7, digest(len, &other)));
        assert!(is_another(7, digest(len - 1, &same)));
        assert!(!is_another(8, digest(len, &other)));
    }
}
