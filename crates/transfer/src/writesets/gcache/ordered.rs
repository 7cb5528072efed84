//! The provider's cache in the order of seqnos.
//!
//! Buffers lie in the order in which they were allocated: the ring's and each page's are almost sorted by seqno, and a large
//! transaction whose parts arrived between others' is ordered later than its neighbours. So each stretch has a cursor, the
//! cursor with the lowest seqno moves on, and what comes too early waits.
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use formats::galera::gcache::{BufferHeader, HEADER_LEN, Order, RING_START};
use formats::galera::ring::{Layout, Mark, Stretch};
use formats::{Seqno, Uuid};

use super::files::{Gcache, read_payload};
use super::window::Window;
use super::{Entry, Payload};
use crate::failure::{Failure, Kind};
use crate::writesets::store::{StoredAction, Take, WriteSetStore};

/// Actions that may wait for one with a lower seqno. The provider orders what it received within a few hundred.
const WAITING_MAX: usize = 100_000;
/// A server overwrites a small part of its ring while it is looked through; this part is given up then.
const AHEAD: u64 = 8;

/// Where a walk of the ring begins.
pub(crate) struct RingPlace {
    pub(crate) at: u64,
    /// The seqno of the buffer there, if it has one.
    pub(crate) seqno: Option<Seqno>,
    /// The highest seqno before it, where that is known.
    pub(crate) highest: Seqno,
}

impl RingPlace {
    /// The ring's start.
    pub(crate) const START: RingPlace = RingPlace { at: RING_START, seqno: None, highest: Seqno(0) };

    fn of(mark: &Mark) -> RingPlace {
        let seqno = match mark.order {
            Order::Ordered(seqno) => Some(seqno),
            Order::Unordered | Order::Discarded => None,
        };
        RingPlace { at: mark.at, seqno, ..RingPlace::START }
    }
}

impl WriteSetStore for Gcache {
    fn history(&self) -> Uuid {
        self.preamble().history
    }

    fn range(&self) -> Option<(Seqno, Seqno)> {
        Gcache::range(self)
    }

    fn read(&self, from: Seqno, to: Seqno, take: &mut Take<'_>) -> Result<()> {
        let mut cursors = self.cursors(from)?;
        let mut waiting: BTreeMap<Seqno, (usize, Entry)> = BTreeMap::new();
        let mut next = from;
        while next <= to {
            let (of, entry) = loop {
                if let Some(found) = waiting.remove(&next) {
                    break found;
                }
                let heads =
                    cursors.iter().enumerate().filter_map(|(i, cursor)| Some((cursor.head?.seqno, i)));
                let Some((_, lowest)) = heads.min().filter(|_| waiting.len() < WAITING_MAX) else {
                    bail!(missing(next));
                };
                if let Some(entry) = cursors[lowest].advance()?.filter(|entry| entry.seqno >= next) {
                    waiting.insert(entry.seqno, (lowest, entry));
                }
            };
            let bytes = match read_payload(&cursors[of].window, &entry)? {
                Payload::Valid(bytes) => bytes,
                Payload::Bad(what) => {
                    bail!(Failure::new(Kind::Disk, format!("write-set {next} is damaged: {what}")))
                }
                Payload::Overwritten => bail!(missing(next)),
            };
            let BufferHeader { action, skipped, released, .. } = entry.header;
            let is_final = released || self.preamble().synced;
            if !take(StoredAction { seqno: next, action, skipped, is_final, bytes })? {
                break;
            }
            next = Seqno(next.0.saturating_add(1));
        }
        Ok(())
    }
}

fn missing(seqno: Seqno) -> Failure {
    let text = format!("write-set {seqno} is not, or no longer, in the cache");
    Failure::new(Kind::Disk, text).hint("the server may have overwritten it meanwhile: read again")
}

impl Gcache {
    /// How buffers lie in the ring.
    pub(crate) fn ring_layout(&self) -> Layout {
        Layout::ring(self.bytes, self.preamble().aligned())
    }

    /// Where in the ring to begin for this action and what follows it; for an action that is not there yet, the end.
    pub(crate) fn ring_place(&self, next: Option<Seqno>) -> RingPlace {
        let next = next.unwrap_or(Seqno(1));
        let stretches = self.ring.stretches.iter();
        let with_it = stretches.clone().find(|stretch| stretch.last.is_some_and(|last| last.0 >= next.0 - 1));
        match with_it {
            Some(stretch) => stretch
                .marks
                .get(first_mark(stretch, next))
                .map_or(RingPlace { at: stretch.from, ..RingPlace::START }, RingPlace::of),
            None => {
                let highest = stretches.filter_map(|stretch| stretch.last).max();
                RingPlace { at: self.ring.next, highest: highest.unwrap_or(Seqno(0)), seqno: None }
            }
        }
    }

    /// The place to begin at instead when a server overwrites the oldest buffers faster than they are read: an eighth of the
    /// ring further on. `None` where this action is still in a file, or nothing says which buffers are the oldest.
    pub(crate) fn ring_place_ahead(&self, next: Option<Seqno>) -> Option<RingPlace> {
        let pages = self.pages().iter().filter(|page| page.live).map(|page| &page.stretch);
        let firsts = self.ring.stretches.iter().chain(pages).filter_map(|stretch| stretch.first);
        let is_overwritten = firsts.min().zip(next).is_some_and(|(first, next)| first > next);
        let [old, new] = self.ring.stretches.as_slice() else { return None };
        let are_laps = new.from == RING_START && old.last? < new.first?;
        if !is_overwritten || !are_laps {
            return None;
        }
        let from = old.from + self.bytes / AHEAD;
        old.marks.iter().find(|mark| mark.at >= from).or(new.marks.first()).map(RingPlace::of)
    }

