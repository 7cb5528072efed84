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
/// An archiver that was overtaken skips so many times the bytes that were written since the ring was looked through before ...
const LEAD: u64 = 4;
/// ... but at most this part of the ring.
const LEAD_PART: u64 = 8;

/// Where a walk of the ring begins.
pub(crate) struct RingPlace {
    pub(crate) at: u64,
    /// The seqno of the buffer there, if it has one.
    pub(crate) seqno: Option<Seqno>,
    /// The highest seqno before it, where that is known.
    pub(crate) highest: Seqno,
    /// The first seqno of its lap. `None`: the start of the lap has been overwritten, or nothing there has a seqno.
    pub(crate) lap: Option<Seqno>,
}

impl RingPlace {
    /// The ring's start.
    pub(crate) const START: RingPlace =
        RingPlace { at: RING_START, seqno: None, highest: Seqno(0), lap: None };

    fn of(mark: &Mark, lap: Option<Seqno>) -> RingPlace {
        let seqno = match mark.order {
            Order::Ordered(seqno) => Some(seqno),
            Order::Unordered | Order::Discarded => None,
        };
        RingPlace { at: mark.at, seqno, lap, ..RingPlace::START }
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
            Some(stretch) => {
                let lap = self.lap_of(stretch);
                // Also the one before it is of interest: whether it is the one that was archived.
                stretch
                    .marks
                    .get(first_mark(stretch, Seqno(next.0.saturating_sub(1))))
                    .map_or(RingPlace { at: stretch.from, lap, ..RingPlace::START }, |mark| {
                        RingPlace::of(mark, lap)
                    })
            }
            None => {
                let lap = self.ring.stretches.last().and_then(|newest| self.lap_of(newest));
                let highest = stretches.filter_map(|stretch| stretch.last).max().unwrap_or(Seqno(0));
                RingPlace { at: self.ring.next, highest, lap, ..RingPlace::START }
            }
        }
    }

    /// The first seqno of the lap to which a stretch belongs, if the start of that lap is still there.
    fn lap_of(&self, stretch: &Stretch) -> Option<Seqno> {
        let is_of_lap_before = |oldest: &Stretch| oldest == stretch && oldest.from != RING_START;
        if self.ring.stretches.first().is_some_and(is_of_lap_before) {
            return None;
        }
        self.ring.stretches.iter().find(|stretch| stretch.from == RING_START)?.first
    }

    /// Whether this action is in none of the files and was not overwritten: older ones are there, or the ring has not wrapped.
    pub(crate) fn has_a_hole_at(&self, seqno: Seqno) -> bool {
        let has_older = self.seqnos().lowest().is_some_and(|lowest| lowest < seqno);
        !self.seqnos().contains(seqno) && (has_older || self.ring.stretches.len() == 1)
    }

    /// The place to begin at instead where a server overwrites the oldest buffers faster than they are read: the further on,
    /// the more it wrote since the ring was looked through before (`written`, in bytes). With `None`, a new archive may begin
    /// anywhere. The answer is `None` where nothing was written, the next action is still in a file, or it is not clear which
    /// buffers are the oldest.
    pub(crate) fn ring_place_ahead(&self, next: Option<Seqno>, written: u64) -> Option<RingPlace> {
        if written == 0 || next.is_some_and(|next| self.seqnos().contains(next)) {
            return None;
        }
        let [old, newer @ ..] = self.ring.stretches.as_slice() else { return None };
        let new = newer.first()?;
        let are_laps = new.from == RING_START && old.last? < new.lowest?;
        let is_overwritten = next.is_none_or(|next| old.lowest.is_some_and(|lowest| next < lowest));
        if !are_laps || !is_overwritten {
            return None;
        }
        let from = old.from.saturating_add(written.saturating_mul(LEAD).min(self.bytes / LEAD_PART));
        let is_ahead = |mark: &&Mark| mark.at > old.from && mark.at >= from;
        let in_old = old.marks.iter().find(is_ahead).map(|mark| RingPlace::of(mark, None));
        in_old.or_else(|| new.marks.first().map(|mark| RingPlace::of(mark, new.first)))
    }

    /// Bytes that were written to the ring since its next buffer was at this place; less than one lap.
    pub(crate) fn written_since(&self, next: u64) -> u64 {
        let lap = self.bytes.saturating_sub(RING_START).max(1);
        self.ring.next.saturating_add(lap).saturating_sub(next) % lap
    }

    /// Where the next buffer will be.
    pub(crate) fn ring_next(&self) -> u64 {
        self.ring.next
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

/// The last mark that has only older actions before it.
fn first_mark(stretch: &Stretch, from: Seqno) -> usize {
    let later = stretch.marks.iter().position(|mark| mark.before >= Some(from));
    later.unwrap_or(stretch.marks.len()).saturating_sub(1)
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
