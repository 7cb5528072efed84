//! The ring and the pages of a running provider: walked header by header, as far as they have been written.
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::galera::conf_change::ConfChange;
use formats::galera::gcache::{Action, BufferHeader, HEADER_LEN, Order, PREAMBLE_LEN, RING_START, Store};
use formats::galera::ring::Layout;
use formats::{Seqno, Uuid};

use super::attached::Found;
use crate::cancel::Cancel;
use crate::writesets::archive::segment::read_at;
use crate::writesets::gcache::{RingPlace, Window};

/// Buffers without a seqno that are looked at again; more are of no running provider.
const UNORDERED_MAX: usize = 10_000;
/// So often a header that is none is read again before the place counts as overwritten.
const TRIES: u32 = 20;
/// A buffer with a seqno so far below the highest one may be of the lap before: neighbours are out of order by a few hundred
/// at most. See [`Tail::is_of_lap_before`].
const LAP: i64 = 1000;
/// For so long no thread of a server is kept from running.
const DOUBT: Duration = Duration::from_secs(2);
/// More than a configuration change of any group has.
pub const CHANGE_MAX: usize = 16 << 20;
/// Headers are read so many bytes at a time: some tens of write-sets.
const WINDOW: usize = 64 << 10;

/// How far a walk came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Walked {
    /// To the end of what is written.
    End,
    /// Not to the end: no more was wanted, or what comes next is not clear yet.
    Part,
    /// What is at the place is no buffer: it was overwritten meanwhile.
    Lost,
}

/// A file of the provider's, and how far it was walked.
pub struct Tail {
    window: Window,
    layout: Layout,
    /// The next header.
    at: u64,
    /// Bytes that were walked so far.
    walked: u64,
    /// The highest seqno that was seen.
    highest: i64,
    /// The last buffer with a seqno, or the first one to be walked: its place and its seqno.
    passed: Option<(u64, Seqno)>,
    /// The first seqno of the lap that is walked, if its start was seen and has one.
    lap: Option<Seqno>,
    /// A buffer that may be of the lap before: its place, its seqno, and since when it has been seen there.
    doubtful: Option<(u64, Seqno, Instant)>,
    /// No seqno above this one is doubtful in this lap.
    low: i64,
    /// Buffers that had no seqno.
    unordered: BTreeSet<u64>,
    failed: u32,
    inode: u64,
}

/// The inode of a file, if it is there.
pub fn inode_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.ino())
}

