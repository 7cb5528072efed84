//! The ring and the pages of a running provider: walked header by header, as far as they have been written.
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result};
use formats::galera::conf_change::ConfChange;
use formats::galera::gcache::{Action, BufferHeader, HEADER_LEN, Order, PREAMBLE_LEN, RING_START, Store};
use formats::galera::ring::Layout;
use formats::{Seqno, Uuid};

use crate::cancel::Cancel;
use crate::writesets::archive::segment::read_at;
use crate::writesets::gcache::{Gcache, RingPlace, Window};

/// Buffers without a seqno that are looked at again; more are of no running provider.
const UNORDERED_MAX: usize = 10_000;
/// So often a header that is none is read again before the place counts as overwritten.
const TRIES: u32 = 20;
/// A seqno so far below the highest one is of the lap before. Neighbours are out of order by a few hundred at most.
const LAP: i64 = 1000;
/// More than a configuration change of any group has.
const CHANGE_MAX: usize = 16 << 20;
/// Headers are read so many bytes at a time: some tens of write-sets.
const WINDOW: usize = 64 << 10;

/// How far a walk came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walked {
    /// To the end of what is written, or as far as was wanted.
    Here,
    /// What is at the place is no buffer: it was overwritten meanwhile.
    Lost,
}

/// A file of the provider's, and how far it was walked.
pub struct Tail {
    window: Window,
    layout: Layout,
    /// The next header.
    at: u64,
    /// The highest seqno that was seen.
    highest: i64,
    /// The last buffer with a seqno, or the first one to be walked: its place and its seqno.
    passed: Option<(u64, Seqno)>,
    /// Buffers that had no seqno.
    unordered: Vec<u64>,
    failed: u32,
    inode: u64,
}

/// The inode of a file, if it is there.
pub fn inode_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.ino())
}

/// The seqno of the configuration change of this history with which the ring begins, if it does.
pub fn change_at_start(path: &Path, history: Uuid) -> Result<Option<Seqno>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let header = raw_header(&file, RING_START)?.as_ref().and_then(BufferHeader::parse);
    let Some(header) =
        header.filter(|header| header.action == Action::ConfChange && header.payload_len() < CHANGE_MAX)
    else {
        return Ok(None);
    };
    let bytes = read_at(&file, RING_START + HEADER_LEN as u64, header.payload_len())?;
    let change = ConfChange::parse(&bytes).ok().filter(|change| change.state.uuid == history);
    Ok(change.map(|change| change.state.seqno).filter(|seqno| header.seqno() == Some(*seqno)))
}

