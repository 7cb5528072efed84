//! The files of a write-set cache, whether a server has them open, and the history that they hold.
use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::Seqno;
use formats::galera::gcache::{self, Action, BufferHeader, HEADER_LEN, Order, PREAMBLE_LEN, Preamble};
use formats::galera::ring::{self, Layout, Stretch};
use formats::galera::seqnos::Seqnos;
use formats::galera::write_set::{self, WriteSetHeader};

use super::mapped::Mapped;
use super::window::Window;
use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::writesets::store::verify_action;

/// How often a file that is being written is read again when its history seems to have gaps.
const READS: usize = 5;

/// Who has the ring file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    /// The server closed it cleanly.
    Closed,
    /// This process has it mapped.
    By(u32),
    /// No process has it mapped, and it was not closed cleanly: a crash.
    Crashed,
    /// Not closed cleanly, and some server processes could not be inspected.
    Unknown,
}

/// A page file.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The running server has it mapped. Other pages were left by a crash: no server reads or deletes them.
    pub live: bool,
    /// Lowest and highest seqno in it.
    pub range: Option<(Seqno, Seqno)>,
    pub(super) stretch: Stretch,
}

/// The files of one node's write-set cache, and where the history lies in them.
#[derive(Debug)]
pub struct Gcache {
    path: PathBuf,
    pub(super) bytes: u64,
    preamble: Preamble,
    in_use: InUse,
    pages: Vec<Page>,
    pub(super) ring: ring::Ring,
    /// Of the ring and the pages that count.
    seqnos: Seqnos,
}

/// A buffer with its place in the history.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its seqno.
    pub seqno: Seqno,
    /// Its header.
    pub header: BufferHeader,
    /// Where the header is, in bytes from the start of its file.
    pub at: u64,
}

/// What a visit found besides the entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visited {
    /// Buffers that are not (or not yet) ordered.
    pub unordered: u64,
    /// Buffers that were thrown away and not yet overwritten.
    pub discarded: u64,
    /// Parts of about 1 MiB that the server overwrote after the history was located.
    pub overwritten: u64,
}

/// The bytes of an entry.
#[derive(Debug)]
pub enum Payload {
    /// Every checksum is correct.
    Valid(Vec<u8>),
    /// Something is wrong with them.
    Bad(String),
    /// The server has overwritten them.
    Overwritten,
}

/// Where an entry's bytes come from during a visit.
#[derive(Debug)]
pub struct Source<'a>(&'a RefCell<Window>);

impl Gcache {
    /// Opens a cache: a datadir (or `gcache.dir`) with a `galera.cache` in it, or the ring file itself. Page
    /// files are searched for beside it.
    ///
    /// # Errors
    /// There is no such file, it cannot be read, or it is not a valid ring file.
    pub fn open(path: &Path) -> Result<Gcache> {
        Self::open_unless(path, &Cancel::new())
    }

    /// The same, until it is cancelled: a cache is read from end to end.
    ///
    /// # Errors
    /// Like [`Gcache::open`]; cancelled.
    pub fn open_unless(path: &Path, cancel: &Cancel) -> Result<Gcache> {
        let path = if path.is_dir() { path.join(gcache::FILE_NAME) } else { path.to_owned() };
        let mut last = Self::read(&path, cancel)?;
        for _ in 1..READS {
            // A closed file, or that of a dead server, does not change.
            if last.seqnos.runs() <= 1 || !matches!(last.in_use, InUse::By(_) | InUse::Unknown) {
                break;
            }
            let again = Self::read(&path, cancel)?;
            let same = again.seqnos == last.seqnos;
            last = again;
            if same {
                break;
            }
        }
        Ok(last)
    }

    fn read(path: &Path, cancel: &Cancel) -> Result<Gcache> {
        let failed = || format!("cannot read {}", path.display());
        let mut window = Window::open(path).with_context(failed)?;
        let refuse = |text: String| Failure::new(Kind::Configuration, format!("{}: {text}", path.display()));
        let preamble = Preamble::parse(&window.read(0, PREAMBLE_LEN).with_context(failed)?)
            .map_err(|error| refuse(error.to_string()))?;
        if preamble.encrypted {
            return Err(refuse("encrypted; only the server that wrote it can read it".to_owned()).into());
        }
        let mapped = Mapped::look(path);
        let in_use = match (preamble.synced, mapped.by(path)) {
            (true, _) => InUse::Closed,
            (false, Some(pid)) => InUse::By(pid),
            (false, None) if mapped.complete => InUse::Crashed,
            (false, None) => InUse::Unknown,
        };
        let bytes = window.len().with_context(failed)?;
        let oldest = preamble.offset.filter(|_| preamble.synced);
        let layout = Layout::ring(bytes, preamble.aligned());
        let mut header = |at| header_unless(&mut window, at, cancel);
        let ring = ring::scan(layout, oldest, &mut header).with_context(failed)?;
        let mut seqnos = ring.seqnos.clone();
        let pages = pages_beside(path, &mapped, &mut seqnos, cancel)?;
        Ok(Gcache { path: path.to_owned(), bytes, preamble, in_use, pages, ring, seqnos })
    }