    /// A cursor for each stretch in which `from` or something newer may lie.
    fn cursors(&self, from: Seqno) -> Result<Vec<Cursor>> {
        let layout = self.ring_layout();
        let ring = self.ring.stretches.iter().map(|stretch| (self.path(), layout, stretch));
        let pages = self.pages().iter().filter(|page| page.live);
        let pages = pages.map(|page| (page.path.as_path(), Layout::page(page.bytes), &page.stretch));
        let mut cursors = Vec::new();
        for (path, layout, stretch) in ring.chain(pages) {
            if stretch.last.is_some_and(|last| last >= from) {
                cursors.extend(Cursor::open(path, layout, stretch, from)?);
            }
        }
        Ok(cursors)
    }
}

/// The mark behind which `from` lies; one earlier than seqnos alone would say, for those that are out of order.
fn first_mark(stretch: &Stretch, from: Seqno) -> usize {
    let is_newer = |order: Order| matches!(order, Order::Ordered(seqno) if seqno > from);
    let newer = stretch.marks.iter().position(|mark| is_newer(mark.order));
    newer.unwrap_or(stretch.marks.len()).saturating_sub(2)
}

/// A place in one stretch.
struct Cursor {
    window: Window,
    layout: Layout,
    at: u64,
    to: u64,
    head: Option<Entry>,
}

impl Cursor {
    /// `None` when the file is gone: a page is deleted as soon as its transactions are released.
    fn open(path: &Path, layout: Layout, stretch: &Stretch, from: Seqno) -> Result<Option<Cursor>> {
        let mut window = match Window::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| path.display().to_string())?,
        };
        let mut at = stretch.to;
        for mark in stretch.marks.iter().skip(first_mark(stretch, from)) {
            let now = window.header(mark.at)?.and_then(|bytes| BufferHeader::parse(&bytes));
            // A mark that is no longer what it was has been written anew.
            if now.is_some_and(|header| header.order == mark.order) {
                at = mark.at;
                break;
            }
        }
        let mut cursor = Cursor { window, layout, at, to: stretch.to, head: None };
        cursor.advance()?;
        Ok(Some(cursor))
    }

    /// Answers the head and moves to the next ordered buffer.
    fn advance(&mut self) -> Result<Option<Entry>> {
        let mut found = None;
        while self.at < self.to && found.is_none() {
            let window = &mut self.window;
            let mut read = |at| -> Result<Option<[u8; HEADER_LEN]>> { Ok(window.header(at)?) };
            let Some(header) = self.layout.buffer(self.at, &mut read)? else {
                self.at = self.to;
                break;
            };
            found = header.seqno().map(|seqno| Entry { seqno, header, at: self.at });
            self.at += u64::from(header.size);
        }
        Ok(std::mem::replace(&mut self.head, found))
    }
}

#[cfg(test)]
mod tests {
    use formats::galera::gcache::FILE_NAME;

    use super::*;

    const STOPPED: &[u8] =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../formats/tests/data/gcache_stopped.bin"));

    fn read(file: &[u8], of: impl Fn(Seqno, Seqno) -> (Seqno, Seqno)) -> (Vec<Seqno>, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), file).unwrap();
        let cache = Gcache::open(dir.path()).unwrap();
        let (first, last) = cache.range().unwrap();
        let (from, to) = of(first, last);
        let mut taken = Vec::new();
        let outcome = WriteSetStore::read(&cache, from, to, &mut |action| {
            assert!(action.is_final);
            taken.push(action.seqno);
            Ok(true)
        });
        (taken, outcome)
    }

    fn between(first: Seqno, last: Seqno) -> Vec<Seqno> {
        (first.0..=last.0).map(Seqno).collect()
    }

    #[test]
    fn a_range_is_read_in_order_and_what_is_missing_or_damaged_is_named() {
        let whole = std::cell::Cell::default();
        let (taken, outcome) = read(STOPPED, |first, last| {
            whole.set((first, last));
            (first, last)
        });
        outcome.unwrap();
        let (first, last): (Seqno, Seqno) = whole.get();
        assert_eq!(taken, between(first, last));

        let inner = (Seqno(first.0 + 3), Seqno(last.0 - 3));
        let (taken, outcome) = read(STOPPED, |_, _| inner);
        outcome.unwrap();
        assert_eq!(taken, between(inner.0, inner.1));

        let (taken, outcome) = read(STOPPED, |_, last| (Seqno(last.0 - 1), Seqno(last.0 + 5)));
        assert_eq!(taken.len(), 2);
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(&format!("write-set {} is not", last.0 + 1)), "{text}");

        // The last byte of a payload is damaged: everything before it was handed over.
        let mut damaged = STOPPED.to_vec();
        let header: [u8; 8] = (first.0 + 5).to_le_bytes();
        let at = damaged.windows(8).position(|bytes| bytes == header).unwrap();
        damaged[at + HEADER_LEN + 100] ^= 1;
        let (taken, outcome) = read(&damaged, |first, last| (first, last));
        assert_eq!(taken, between(first, Seqno(first.0 + 4)));
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains(&format!("write-set {} is damaged", first.0 + 5)), "{text}");
    }
}
