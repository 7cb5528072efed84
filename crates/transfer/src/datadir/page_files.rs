//! Pages of the system tablespace and of undo tablespaces, read from their files.
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::innodb::tablespace::{PAGE0_BYTES, PageFormat, TablespaceHeader, parse_page0};
use formats::{PageNo, SpaceId};

use super::found::is_gone;

/// The files that contain rollback segments.
pub(super) struct PageFiles {
    files: Vec<PageFile>,
}

struct PageFile {
    space: SpaceId,
    format: PageFormat,
    file: File,
    /// Pages of a file of the system tablespace, which another file may continue.
    pages: u64,
}

impl PageFiles {
    /// Opens the files of the system tablespace in order, and undo tablespaces in any order. Their own
    /// headers count, whatever the configuration is now. Returns `None` if the first file has no readable
    /// first page; an undo tablespace without one is skipped.
    pub(super) fn open(system: &[PathBuf], undo: &[PathBuf]) -> Result<Option<PageFiles>> {
        let Some(first) = system.first() else { return Ok(None) };
        let Some(TablespaceHeader { format, .. }) = header_of(first)? else { return Ok(None) };
        let mut files = Vec::new();
        for path in system {
            let Some(file) = open(path)? else { break };
            let pages = file.metadata()?.len() / format.physical_size as u64;
            files.push(PageFile { space: SpaceId(0), format, file, pages });
        }
        for path in undo {
            if let (Some(header), Some(file)) = (header_of(path)?, open(path)?) {
                files.push(PageFile { space: header.space, format: header.format, file, pages: u64::MAX });
            }
        }
        Ok(Some(PageFiles { files }))
    }

    /// Bytes of a page.
    pub(super) fn page_size(&self) -> usize {
        self.files.first().map_or(0, |file| file.format.logical_size)
    }

    /// Reads one page and returns its format; `None` if it is beyond the end or its space is not among the
    /// files.
    pub(super) fn page(&self, space: SpaceId, page: PageNo) -> Result<Option<(PageFormat, Vec<u8>)>> {
        let mut number = u64::from(page.0);
        for PageFile { format, file, pages, .. } in self.files.iter().filter(|file| file.space == space) {
            if number < *pages {
                let mut content = vec![0; format.physical_size];
                let whole = read_at(file, &mut content, number.saturating_mul(format.physical_size as u64))?;
                return Ok(whole.then_some((*format, content)));
            }
            number -= pages;
        }
        Ok(None)
    }
}

fn header_of(path: &Path) -> Result<Option<TablespaceHeader>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut head = [0; PAGE0_BYTES];
    let whole = read_at(&file, &mut head, 0).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(if whole { parse_page0(&head).ok() } else { None })
}

/// Returns false if the file ends before the buffer is full.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Returns `None` if it does not exist.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot open {}", path.display())),
    }
}
