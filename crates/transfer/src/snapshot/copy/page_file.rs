//! One data file: its pages are read the way the server writes them, and each is checked.
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use formats::innodb::doublewrite;
use formats::innodb::page::{self, PageState};
use formats::innodb::tablespace::{PAGE0_BYTES, PageFormat, TablespaceHeader, parse_page0};
use formats::{Lsn, PageNo, SpaceId};

use super::free_pages;
use crate::disk::direct::{ALIGN, Buffer, Direct, is_refused};
use crate::disk::identity::{Identity, Look, look_at};
use crate::remembered::front::Front;
pub use crate::remembered::front::HEAD_BYTES;
use crate::send::in_flight::Turn;

/// How often a torn page is read again while a server may be writing it.
const TRIES: u32 = 200;
/// The same if nothing writes to the file: a page without a checksum is proved by a second read.
const TRIES_STILL: u32 = 1;
/// Pause between two tries; the first few follow each other at once.
const PAUSE: Duration = Duration::from_millis(2);

/// True if the file is missing or may not be read: an operator may be putting it there (`cp` as root, then `chown`,
/// before IMPORT). A file that the server itself cannot read is not one of its tables; a later listing looks again.
pub(super) fn is_not_ours(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

/// A data file that is being read.
pub struct PageFile {
    path: PathBuf,
    file: Direct,
    /// Which file it is.
    pub identity: Identity,
    /// Its state before anything was read of it.
    pub look: Look,
    /// From its first page; `None` if the file is being created and redo initialises it.
    pub header: Option<(SpaceId, PageFormat)>,
    /// LSN of that page.
    pub first_lsn: Option<Lsn>,
    /// XXH3 of the whole pages in its first [`HEAD_BYTES`], as they were when it was opened.
    pub head: Vec<u64>,
    /// The beginning of the file as it was read on opening, and its length, for the first read there: most files are hardly longer.
    front: Mutex<Option<(Buffer, usize)>>,
    /// Number of the file's first page: not 0 in the further files of a system tablespace.
    first_page: u32,
    /// The doublewrite area: its pages are never valid and are not checked.
    doublewrite: Vec<std::ops::Range<PageNo>>,
    /// How often a torn page is read again.
    tries: u32,
    /// Some of the bytes that were read are not those of the file: pages of the doublewrite area, or free corrupt ones.
    altered: AtomicBool,
}

/// A page that remains corrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File, page and what is wrong.
    pub text: String,
}

impl PageFile {
    /// Opens a file. `system`: format and first page number of a further file of the system tablespace. `None` if the
    /// file is missing (it was dropped) or may not, or not yet, be read by the server.
    ///
    /// # Errors
    /// From the system.
    pub fn open(path: &Path, direct: bool, system: Option<(PageFormat, u32)>) -> Result<Option<PageFile>> {
        Self::open_to_try(path, direct, system, TRIES)
    }

    /// As [`PageFile::open`], for a file that nothing writes to: a corrupt page is not waited for.
    ///
    /// # Errors
    /// As [`PageFile::open`].
    pub fn open_still(path: &Path, system: Option<(PageFormat, u32)>) -> Result<Option<PageFile>> {
        Self::open_to_try(path, false, system, TRIES_STILL)
    }

    fn open_to_try(
        path: &Path,
        direct: bool,
        system: Option<(PageFormat, u32)>,
        tries: u32,
    ) -> Result<Option<PageFile>> {
        let has_header = system.is_none_or(|(_, first_page)| first_page == 0);
        // The header is read at once, which shows whether direct reads work here.
        let open = if has_header { Direct::open_untried } else { Direct::open };
        let file = match open(path, direct) {
            Ok(file) => file,
            Err(e) if is_not_ours(&e) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot open {}", path.display())),
        };
        let look = look_at(file.file()).with_context(|| format!("cannot look at {}", path.display()))?;
        let mut opened = PageFile {
            path: path.to_owned(),
            file,
            identity: look.identity,
            look,
            header: None,
            first_lsn: None,
            head: Vec::new(),
            front: Mutex::new(None),
            first_page: 0,
            doublewrite: Vec::new(),
            tries,
            altered: AtomicBool::new(false),
        };
        match system {
            Some((format, first_page)) if first_page > 0 => {
                opened.header = Some((SpaceId(0), format));
                opened.first_page = first_page;
            }
            _ => match opened.read_header() {
                Err(e) if direct && e.downcast_ref().is_some_and(is_refused) => {
                    return Self::open_to_try(path, false, system, tries);
                }
                read => read?,
            },
        }
        Ok(Some(opened))
    }

