//! Which files there are, whether a server has them open, and what history they hold together.
use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::Seqno;
use formats::galera::conf_change::ConfChange;
use formats::galera::gcache::{self, Action, BufferHeader, HEADER_LEN, Order, PREAMBLE_LEN, Preamble};
use formats::galera::ring::{self, Layout, Stretch};
use formats::galera::seqnos::Seqnos;
use formats::galera::write_set::{self, WriteSet, WriteSetHeader};

use super::window::Window;
use crate::failure::{Failure, Kind};

/// How often a file that is being written is read again when its history seems to be in pieces.
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
    /// Not closed cleanly, and not all servers' processes could be looked at.
    Unknown,
}

/// A page file.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The running server has it mapped. Other pages are what a crash left: no server reads or deletes them.
    pub live: bool,
    /// Lowest and highest seqno in it.
    pub range: Option<(Seqno, Seqno)>,
    stretch: Stretch,
}

/// The files of one node's write-set cache, and where the history lies in them.
#[derive(Debug)]
pub struct Gcache {
    path: PathBuf,
    bytes: u64,
    preamble: Preamble,
    in_use: InUse,
    pages: Vec<Page>,
    ring: ring::Ring,
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

/// What a visit saw beside the entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Visited {
    /// Buffers that are not (or not yet) ordered.
    pub unordered: u64,
    /// Buffers that were thrown away and not yet overwritten.
    pub discarded: u64,
    /// Parts of about 1 MiB that the server wrote anew after the history was looked up.
    pub overwritten: u64,
}

/// The bytes of an entry.
#[derive(Debug)]
pub enum Payload {
    /// Every checksum is right.
    Valid(Vec<u8>),
    /// Something is wrong with them.
    Bad(String),
    /// The server wrote something else there meanwhile.
    Overwritten,
}

/// Where an entry's bytes come from during a visit.
#[derive(Debug)]
pub struct Source<'a>(&'a RefCell<Window>);

impl Gcache {
    /// Reads what is at `path`: a datadir (or `gcache.dir`) with a `galera.cache` in it, or the ring file itself. Page files
    /// are looked for beside it.
    ///
    /// # Errors
    /// There is no such file, it cannot be read, or it is no ring file that can be understood.
    pub fn open(path: &Path) -> Result<Gcache> {
        let path = if path.is_dir() { path.join(gcache::FILE_NAME) } else { path.to_owned() };
        let mut last = Self::read(&path)?;
        for _ in 1..READS {
            // A closed file and one of a dead server do not change.
            if last.seqnos.runs() <= 1 || !matches!(last.in_use, InUse::By(_) | InUse::Unknown) {
                break;
            }
            let again = Self::read(&path)?;
            let same = again.seqnos == last.seqnos;
            last = again;
            if same {
                break;
            }
        }
        Ok(last)
    }

    fn read(path: &Path) -> Result<Gcache> {
        let failed = || format!("cannot read {}", path.display());
        let mut window = Window::open(path).with_context(failed)?;
        let refuse = |text: String| Failure::new(Kind::Configuration, format!("{}: {text}", path.display()));
        let preamble = Preamble::parse(&window.read(0, PREAMBLE_LEN).with_context(failed)?)
            .map_err(|error| refuse(error.to_string()))?;
        if preamble.encrypted {
            return Err(refuse("encrypted; only the server that wrote it can read it".to_owned()).into());
        }
        let mapped = Mapped::look();
        let in_use = match (preamble.synced, mapped.by(path)) {
            (true, _) => InUse::Closed,
            (false, Some(pid)) => InUse::By(pid),
            (false, None) if mapped.complete => InUse::Crashed,
            (false, None) => InUse::Unknown,
        };
        let bytes = window.len().with_context(failed)?;
        let oldest = preamble.offset.filter(|_| preamble.synced);
        let layout = Layout::ring(bytes, preamble.aligned());
        let ring = ring::scan(layout, oldest, &mut |at| window.header(at)).with_context(failed)?;
        let mut seqnos = ring.seqnos.clone();
        let pages = pages_beside(path, &mapped, &mut seqnos)?;
        Ok(Gcache { path: path.to_owned(), bytes, preamble, in_use, pages, ring, seqnos })
    }

    /// The ring file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the ring file's head says.
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

    /// First and last seqno this node can serve: without a gap up to the newest.
    pub fn range(&self) -> Option<(Seqno, Seqno)> {
        self.seqnos.newest_run()
    }

    /// All seqnos found, also those before a gap.
    pub fn seqnos(&self) -> &Seqnos {
        &self.seqnos
    }

