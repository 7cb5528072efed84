//! The look through the whole cache with which a provider begins to be followed.
use std::fs::File;
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::Seqno;

use super::Follower;
use super::attached::{Attached, Closed, Places, Standing};
use super::files::{self, Tail};
use crate::cancel::Cancel;
use crate::writesets::gcache::{Gcache, InUse, RingPlace};

impl Follower {
    /// Looks through the cache and begins where the archive ends. It may have been looked through before.
    pub(super) fn attach(&mut self, before: Option<Attached>, cancel: &Cancel) -> Result<Option<Attached>> {
        if !self.ring.exists() {
            return Ok(None);
        }
        let began = Instant::now();
        // Pages that are created from now on are reported.
        self.watch.clear();
        let dir = self.dir().to_owned();
        self.watch.add("cache", &dir);
        // To look through the cache takes time. Another provider may open it meanwhile, and the head tells.
        let head = files::head_of(&File::open(&self.ring)?)?;
        let cache = Gcache::open_unless(&self.ring, cancel)?;
        let history = cache.preamble().history;
        if history.is_nil() {
            return Ok(None);
        }
        self.next = match self.last.filter(|last| last.history == history) {
            Some(last) => Some(Seqno(last.seqno.0 + 1)),
            None => cache.range().map(|(first, _)| first),
        };
        // A provider that resets its ring clears only its first header: what lies behind may be of another history.
        let begins = files::change_at_start(&self.ring, history)?;
        let fresh = self.last.is_none_or(|last| last.history != history);
        if fresh && begins.is_some() {
            self.next = begins;
        }
        let inode = files::inode_of(&self.ring).unwrap_or(0);
        let written = match self.ring_next.replace((inode, cache.ring_next())) {
            Some((before, next)) if before == inode => cache.written_since(next),
            _ => 0,
        };
        let ahead = match begins {
            None if self.overtaken => cache.ring_place_ahead(self.next.filter(|_| !fresh), written),
            _ => None,
        };
        let before = before.filter(|before| before.history == history);
        let is_missing = before.as_ref().is_some_and(|before| before.standing == Standing::Missing);
        // There is a place ahead only if the next action is in no file.
        let looked_through = is_missing || ahead.is_some();
        let place = match begins {
            Some(begins) if self.next.is_none_or(|next| next >= begins) => {
                RingPlace { lap: begins.into(), ..RingPlace::START }
            }
            _ => ahead.unwrap_or_else(|| {
                // What is oldest may be overwritten before it is compared.
                let known = self.known(history).map(|(known, _)| known).filter(|_| !self.overtaken);
                let known = known.filter(|known| cache.seqnos().contains(*known));
                cache.ring_place(known.map(|known| Seqno(known.0 + 1)).or(self.next))
            }),
        };
        let ring = Tail::ring(&self.ring, cache.ring_layout(), place)?;
        let closed = match cache.preamble().synced {
            true => Some(Closed { ring: ring.file().try_clone()?, head: head.clone() }),
            false => None,
        };
        let mut attached = Attached {
            history,
            server: match cache.in_use() {
                InUse::By(pid) => Some(pid),
                _ => None,
            },
            head,
            inode: ring.inode(),
            closed,
            tails: vec![Some(ring)],
            places: Places::new(),
            scan_took: Duration::ZERO,
            looked: Instant::now(),
            progress: Instant::now(),
            looked_through,
            has_hole: self.next.is_some_and(|next| cache.has_a_hole_at(next)),
            recognised: false,
            standing: Standing::Sound,
        };
        for page in cache.pages().iter().filter(|page| page.live) {
            attached.tails.extend(Tail::page(&page.path)?.map(Some));
        }
        attached.scan_took = began.elapsed();
        Ok(Some(match before {
            Some(before) => attached.adopting(before),
            None => attached,
        }))
    }
}
