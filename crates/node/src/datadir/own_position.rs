//! What a joiner's own files say: which position of the cluster they are at, and whether a server has them open.
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::innodb::tablespace::{PAGE0_BYTES, parse_page0};
use formats::innodb::wsrep_position::{StoredPosition, TRX_SYS_PAGE, newest, rseg_slots, stored_position};
use formats::mariadb::file_kind::{FileKind, top_level};
use formats::{PageNo, SpaceId};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::layout::Layout;
use super::walk::{entries, file_name, is_gone};

/// The position in the rollback segment headers: that of the last checkpoint. `None` when the files hold none, are
/// encrypted or damaged, or are not there.
///
/// # Errors
/// A file is there and cannot be read.
pub fn position_in_files(layout: &Layout) -> Result<Option<StoredPosition>> {
    let Some(first) = layout.system_files.first() else { return Ok(None) };
    // What the files were made with counts, whatever the configuration says now.
    let Some(header) = header_of(&first.path)? else { return Ok(None) };
    let page_size = header.format.logical_size;
    let spaces = Spaces::open(layout, page_size)?;
    let Some(trx_sys) = spaces.page(SpaceId(0), TRX_SYS_PAGE)? else { return Ok(None) };
    let mut positions = Vec::new();
    for (space, page) in rseg_slots(&trx_sys) {
        if let Some(page) = spaces.page(space, page)? {
            positions.extend(stored_position(&page, page_size));
        }
    }
    Ok(newest(positions))
}

/// A server that has the datadir open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    /// The file it holds a lock on.
    pub path: PathBuf,
    /// Its process id; `None` when it is in another container.
    pub pid: Option<u32>,
}

/// Whether a server holds the locks that InnoDB and Aria take on their files while they are open.
///
/// # Errors
/// A file is there and cannot be looked at.
pub fn server_using(layout: &Layout) -> Result<Option<InUse>> {
    let control = layout.aria_log_dir.join("aria_log_control");
    let paths = layout.system_files.iter().map(|file| file.path.as_path()).chain([control.as_path()]);
    for path in paths {
        let Some(file) = open(path)? else { continue };
        let holder = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
            .with_context(|| format!("cannot ask for the lock on {}", path.display()))?;
        if let Some(lock) = holder.filter(|lock| lock.typ != FlockType::Unlocked) {
            let pid = lock.pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
            return Ok(Some(InUse { path: path.to_path_buf(), pid }));
        }
    }
    Ok(None)
}

/// The files that rollback segments lie in.
struct Spaces {
    page_size: usize,
    /// Files of the system tablespace with their length in pages, then undo tablespaces.
    files: Vec<(SpaceId, File, u64)>,
}

impl Spaces {
    fn open(layout: &Layout, page_size: usize) -> Result<Spaces> {
        let mut files = Vec::new();
        for at in &layout.system_files {
            let Some(file) = open(&at.path)? else { break };
            let pages = file.metadata()?.len() / page_size as u64;
            files.push((SpaceId(0), file, pages));
        }
        for entry in entries(&layout.undo_dir)? {
            let path = entry.path();
            if top_level(file_name(&path)) != FileKind::Undo {
                continue;
            }
            if let (Some(header), Some(file)) = (header_of(&path)?, open(&path)?) {
                files.push((header.space, file, u64::from(u32::MAX)));
            }
        }
        Ok(Spaces { page_size, files })
    }

    /// One page; `None` when it is beyond the end or its space is not among the files.
    fn page(&self, space: SpaceId, page: PageNo) -> Result<Option<Vec<u8>>> {
        let mut number = u64::from(page.0);
        for (_, file, pages) in self.files.iter().filter(|(id, ..)| *id == space) {
            if number < *pages {
                let mut content = vec![0; self.page_size];
                return read_at(file, &mut content, number.saturating_mul(self.page_size as u64))
                    .map(|whole| whole.then_some(content));
            }
            number -= pages;
        }
        Ok(None)
    }
}

fn header_of(path: &Path) -> Result<Option<formats::innodb::tablespace::TablespaceHeader>> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut head = [0; PAGE0_BYTES];
    let whole = read_at(&file, &mut head, 0).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(if whole { parse_page0(&head).ok() } else { None })
}

/// False when the file ends before the buffer is full.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot open {}", path.display())),
    }
}

#[cfg(test)]
#[path = "own_position_tests.rs"]
mod tests;