    /// Visits every buffer of [`Gcache::range`], the ring's in the order they were written, then those of pages,
    /// until the visitor says no.
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

/// Visits one stretch from mark to mark. A mark that is no longer what it was has been written anew.
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
    /// Who wrote a write-set and when, without its rows. `None` for other actions and for bytes that are none.
    ///
    /// # Errors
    /// Reading failed.
    pub fn head(&self, entry: &Entry) -> Result<Option<WriteSetHeader>> {
        if entry.header.action != Action::WriteSet {
            return Ok(None);
        }
        let at = entry.at + HEADER_LEN as u64;
        let head = self.0.borrow_mut().array::<{ write_set::HEADER_LEN }>(at)?;
        Ok(head.and_then(|bytes| WriteSetHeader::parse(&bytes).ok()))
    }

    /// The bytes behind an entry's header, verified. Bytes that are wrong are read again, since a server may be
    /// writing them.
    ///
    /// # Errors
    /// Reading failed.
    pub fn payload(&self, entry: &Entry) -> Result<Payload> {
        let mut wrong = String::new();
        for _ in 0..3 {
            let mut bytes = self.0.borrow().read(entry.at, entry.header.size as usize)?;
            let header = bytes.first_chunk().and_then(BufferHeader::parse);
            if header.is_none_or(|now| now.order != entry.header.order || now.size != entry.header.size) {
                return Ok(Payload::Overwritten);
            }
            let payload = bytes.split_off(HEADER_LEN);
            match check(entry, &payload) {
                Ok(()) => return Ok(Payload::Valid(payload)),
                Err(error) => wrong = error,
            }
        }
        Ok(Payload::Bad(wrong))
    }
}

/// Verifies what can be verified of an action.
fn check(entry: &Entry, payload: &[u8]) -> Result<(), String> {
    let inside = match entry.header.action {
        Action::WriteSet => WriteSet::parse(payload).map_err(|error| error.to_string())?.header.seqno,
        Action::ConfChange => ConfChange::parse(payload).map_err(|error| error.to_string())?.state.seqno,
        Action::Other(_) => return Ok(()),
    };
    if inside == entry.seqno { Ok(()) } else { Err(format!("says that its seqno is {inside}")) }
}

/// Page files beside the ring. Those that count are taken into `seqnos`.
fn pages_beside(ring: &Path, mapped: &Mapped, seqnos: &mut Seqnos) -> Result<Vec<Page>> {
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
        let stretch = ring::stretch(layout, 0, bytes, &mut |at| window.header(at), counted)?;
        let range = stretch.first.zip(stretch.last);
        pages.push(Page { path, bytes, live, range, stretch });
    }
    Ok(pages)
}

/// Files that processes have mapped, by inode and name: the device a process sees may have another number.
struct Mapped {
    files: Vec<(u64, String, u32)>,
    /// Every server's process could be looked at.
    complete: bool,
}

/// By the name of a process, which everyone may read.
fn may_be_a_server(process: &Path) -> bool {
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    ["mariadbd", "mysqld"].iter().any(|server| name.starts_with(server))
}

impl Mapped {
    fn look() -> Mapped {
        let mut mapped = Mapped { files: Vec::new(), complete: true };
        let Ok(processes) = std::fs::read_dir("/proc") else {
            mapped.complete = false;
            return mapped;
        };
        for process in processes.flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match std::fs::read(process.path().join("maps")) {
                Ok(maps) => mapped.take(pid, &String::from_utf8_lossy(&maps)),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    mapped.complete &= !may_be_a_server(&process.path());
                }
                // It has ended.
                Err(_) => {}
            }
        }
        mapped
    }

    /// Lines of `/proc/PID/maps`: range, permissions, offset, device, inode, path. The provider's are writable and shared.
    fn take(&mut self, pid: u32, maps: &str) {
        for line in maps.lines().filter(|line| line.contains(" rw-s ")) {
            let mut words = line.split_ascii_whitespace().skip(4);
            let Some(inode) = words.next().and_then(|word| word.parse().ok()).filter(|&inode| inode != 0)
            else {
                continue;
            };
            let path: String = words.collect::<Vec<_>>().join(" ");
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            self.files.push((inode, name, pid));
        }
    }

    fn by(&self, path: &Path) -> Option<u32> {
        let inode = std::fs::metadata(path).ok()?.ino();
        let name = path.file_name()?.to_string_lossy();
        self.files.iter().find(|(i, n, _)| *i == inode && *n == name).map(|(_, _, pid)| *pid)
    }
}