    /// Returns the contradictions between the head of a ring file that was closed in order and its content.
    /// The provider trusts the head first, so it may find less than the head says, and discard everything.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.preamble.synced {
            return found;
        }
        if let Some(offset) = self.preamble.offset.filter(|offset| *offset >= self.bytes) {
            let bytes = self.bytes;
            found.push(format!(
                "the head says that the oldest buffer is at byte {offset}, but the file ends at {bytes}"
            ));
        }
        let there = self.range();
        if let Some((low, high)) = self.preamble.range
            && there != Some((low, high))
        {
            let there = there.map_or("none".to_owned(), |(low, high)| format!("{low} to {high}"));
            found.push(format!("the head says write-sets {low} to {high}, but the files hold {there}"));
        }
        found
    }

    /// The ring file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The head of the ring file.
    pub fn preamble(&self) -> &Preamble {
        &self.preamble
    }

    /// Who has the files open.
    pub fn in_use(&self) -> InUse {
        self.in_use
    }

    /// Page files, in the order of their numbers.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// Bytes of the ring (`gcache.size`).
    pub fn ring_bytes(&self) -> u64 {
        self.bytes.saturating_sub(gcache::RING_OVERHEAD)
    }

    /// First and last seqno that this node can serve: the newest ones, without a gap.
    pub fn range(&self) -> Option<(Seqno, Seqno)> {
        self.seqnos.newest_run()
    }

    /// All seqnos found, also those before a gap.
    pub fn seqnos(&self) -> &Seqnos {
        &self.seqnos
    }

    /// Visits every buffer of [`Gcache::range`], first those of the ring in the order in which they were
    /// written, then those of pages, until the visitor returns false.
    ///
    /// # Errors
    /// Reading failed, or the visitor did.
    pub fn visit(&self, visit: &mut impl FnMut(&Entry, &Source<'_>) -> Result<bool>) -> Result<Visited> {
        let mut seen = Visited::default();
        let Some(range) = self.range() else { return Ok(seen) };
        let layout = Layout::ring(self.bytes, self.preamble.aligned());
        let stretches = self.ring.stretches.iter();
        let ring = stretches.map(|stretch| (self.path.as_path(), layout, stretch));
        let live = self.pages.iter().filter(|page| page.live);
        let pages = live.map(|page| (page.path.as_path(), Layout::page(page.bytes), &page.stretch));
        for (path, layout, stretch) in ring.chain(pages) {
            let window = match Window::open(path) {
                // A page may be deleted as soon as its transaction is released.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    seen.overwritten += stretch.marks.len() as u64;
                    continue;
                }
                opened => RefCell::new(opened.with_context(|| path.display().to_string())?),
            };
            if !visit_stretch(layout, stretch, range, &window, &mut seen, visit)? {
                break;
            }
        }
        Ok(seen)
    }
}

/// Visits one stretch from mark to mark. A mark that has changed was overwritten.
fn visit_stretch(
    layout: Layout,
    stretch: &Stretch,
    (first, last): (Seqno, Seqno),
    window: &RefCell<Window>,
    seen: &mut Visited,
    visit: &mut impl FnMut(&Entry, &Source<'_>) -> Result<bool>,
) -> Result<bool> {
    let mut more = true;
    let mut read = |at| -> Result<_> { Ok(window.borrow_mut().header(at)?) };
    for (i, mark) in stretch.marks.iter().enumerate() {
        let to = stretch.marks.get(i + 1).map_or(stretch.to, |next| next.at);
        let now = read(mark.at)?.and_then(|bytes| BufferHeader::parse(&bytes));
        if now.is_none_or(|header| header.order != mark.order) {
            seen.overwritten += 1;
            continue;
        }
        let end = layout.walk(mark.at, to, &mut read, &mut |at, header| {
            match header.order {
                Order::Unordered => seen.unordered += 1,
                Order::Discarded => seen.discarded += 1,
                Order::Ordered(seqno) if (first..=last).contains(&seqno) => {
                    more = visit(&Entry { seqno, header, at }, &Source(window))?;
                }
                Order::Ordered(_) => {}
            }
            Ok(more)
        })?;
        if !more {
            return Ok(false);
        }
        seen.overwritten += u64::from(end < to);
    }
    Ok(true)
}

impl Source<'_> {
    /// Reads who wrote a write-set and when, without its rows. Returns `None` for other actions and for
    /// invalid bytes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn head(&self, entry: &Entry) -> Result<Option<WriteSetHeader>> {
        if entry.header.action != Action::WriteSet {
            return Ok(None);
        }
        let at = entry.at + HEADER_LEN as u64;
        let head = self.0.borrow_mut().array::<{ write_set::HEADER_LEN }>(at)?;
        Ok(head.and_then(|bytes| WriteSetHeader::parse(&bytes).ok()))
    }

    /// Reads and verifies the bytes behind an entry's header. Bytes with a wrong checksum are read again,
    /// since a server may be writing them.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn payload(&self, entry: &Entry) -> Result<Payload> {
        read_payload(&self.0.borrow(), entry)
    }
}