impl Tail {
    /// The ring, from where the action `next` may be.
    /// `begins`: the first seqno of a ring that has not wrapped since it was reset.
    /// `overtaken`: the provider overwrote what was to be read, so its oldest buffers are left to it.
    pub fn ring(
        path: &Path,
        cache: &Gcache,
        next: Option<Seqno>,
        begins: Option<Seqno>,
        overtaken: bool,
    ) -> Result<Tail> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let inode = file.metadata()?.ino();
        let layout = cache.ring_layout();
        let ahead = cache.ring_place_ahead(next).filter(|_| overtaken && begins.is_none());
        let place = match begins {
            Some(begins) if next.is_none_or(|next| next >= begins) => RingPlace::START,
            _ => ahead.unwrap_or_else(|| cache.ring_place(next)),
        };
        let window = Window::of(file, WINDOW);
        Ok(Tail {
            window,
            layout,
            at: place.at,
            highest: place.highest.0,
            passed: place.seqno.map(|seqno| (place.at, seqno)),
            unordered: Vec::new(),
            failed: 0,
            inode,
        })
    }

    /// A page; `None` when it is gone.
    pub fn page(path: &Path) -> Result<Option<Tail>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| path.display().to_string())?,
        };
        let inode = file.metadata()?.ino();
        let (window, layout) = (Window::of(file, WINDOW), Layout::page(0));
        Ok(Some(Tail {
            window,
            layout,
            at: 0,
            highest: 0,
            passed: None,
            unordered: Vec::new(),
            failed: 0,
            inode,
        }))
    }

    /// To be walked anew.
    pub fn rewind(&mut self) {
        (self.at, self.highest, self.passed) = (0, 0, None);
        self.unordered.clear();
    }

    /// What the ring's preamble says.
    pub fn head(&self) -> std::io::Result<Vec<u8>> {
        read_at(self.file(), 0, PREAMBLE_LEN)
    }

    pub fn file(&self) -> &File {
        self.window.file()
    }

    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The highest seqno that was seen.
    pub fn highest(&self) -> i64 {
        self.highest
    }

    pub fn is_same(&self, other: &Tail) -> bool {
        self.inode == other.inode
    }

    /// A page that was deleted, all of whose actions are older than `wanted` or were taken.
    pub fn is_done(&self, wanted: i64) -> bool {
        let gone = self.file().metadata().is_ok_and(|meta| meta.nlink() == 0);
        gone && self.highest <= wanted.saturating_add(1)
    }

    /// The buffer's header at a place.
    pub fn header(&self, at: u64) -> std::io::Result<Option<BufferHeader>> {
        Ok(raw_header(self.file(), at)?.as_ref().and_then(BufferHeader::parse))
    }

    /// Walks on and tells of each action that has a seqno, until `found` wants no more.
    ///
    /// # Errors
    /// The file cannot be read; cancelled.
    pub fn walk(&mut self, found: &mut dyn FnMut(i64, u64) -> bool, cancel: &Cancel) -> Result<Walked> {
        if self.layout.store == Store::Page {
            // A page may be seen before it has its full size.
            self.layout = Layout::page(self.file().metadata()?.len());
        }
        if self.layout.store == Store::Ring && self.passed_is_overwritten()? {
            return Ok(Walked::Lost);
        }
        self.look_again(found)?;
        self.window.forget();
        loop {
            cancel.check()?;
            let mut read = |at| self.window.header(at);
            let Some(header) = self.layout.buffer(self.at, &mut read)? else {
                if self.layout.store == Store::Page {
                    return Ok(Walked::Here);
                }
                let wrapped = self.at != RING_START && self.has_wrapped()?;
                // Read after that: it ends a lap that is over.
                if !raw_header(self.file(), self.at)?.is_none_or(|bytes| BufferHeader::is_end_mark(&bytes)) {
                    self.failed += 1;
                    let lost = self.failed > TRIES || self.passed_is_overwritten()?;
                    return Ok(if lost { Walked::Lost } else { Walked::Here });
                }
                if !wrapped {
                    self.failed = 0;
                    return Ok(Walked::Here);
                }
                self.at = RING_START;
                self.window.forget();
                continue;
            };
            self.failed = 0;
            match header.order {
                // Of the lap before: what will be overwritten next.
                Order::Ordered(seqno) if seqno.0 < self.highest.saturating_sub(LAP) => {
                    return Ok(Walked::Here);
                }
                Order::Ordered(seqno) => {
                    self.highest = self.highest.max(seqno.0);
                    let at = self.at;
                    self.passed = Some((at, seqno));
                    self.at += u64::from(header.size);
                    if !found(seqno.0, at) {
                        return Ok(Walked::Here);
                    }
                }
                Order::Unordered => {
                    if self.unordered.len() < UNORDERED_MAX {
                        self.unordered.push(self.at);
                    }
                    self.at += u64::from(header.size);
                }
                Order::Discarded => self.at += u64::from(header.size),
            }
        }
    }

    /// Whether the provider has come round to where the walk is.
    fn passed_is_overwritten(&self) -> std::io::Result<bool> {
        let Some((at, seqno)) = self.passed else { return Ok(false) };
        let is_it = |header: BufferHeader| match header.order {
            Order::Ordered(now) => now == seqno,
            // Where it was: whoever deletes a page discards what is older.
            Order::Discarded => true,
            Order::Unordered => false,
        };
        Ok(!self.header(at)?.is_some_and(is_it))
    }

    /// Whether the action with this seqno is still at this place.
    pub fn holds(&self, at: u64, seqno: Seqno) -> std::io::Result<bool> {
        Ok(self.header(at)?.is_some_and(|header| header.seqno() == Some(seqno)))
    }

    /// Whether the provider has begun again at the start of the ring: the first buffer there with a seqno is a newer one.
    fn has_wrapped(&self) -> std::io::Result<bool> {
        let mut newer = false;
        let mut left = LAP;
        let file = self.file();
        self.layout.walk(RING_START, self.at, &mut |at| raw_header(file, at), &mut |_, header| {
            left -= 1;
            newer = header.seqno().is_some_and(|seqno| seqno.0 > self.highest);
            Ok(header.seqno().is_none() && left > 0)
        })?;
        Ok(newer)
    }

    /// Buffers that had no seqno may have got one.
    fn look_again(&mut self, found: &mut dyn FnMut(i64, u64) -> bool) -> Result<()> {
        for at in std::mem::take(&mut self.unordered) {
            match self.header(at)?.map(|header| header.order) {
                Some(Order::Unordered) => self.unordered.push(at),
                Some(Order::Ordered(seqno)) => {
                    self.highest = self.highest.max(seqno.0);
                    found(seqno.0, at);
                }
                Some(Order::Discarded) | None => {}
            }
        }
        Ok(())
    }
}

fn raw_header(file: &File, at: u64) -> std::io::Result<Option<[u8; HEADER_LEN]>> {
    let mut bytes = [0; HEADER_LEN];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
