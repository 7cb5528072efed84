//! One file of a snapshot: its newest name and state, and what was copied of it.
use std::path::PathBuf;

use anyhow::{Context, Result};
use formats::{Lsn, SpaceId};
use protocol::inventory::{FileEntry, FileId};

use super::listing::{Care, Listed};
use crate::disk::identity::{Signature, look};
use crate::snapshot::copy::pages::Freshness;

/// A file that was seen, under whatever names.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its number in this snapshot.
    pub id: FileId,
    /// Its newest name and state.
    pub listed: Listed,
    /// How the listed file is copied.
    pub care: Care,
    pub(super) copy: CopiedPart,
    /// For data files: what is known of the copy. Half of all files are not data files.
    pub(super) data: Option<Box<DataCopy>>,
    /// True if it is in the newest listing.
    pub present: bool,
    /// A data file that was written to since the snapshot began.
    pub(super) written: bool,
}

/// What was copied of a file. One value for both kinds of files, because there can be very many of either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum CopiedPart {
    #[default]
    Nothing,
    /// So many bytes of a data file, from the start.
    Pages(u64),
    /// Of a file without pages: its bytes, and when it had last changed before it was read. A file that grew or shrank since
    /// has changed since.
    Whole(u64, i64),
}

/// What is known of the copy of a data file.
#[derive(Clone, Debug, Default)]
pub(super) struct DataCopy {
    /// Tablespace, if the first page could be read.
    pub space: Option<SpaceId>,
    /// LSN of the first page that was copied.
    pub first_lsn: Option<Lsn>,
    /// As [`crate::snapshot::copy::page_file::PageFile::head`] when it was copied.
    pub head: Box<[u64]>,
    /// Which checkpoints had been seen when it was copied.
    pub fresh: Fresh,
}

/// As [`Freshness`]. For most files, one checkpoint had been seen before all of it was read.
#[derive(Clone, Debug)]
pub(super) enum Fresh {
    All(Lsn),
    Parts(Box<[(Lsn, u64)]>),
}

impl Default for Fresh {
    fn default() -> Fresh {
        Fresh::Parts(Box::default())
    }
}

impl From<Freshness> for Fresh {
    fn from(fresh: Freshness) -> Fresh {
        match fresh.as_slice() {
            [(seen, 0)] => Fresh::All(*seen),
            _ => Fresh::Parts(fresh.into()),
        }
    }
}

impl Known {
    pub(super) fn data(&mut self) -> &mut DataCopy {
        self.data.get_or_insert_default()
    }

    /// Tablespace, if this is a data file whose first page could be read.
    pub fn space(&self) -> Option<SpaceId> {
        self.data.as_ref()?.space
    }

    /// LSN of the first page that was copied.
    pub fn first_lsn(&self) -> Option<Lsn> {
        self.data.as_ref()?.first_lsn
    }

    /// As [`crate::snapshot::copy::page_file::PageFile::head`] when it was copied.
    pub fn head(&self) -> &[u64] {
        self.data.as_ref().map_or(&[], |data| &data.head)
    }

    /// Bytes copied, from the start; `None` if nothing was copied yet.
    pub fn copied(&self) -> Option<u64> {
        match self.copy {
            CopiedPart::Nothing => None,
            CopiedPart::Pages(bytes) | CopiedPart::Whole(bytes, _) => Some(bytes),
        }
    }

    /// A file without pages, of which this state was copied.
    pub fn is_copied_as(&self, signature: Signature) -> bool {
        matches!(self.copy, CopiedPart::Whole(bytes, changed)
            if bytes == signature.size && i128::from(changed) == signature.changed())
    }

    /// Its entry for the peer, with the size that was copied or, before that, the listed one.
    pub fn entry(&self) -> FileEntry {
        let mut entry = self.listed.entry(self.id);
        if self.care == Care::Link {
            (entry.size, entry.allocated) = (0, 0);
        } else {
            entry.size = self.copied().unwrap_or(entry.size);
        }
        entry
    }

    /// Bytes from its beginning that were read before the checkpoint at `below` had been seen: there the copy may lack
    /// changes below it.
    pub fn stale(&self, below: Lsn) -> u64 {
        let offset = match self.data.as_ref().map(|data| &data.fresh) {
            Some(Fresh::All(seen)) => (*seen >= below).then_some(0),
            Some(Fresh::Parts(parts)) => {
                parts.iter().find(|(seen, _)| *seen >= below).map(|(_, offset)| *offset)
            }
            None => None,
        };
        offset.unwrap_or(u64::MAX)
    }

    /// True if its name belongs to another file now, or to none.
    ///
    /// # Errors
    /// From the system.
    pub fn is_gone(&self) -> Result<bool> {
        let path = self.path();
        let now = look(&path).with_context(|| format!("cannot look at {}", path.display()))?;
        Ok(now.is_none_or(|now| now.identity != self.listed.look().identity))
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.listed.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There can be hundreds of thousands of each, so this test fails if they grow.
    #[test]
    fn a_file_takes_few_bytes() {
        assert_eq!(size_of::<Listed>(), 24);
        assert_eq!(size_of::<Known>(), 64);
        assert_eq!(size_of::<DataCopy>(), 56);
    }
}
