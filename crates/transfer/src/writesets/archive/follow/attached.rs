//! One provider's cache: its files, and where the actions lie that were not taken yet.
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::{Seqno, Uuid};

use super::files::{self, Tail, Walked};
use crate::cancel::Cancel;

/// Places that are remembered ahead of the next action: bounds the memory.
const AHEAD_MAX: usize = 20_000;
/// Where an action lies: number of the tail, and offset in its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) tail: usize,
    pub(super) at: u64,
}

/// Places of actions that were not taken yet, by seqno.
pub(super) type Places = BTreeMap<i64, Place>;

/// One provider's cache as long as its server lives and its file is the same.
pub(super) struct Attached {
    pub(super) history: Uuid,
    pub(super) server: Option<u32>,
    pub(super) head: Vec<u8>,
    pub(super) inode: u64,
    /// The provider closed the file in order: every verdict in it is final.
    pub(super) closed: bool,
    /// The ring, then pages as they came. One that is done is `None`.
    pub(super) tails: Vec<Option<Tail>>,
    pub(super) places: Places,
    /// The newest seqno when it was looked through.
    pub(super) newest_before: i64,
    pub(super) scan_took: Duration,
    /// When it was looked whether it is still the same one.
    pub(super) looked: Instant,
    /// When an action was taken.
    pub(super) progress: Instant,
    /// It was looked through once more for the next action.
    pub(super) looked_through: bool,
}

impl Attached {
    /// With the pages that are open already: they may have been deleted meanwhile.
    pub(super) fn adopting(mut self, before: Attached) -> Attached {
        for mut page in before.tails.into_iter().skip(1).flatten() {
            if !self.tails.iter().flatten().any(|known| known.is_same(&page)) {
                page.rewind();
                self.tails.push(Some(page));
            }
        }
        self
    }

    /// The newest seqno that was seen.
    pub(super) fn newest(&self) -> i64 {
        self.tails.iter().flatten().map(Tail::highest).max().unwrap_or(0)
    }

    /// Walks the files as far as they go. True when the place in the ring was overwritten.
    ///
    /// # Errors
    /// They cannot be read; cancelled.
    pub(super) fn walk(&mut self, wanted: i64, cancel: &Cancel) -> Result<bool> {
        let mut lost = false;
        for (n, tail) in self.tails.iter_mut().enumerate() {
            let Some(tail) = tail else { continue };
            let places = &mut self.places;
            let mut found = |seqno: i64, at: u64| {
                if seqno >= wanted {
                    places.entry(seqno).or_insert(Place { tail: n, at });
                }
                places.len() < AHEAD_MAX
            };
            lost |= tail.walk(&mut found, cancel)? == Walked::Lost;
        }
        Ok(lost)
    }

    /// Forgets the places, from this seqno on, at which something else is by now.
    ///
    /// # Errors
    /// The files cannot be read.
    pub(super) fn forget_overwritten(&mut self, from: Seqno) -> Result<()> {
        let mut seqno = from.0;
        while let Some(place) = self.places.get(&seqno)
            && let Some(Some(tail)) = self.tails.get(place.tail)
            && !tail.holds(place.at, Seqno(seqno))?
        {
            self.places.remove(&seqno);
            seqno += 1;
        }
        Ok(())
    }

    /// Whether the file, or the server that writes it, is no longer the one that was looked through.
    pub(super) fn is_another(&self, ring: &Path) -> bool {
        let Some(Some(tail)) = self.tails.first() else { return true };
        let same_file = files::inode_of(ring).is_some_and(|inode| inode == self.inode);
        let same_head = tail.head().is_ok_and(|head| head == self.head);
        let alive = self.server.is_none_or(|pid| Path::new(&format!("/proc/{pid}")).exists());
        !(same_file && same_head && alive)
    }

    /// Pages that were deleted and have nothing more to take are closed.
    pub(super) fn drop_done_pages(&mut self, wanted: i64) {
        for (n, slot) in self.tails.iter_mut().enumerate().skip(1).filter(|(_, slot)| slot.is_some()) {
            let needed = self.places.values().any(|place| place.tail == n);
            if !needed && slot.as_ref().is_some_and(|tail| tail.is_done(wanted)) {
                *slot = None;
            }
        }
    }
}