    /// Bytes per page; `None` while the file has no first page.
    pub fn page_size(&self) -> Option<usize> {
        self.header.map(|(_, format)| format.physical_size)
    }

    /// Length of the file now, in bytes.
    ///
    /// # Errors
    /// From the system.
    pub fn size(&self) -> Result<u64> {
        let meta = self.file.file().metadata();
        Ok(meta.with_context(|| format!("cannot look at {}", self.path.display()))?.len())
    }

    /// A first page that is not whole after all tries counts as never written.
    fn read_header(&mut self) -> Result<()> {
        // Most files are shorter than the first pages may be.
        let mut len = self.look.signature.size.min(HEAD_BYTES as u64).next_multiple_of(ALIGN as u64) as usize;
        let mut buffer = Buffer::new(len);
        for _ in 0..self.tries {
            let read = self.read_raw(buffer.first(len), 0)?;
            let head = &buffer.first(len)[..read];
            if let Some(front) = Front::of(head) {
                self.header = Some((front.space, front.format));
                self.first_lsn = front.lsn;
                self.head = front.pages;
                self.front = Mutex::new(Some((buffer, read)));
                break;
            }
            if read == 0 || head.iter().all(|&b| b == 0) {
                break;
            }
            std::thread::sleep(PAUSE);
            // It may be longer by now.
            len = HEAD_BYTES;
        }
        self.header.map_or(Ok(()), |(space, format)| self.assume(space, format))
    }

    /// Uses these values in place of the first page.
    ///
    /// # Errors
    /// From the system.
    pub fn assume(&mut self, space: SpaceId, format: PageFormat) -> Result<()> {
        self.header = Some((space, format));
        if space == SpaceId(0) { self.find_doublewrite(&format) } else { Ok(()) }
    }

    /// The page of the transaction system says where the doublewrite area is.
    fn find_doublewrite(&mut self, format: &PageFormat) -> Result<()> {
        let size = format.physical_size;
        let mut buffer = Buffer::new(size);
        let at = formats::innodb::wsrep_position::TRX_SYS_PAGE.0 as usize * size;
        if self.read_raw(buffer.bytes(), at as u64)? < size {
            return Ok(());
        }
        let areas = doublewrite::extents(&buffer.bytes()[..size]);
        self.doublewrite = areas.map(|areas| areas.to_vec()).unwrap_or_default();
        Ok(())
    }

    /// Reads up to `out.len()` bytes at an offset and checks the pages; those of the doublewrite area become zeros.
    /// Returns fewer bytes at the end of the file. Pages that remain corrupt are added to `damage` and delivered as
    /// they are.
    ///
    /// `turn` ends as soon as the disk has answered.
    ///
    /// # Errors
    /// From the system.
    pub fn read(
        &self,
        out: &mut [u8],
        offset: u64,
        turn: Option<Turn<'_>>,
        damage: &mut Vec<Damage>,
    ) -> Result<usize> {
        let read = if offset == 0 { self.read_front(out)? } else { self.read_raw(out, offset)? };
        drop(turn);
        let Some((space, format)) = self.header else { return Ok(read) };
        let size = format.physical_size;
        for (index, slot) in out[..read].chunks_exact_mut(size).enumerate() {
            let at = offset + (index * size) as u64;
            let number = self.first_page + (at / size as u64) as u32;
            if self.doublewrite.iter().any(|area| area.contains(&PageNo(number))) {
                slot.fill(0);
                self.altered.store(true, Ordering::Release);
            } else if let Some(wrong) = self.settle(slot, at, space, number, &format)? {
                let text = format!("{} page {number} (tablespace {space}): {wrong}", self.path.display());
                damage.push(Damage { text });
            }
        }
        Ok(read)
    }

    /// As [`PageFile::read_raw`] from the beginning, but what was read on opening is not read again.
    fn read_front(&self, out: &mut [u8]) -> Result<usize> {
        let front = self.front.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((mut front, known)) = front else { return self.read_raw(out, 0) };
        let wanted = out.len().min(known);
        let (begin, rest) = out.split_at_mut(wanted);
        // Direct reads continue at a whole block.
        if !rest.is_empty() && !wanted.is_multiple_of(ALIGN) {
            return self.read_raw(out, 0);
        }
        begin.copy_from_slice(&front.first(known)[..wanted]);
        let more = if rest.is_empty() { 0 } else { self.read_raw(rest, wanted as u64)? };
        Ok(wanted + more)
    }

