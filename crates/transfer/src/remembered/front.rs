//! The first pages of a tablespace. A donor that does not read a file knows its number and these pages from here.
use std::path::Path;

use formats::innodb::page;
use formats::innodb::tablespace::{PAGE0_BYTES, PageFormat, parse_page0};
use formats::{Lsn, SpaceId};
use protocol::remembered;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of the largest page, and of the part of a file's beginning whose pages are known.
pub const HEAD_BYTES: usize = 65536;

/// What a tablespace begins with.
#[derive(Clone, Debug)]
pub struct Front {
    /// Its number.
    pub space: SpaceId,
    /// How its pages are stored.
    pub format: PageFormat,
    /// The LSN of its first page.
    pub lsn: Option<Lsn>,
    /// XXH3 of the whole pages in its first [`HEAD_BYTES`].
    pub pages: Vec<u64>,
}

/// Whether a file of this name is a tablespace.
pub fn is_tablespace(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "ibd")
}

impl Front {
    /// From the beginning of a file; `None` if its first page is not whole.
    pub fn of(head: &[u8]) -> Option<Front> {
        let head = head.get(..HEAD_BYTES).unwrap_or(head);
        let header = parse_page0(head.get(..PAGE0_BYTES)?).ok()?;
        let first = head.get(..header.format.physical_size)?;
        if !page::verify(&header.format, first).is_usable() {
            return None;
        }
        let pages = head.chunks_exact(header.format.physical_size).map(xxh3_64).collect();
        Some(Front { space: header.space, format: header.format, lsn: page::lsn(head), pages })
    }

    /// Its pages as they are kept.
    pub fn encoded_pages(&self) -> Vec<u8> {
        self.pages.iter().flat_map(|page| page.to_le_bytes()).collect()
    }

    /// As it is kept.
    pub fn kept<'a>(&self, pages: &'a [u8]) -> remembered::Front<'a> {
        remembered::Front { space: self.space.0, lsn: self.lsn.map_or(0, |lsn| lsn.0), pages }
    }
}

/// The digests of the first pages of a record.
pub fn pages_of(front: &remembered::Front<'_>) -> Vec<u64> {
    let (pages, _) = front.pages.as_chunks::<8>();
    pages.iter().map(|page| u64::from_le_bytes(*page)).collect()
}