/// What the ring's preamble says.
pub fn head_of(ring: &File) -> std::io::Result<Vec<u8>> {
    read_at(ring, 0, PREAMBLE_LEN)
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
    /// The ring, from this place on.
    pub fn ring(path: &Path, layout: Layout, place: RingPlace) -> Result<Tail> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let passed = place.seqno.map(|seqno| (place.at, seqno));
        let mut tail = Tail::of(file, layout)?;
        (tail.at, tail.highest, tail.passed, tail.lap) = (place.at, place.highest.0, passed, place.lap);
        Ok(tail)
    }

    /// A page; `None` when it is gone.
    pub fn page(path: &Path) -> Result<Option<Tail>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| path.display().to_string())?,
        };
        Tail::of(file, Layout::page(0)).map(Some)
    }

    fn of(file: File, layout: Layout) -> Result<Tail> {
        let (inode, window) = (file.metadata()?.ino(), Window::of(file, WINDOW));
        Ok(Tail {
            window,
            layout,
            at: 0,
            walked: 0,
            highest: 0,
            passed: None,
            lap: None,
            doubtful: None,
            low: i64::MAX,
            unordered: BTreeSet::new(),
            failed: 0,
            inode,
        })
    }

    /// To be walked anew.
    pub fn rewind(&mut self) {
        (self.at, self.highest, self.passed) = (0, 0, None);
        self.unordered.clear();
    }

    /// What the ring's preamble says.
    pub fn head(&self) -> std::io::Result<Vec<u8>> {
        head_of(self.file())
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

    /// The header and the payload at a place, as one part of a window that may have been read a moment ago. `None` where it is
    /// no header or does not fit.
    pub fn buffer(&mut self, at: u64) -> std::io::Result<Option<(BufferHeader, &[u8])>> {
        let Some(header) = self.window.header(at)?.as_ref().and_then(BufferHeader::parse) else {
            return Ok(None);
        };
        let payload = self.window.slice(at + HEADER_LEN as u64, header.payload_len())?;
        Ok(payload.map(|payload| (header, payload)))
    }

    /// Walks on and tells of each action that has a seqno, until nobody wants more.
    ///
    /// # Errors
    /// The file cannot be read; cancelled.
    pub fn walk(&mut self, found: &mut Found<'_>, cancel: &Cancel) -> Result<Walked> {
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
                    return Ok(Walked::End);
                }
                let lap = if self.at == RING_START { None } else { self.newer_lap()? };
                // Read after that: it ends a lap that is over.
                if !raw_header(self.file(), self.at)?.is_none_or(|bytes| BufferHeader::is_end_mark(&bytes)) {
                    self.failed += 1;
                    let lost = self.failed > TRIES;
                    return Ok(if lost { Walked::Lost } else { Walked::Part });
                }
                self.failed = 0;
                if lap.is_none() {
                    return Ok(Walked::End);
                }
                (self.at, self.lap, self.low) = (RING_START, lap, i64::MAX);
                self.window.forget();
                continue;
            };
            self.failed = 0;
            match header.order {
                Order::Ordered(seqno) if self.is_of_lap_before(seqno) => return Ok(Walked::Part),
                Order::Ordered(seqno) => {
                    self.highest = self.highest.max(seqno.0);
                    let at = self.at;
                    self.passed = Some((at, seqno));
                    self.pass(&header);
                    if !found.add(seqno.0, at) {
                        return Ok(Walked::Part);
                    }
                }
                Order::Unordered => {
                    if self.unordered.len() < UNORDERED_MAX {
                        self.unordered.insert(self.at);
                    }
                    self.pass(&header);
                }
                Order::Discarded => self.pass(&header),
            }
        }
    }

    fn pass(&mut self, header: &BufferHeader) {
        self.at += u64::from(header.size);
        self.walked += u64::from(header.size);
    }

    /// How many times the whole file was walked.
    pub fn laps(&self) -> f64 {
        self.walked as f64 / self.layout.len.max(1) as f64
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

    /// Whether the buffer that follows is left of the lap before and will be overwritten next. The provider writes an end mark
    /// behind each new buffer, but only after the buffer, so such a one is seen for a moment; on a busy host, until its thread
    /// runs again. One that is still there after [`DOUBT`] is in its right place: a node that joins receives by IST what the
    /// group has long written, among what it writes now.
    fn is_of_lap_before(&mut self, seqno: Seqno) -> bool {
        if seqno.0 >= self.low.min(self.highest).saturating_sub(LAP) {
            return false;
        }
        match self.doubtful {
            Some((at, before, since)) if (at, before) == (self.at, seqno) => {
                let is_right = since.elapsed() >= DOUBT;
                if is_right {
                    self.low = seqno.0;
                }
                !is_right
            }
            _ => {
                self.doubtful = Some((self.at, seqno, Instant::now()));
                true
            }
        }
    }

    /// The first seqno at the start of the ring if it is another one: the provider has begun again there. Or the first buffer
    /// was discarded; then what is known is walked once more.
    fn newer_lap(&self) -> std::io::Result<Option<Seqno>> {
        let mut first = None;
        let mut left = LAP;
        let file = self.file();
        self.layout.walk(RING_START, self.at, &mut |at| raw_header(file, at), &mut |_, header| {
            left -= 1;
            first = header.seqno();
            Ok(first.is_none() && left > 0)
        })?;
        Ok(first.filter(|_| first != self.lap))
    }

    /// Buffers that had no seqno may have got one.
    fn look_again(&mut self, found: &mut Found<'_>) -> Result<()> {
        for at in std::mem::take(&mut self.unordered) {
            match self.header(at)?.map(|header| header.order) {
                Some(Order::Unordered) => _ = self.unordered.insert(at),
                Some(Order::Ordered(seqno)) => {
                    self.highest = self.highest.max(seqno.0);
                    found.add(seqno.0, at);
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