/// The bytes behind an entry's header, verified; see [`Source::payload`].
pub(super) fn read_payload(window: &Window, entry: &Entry) -> Result<Payload> {
    let mut wrong = String::new();
    for _ in 0..3 {
        let mut bytes = window.read(entry.at, entry.header.size as usize)?;
        let header = bytes.first_chunk().and_then(BufferHeader::parse);
        if header.is_none_or(|now| now.order != entry.header.order || now.size != entry.header.size) {
            return Ok(Payload::Overwritten);
        }
        let payload = bytes.split_off(HEADER_LEN);
        match verify_action(entry.seqno, entry.header.action, &payload) {
            Ok(()) => return Ok(Payload::Valid(payload)),
            Err(error) => wrong = error,
        }
    }
    Ok(Payload::Bad(wrong))
}

fn header_unless(window: &mut Window, at: u64, cancel: &Cancel) -> Result<Option<[u8; HEADER_LEN]>> {
    cancel.check()?;
    Ok(window.header(at)?)
}

/// Returns the page files beside the ring, and adds the history of those in use to `seqnos`.
fn pages_beside(ring: &Path, mapped: &Mapped, seqnos: &mut Seqnos, cancel: &Cancel) -> Result<Vec<Page>> {
    let dir = ring.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut paths = Vec::new();
    for entry in dir.read_dir().with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if gcache::is_page_name(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    let mut pages = Vec::new();
    for path in paths {
        let mut window = match Window::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            opened => opened.with_context(|| path.display().to_string())?,
        };
        let live = mapped.by(&path).is_some();
        let bytes = window.len()?;
        let mut own = Seqnos::default();
        let layout = Layout::page(bytes);
        let counted = if live { &mut *seqnos } else { &mut own };
        let mut header = |at| header_unless(&mut window, at, cancel);
        let stretch = ring::stretch(layout, 0, bytes, &mut header, counted)?;
        let range = stretch.lowest.zip(stretch.last);
        pages.push(Page { path, bytes, live, range, stretch });
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a file that a server of 10.11 closed in order, with a changed head.
    fn with_head(change: impl Fn(&str) -> String) -> Result<Gcache> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join(gcache::FILE_NAME);
        let mut bytes =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../formats/tests/data/gcache_stopped.bin"))?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        let head = change(std::str::from_utf8(&bytes[..end])?);
        bytes[..PREAMBLE_LEN].fill(0);
        bytes[..head.len()].copy_from_slice(head.as_bytes());
        std::fs::write(&path, bytes)?;
        Gcache::open(&path)
    }

    #[test]
    fn a_head_that_contradicts_its_file_is_told() {
        let sound = with_head(str::to_owned).unwrap();
        assert_eq!(sound.contradictions(), Vec::<String>::new());
        let (low, high) = sound.preamble().range.unwrap();
        let more = with_head(|head| {
            head.replace(&format!("seqno_max: {high}"), &format!("seqno_max: {}", high.0 + 7))
        });
        let said = more.unwrap().contradictions();
        assert!(
            said[0].contains(&format!(
                "says write-sets {low} to {}, but the files hold {low} to {high}",
                high.0 + 7
            )),
            "{said:?}"
        );
        let line = |head: &str, value: &str| {
            let line = head.lines().find(|line| line.starts_with("offset:")).unwrap().to_owned();
            head.replace(&line, &format!("offset: {value}"))
        };
        let beyond = with_head(|head| line(head, "99999999999")).unwrap().contradictions();
        assert!(beyond[0].contains("oldest buffer is at byte 99999999999"), "{beyond:?}");
        let negative = with_head(|head| line(head, "-5")).unwrap_err();
        assert!(format!("{negative:#}").contains("bad value of 'offset'"), "{negative:#}");
    }

    #[test]
    fn a_fifo_of_that_name_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(gcache::FILE_NAME);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        let error = Gcache::open(dir.path()).unwrap_err();
        assert!(format!("{error:#}").contains("it is not a regular file"), "{error:#}");
    }
}