    /// Reads a page again until it is whole. Returns what is wrong if it stays as it is.
    fn settle(
        &self,
        slot: &mut [u8],
        at: u64,
        space: SpaceId,
        number: u32,
        format: &PageFormat,
    ) -> Result<Option<String>> {
        let Some(mut wrong) = fault(slot, space, number, format) else { return Ok(None) };
        // A page smaller than a block is read with the block around it.
        let aligned = at / 4096 * 4096;
        let skip = (at - aligned) as usize;
        let mut buffer = Buffer::new(skip + slot.len());
        for tries in 0..self.tries {
            let read = self.read_raw(buffer.bytes(), aligned)?;
            let Some(again) = buffer.bytes()[..read].get(skip..skip + slot.len()) else { return Ok(None) };
            let unchanged = again == &*slot;
            slot.copy_from_slice(again);
            match fault(slot, space, number, format) {
                None => return Ok(None),
                // Such a page has no checksum: two equal reads are the proof.
                Some(Fault::Unverifiable) if unchanged => return Ok(None),
                Some(next) => wrong = next,
            }
            if tries > 3 {
                std::thread::sleep(PAUSE);
            }
        }
        if self.is_free(PageNo(number), format)? {
            slot.fill(0);
            self.altered.store(true, Ordering::Release);
            return Ok(None);
        }
        Ok(Some(wrong.text()))
    }

    /// True if the page is free, so that corruption in it affects no data. Not determined in further files of the
    /// system tablespace.
    fn is_free(&self, number: PageNo, format: &PageFormat) -> Result<bool> {
        let whole = |number: PageNo| -> Result<Option<Vec<u8>>> {
            let size = format.physical_size;
            let at = u64::from(number.0) * size as u64;
            let skip = (at % 4096) as usize;
            let mut buffer = Buffer::new(skip + size);
            let read = self.read_raw(buffer.bytes(), at - skip as u64)?;
            let bytes = buffer.bytes()[..read].get(skip..skip + size);
            Ok(bytes.filter(|b| page::verify(format, b) == PageState::Valid).map(<[u8]>::to_vec))
        };
        if self.first_page > 0 {
            return Ok(false);
        }
        let first = whole(PageNo(0))?;
        let descriptors = whole(free_pages::descriptor_page(format, number))?;
        Ok(match (first, descriptors) {
            (Some(first), Some(descriptors)) => free_pages::is_free(format, &first, &descriptors, number),
            _ => false,
        })
    }

    /// What it begins with, if its first page could be read.
    pub fn front(&self) -> Option<Front> {
        let (space, format) = self.header?;
        Some(Front { space, format, lsn: self.first_lsn, pages: self.head.clone() })
    }

    /// True if some of the bytes that were read are not those of the file.
    pub fn is_altered(&self) -> bool {
        self.altered.load(Ordering::Acquire)
    }

    fn read_raw(&self, out: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read(out, offset).with_context(|| format!("cannot read {}", self.path.display()))
    }
}

/// The tablespace number and the LSN in the file's first page; `None` while it is not written or cannot be read.
pub fn first_page(path: &Path) -> Option<(SpaceId, Lsn)> {
    first_page_of(&File::open(path).ok()?)
}

/// As [`first_page`], of an open file.
pub fn first_page_of(file: &File) -> Option<(SpaceId, Lsn)> {
    claimed(file).map(|(header, lsn)| (header.space, lsn))
}

/// The header in the first page, whatever its checksum, and its LSN.
pub fn claimed(file: &File) -> Option<(TablespaceHeader, Lsn)> {
    let mut head = [0; PAGE0_BYTES];
    file.read_exact_at(&mut head, 0).ok()?;
    Some((parse_page0(&head).ok()?, page::lsn(&head)?))
}

enum Fault {
    Checksum { expected: u32, found: u32 },
    Number(PageNo),
    Space(SpaceId),
    Unverifiable,
}

impl Fault {
    fn text(&self) -> String {
        match self {
            Fault::Checksum { expected, found } => {
                format!("its checksum is {found:#010x} instead of {expected:#010x}")
            }
            Fault::Number(number) => format!("holds page number {number}"),
            Fault::Space(space) => format!("holds a page of tablespace {space}"),
            Fault::Unverifiable => "changes with every read".to_owned(),
        }
    }
}

fn fault(bytes: &[u8], space: SpaceId, number: u32, format: &PageFormat) -> Option<Fault> {
    match page::verify(format, bytes) {
        PageState::Zero => return None,
        PageState::Corrupt { expected, found } => return Some(Fault::Checksum { expected, found }),
        PageState::Unverifiable => return Some(Fault::Unverifiable),
        PageState::Valid => {}
    }
    match (page::page_no(bytes), page::space_id(format, bytes)) {
        (Some(own), _) if own.0 != number => Some(Fault::Number(own)),
        (_, Some(own)) if own != space => Some(Fault::Space(own)),
        _ => None,
    }
}
