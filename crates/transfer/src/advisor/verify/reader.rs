//! One file to compare: its bytes, or its verified pages.
use std::path::PathBuf;

use anyhow::{Context, Result};
use formats::SpaceId;
use formats::innodb::tablespace::PageFormat;
use protocol::inventory::FileRole;

use super::side::SideFile;
use crate::disk::direct::Direct;
use crate::snapshot::copy::page_file::{PageFile, claimed};

/// Open for reading.
pub(super) struct Reader {
    path: PathBuf,
    file: Direct,
    pages: Option<PageFile>,
}

/// Whether a file consists of pages, which are verified.
pub(super) fn has_pages(file: &SideFile) -> bool {
    match file.entry.role {
        FileRole::SystemTablespace { .. } | FileRole::Undo => true,
        FileRole::Table | FileRole::TableElsewhere { .. } => {
            file.path.extension().is_some_and(|extension| extension == "ibd")
        }
        _ => false,
    }
}

impl Reader {
    /// `None` if the file is gone because a server dropped it.
    pub fn open(file: &SideFile) -> Result<Option<Reader>> {
        let path = file.path.clone();
        let opened = match Direct::open(&path, false) {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.live => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
        };
        let pages = match (has_pages(file), file.live) {
            (false, _) => None,
            (true, true) => PageFile::open(&path, false, file.system)?,
            (true, false) => PageFile::open_still(&path, file.system)?,
        };
        Ok(Some(Reader { path, file: opened, pages }))
    }

    /// The content of its first page, if that is intact.
    pub fn header(&self) -> Option<(SpaceId, PageFormat)> {
        self.pages.as_ref()?.header
    }

    /// If the first page is unreadable, uses that of the other side, or the corrupt one.
    pub fn find_header(&mut self, other: Option<(SpaceId, PageFormat)>) -> Result<()> {
        let Some(pages) = self.pages.as_mut().filter(|pages| pages.header.is_none()) else { return Ok(()) };
        let claimed = claimed(self.file.file()).map(|(header, _)| (header.space, header.format));
        match other.or(claimed) {
            Some((space, format)) => pages.assume(space, format),
            None => Ok(()),
        }
    }

    /// Length in bytes.
    pub fn size(&self) -> Result<u64> {
        Ok(self.file.file().metadata()?.len())
    }

    /// What is wrong with the file as a whole. `clean`: its length must be the one in its first page.
    pub fn faults(&self, clean: bool) -> Result<Vec<String>> {
        let Some(pages) = &self.pages else { return Ok(Vec::new()) };
        let size = self.size()?;
        let path = self.path.display();
        let Some(page) = pages.page_size().map(|size| size as u64) else {
            return Ok(match self.is_zero_at_first()? {
                true => Vec::new(),
                false => vec![format!("{path} page 0 is unreadable: the file's pages were not verified")],
            });
        };
        let mut faults = Vec::new();
        if clean && !size.is_multiple_of(page) {
            faults.push(format!("{path} ends inside page {}", size / page));
        }
        let said = claimed(self.file.file()).map(|(header, _)| header);
        let said = said.filter(|header| Some((header.space, header.format)) == pages.header);
        if let Some(header) = said.filter(|header| clean && u64::from(header.pages) > size / page) {
            faults.push(format!(
                "{path} ends at page {}, but its first page says {}",
                size / page,
                header.pages
            ));
        }
        Ok(faults)
    }

    /// Whether it was never written: a server would initialise it from its redo log.
    fn is_zero_at_first(&self) -> Result<bool> {
        let mut head = vec![0; 4096];
        let read = self.read_raw(&mut head, 0)?;
        Ok(head.iter().take(read).all(|byte| *byte == 0))
    }

    /// Reads at an offset and collects damage. Returns fewer bytes at the end of the file.
    pub fn read(&self, out: &mut [u8], at: u64, damage: &mut Vec<String>) -> Result<usize> {
        let Some(pages) = &self.pages else { return self.read_raw(out, at) };
        let mut found = Vec::new();
        let read = pages.read(out, at, None, &mut found)?;
        damage.extend(found.into_iter().map(|damage| damage.text));
        Ok(read)
    }

    fn read_raw(&self, out: &mut [u8], at: u64) -> Result<usize> {
        self.file.read(out, at).with_context(|| format!("cannot read {}", self.path.display()))
    }
}
