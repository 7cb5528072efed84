//! One provider's cache: its files, and where the actions lie that were not taken yet.
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::{Seqno, Uuid};

use super::LOOK_EVERY;
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

/// What a walk of one file finds.
pub struct Found<'a> {
    pub(super) places: &'a mut Places,
    /// The file's number.
    pub(super) tail: usize,
    /// From which seqno on actions are of interest.
    pub(super) wanted: i64,
    /// The next one to be taken, if that is known.
    pub(super) next: Option<Seqno>,
}

impl Found<'_> {
    /// Remembers where an action lies, if there is room for it or none for a later one. Answers whether more is wanted.
    pub(super) fn add(&mut self, seqno: i64, at: u64) -> bool {
        if seqno >= self.wanted {
            self.places.entry(seqno).or_insert(Place { tail: self.tail, at });
        }
        if self.places.len() > AHEAD_MAX {
            // It is looked for again when it is its turn.
            self.places.pop_last();
        }
        // While the next one is missing, it may lie behind any number of later ones.
        let is_missing = self.next.is_some_and(|next| !self.places.contains_key(&next.0));
        self.places.len() < AHEAD_MAX || is_missing
    }
}

/// Whether a cache can be followed as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It can.
    Sound,
    /// The next action is in no file as far as it was walked: the cache is to be looked through.
    Missing,
    /// The place in the ring was overwritten: likewise.
    Lost,
}

/// A ring that its provider closed in order: every verdict in it is final, until a provider opens it again.
pub(super) struct Closed {
    pub(super) ring: File,
    pub(super) head: Vec<u8>,
}

impl Closed {
    /// Whether it was still closed when what was read before this call was read.
    pub(super) fn is_still(&self) -> bool {
        files::head_of(&self.ring).is_ok_and(|head| head == self.head)
    }
}

/// One provider's cache as long as its server lives and its file is the same.
pub(super) struct Attached {
    pub(super) history: Uuid,
    pub(super) server: Option<u32>,
    pub(super) head: Vec<u8>,
    pub(super) inode: u64,
    /// The provider closed the file in order.
    pub(super) closed: Option<Closed>,
    /// The ring, then pages as they came. One that is done is `None`.
    pub(super) tails: Vec<Option<Tail>>,
    pub(super) places: Places,
    pub(super) scan_took: Duration,
    /// When it was looked whether it is still the same one.
    pub(super) looked: Instant,
    /// When an action was taken.
    pub(super) progress: Instant,
    /// It was looked through for the next action, which was nowhere.
    pub(super) looked_through: bool,
    /// The next action was in no file then, and had not been overwritten.
    pub(super) has_hole: bool,
    /// The last archived action was compared with what is there.
    pub(super) recognised: bool,
    /// Whether it can be followed as it is.
    pub(super) standing: Standing,
}

impl Attached {
    /// With the pages that are open already: they may have been deleted meanwhile.
    pub(super) fn adopting(mut self, before: Attached) -> Attached {
        for mut page in before.tails.into_iter().skip(1).flatten() {
            if !self.tails.iter().flatten().any(|known| known.is_same(&page)) {
                page.rewind();
                self.add(page);
            }
        }
        self
    }

    /// Follows one more page, in the place of one that is done.
    pub(super) fn add(&mut self, page: Tail) {
        match self.tails.iter_mut().skip(1).find(|slot| slot.is_none()) {
            Some(done) => *done = Some(page),
            None => self.tails.push(Some(page)),
        }
    }

    /// The newest seqno that was seen.
    pub(super) fn newest(&self) -> i64 {
        self.tails.iter().flatten().map(Tail::highest).max().unwrap_or(0)
    }

    /// How many times the whole ring was walked.
    pub(super) fn laps(&self) -> f64 {
        self.tails.first().and_then(Option::as_ref).map_or(0.0, Tail::laps)
    }

    /// Walks the files as far as they go. Answers how far that was in the file in which it was least.
    ///
    /// # Errors
    /// They cannot be read; cancelled.
    pub(super) fn walk(&mut self, wanted: i64, next: Option<Seqno>, cancel: &Cancel) -> Result<Walked> {
        let mut walked = Walked::End;
        for (n, tail) in self.tails.iter_mut().enumerate() {
            let Some(tail) = tail else { continue };
            let mut found = Found { places: &mut self.places, tail: n, wanted, next };
            walked = walked.max(tail.walk(&mut found, cancel)?);
        }
        Ok(walked)
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

    /// Whether the file, or the server that writes it, is no longer the one that was looked through. To be asked when nothing is
    /// left to take: pages that were deleted are closed with this. It looks now and then only.
    pub(super) fn became_another(&mut self, ring: &Path) -> bool {
        if self.looked.elapsed() <= LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
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
