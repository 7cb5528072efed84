//! A tablespace's first page: identity, size, and the flags that determine the layout of all its pages.
//!
//! Established from storage/innobase/include/fsp0types.h, fil0fil.h and fsp0fsp.h (MariaDB 10.11) and from files
//! of 10.11.19 servers in every page size, compressed, page-compressed and encrypted.

use thiserror::Error;

use crate::bytes::be32;
use crate::ids::SpaceId;

/// Bytes of page 0 that [`parse_page0`] reads.
pub const PAGE0_BYTES: usize = 58;

/// How the pages of one tablespace are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageFormat {
    /// Bytes of a page in the file; less than `logical_size` for `ROW_FORMAT=COMPRESSED`.
    pub physical_size: usize,
    /// Bytes of a page in memory (`innodb_page_size`).
    pub logical_size: usize,
    /// The format of `innodb_checksum_algorithm=full_crc32`, the default since 10.5.
    pub full_crc32: bool,
    /// `PAGE_COMPRESSED=1`: a page's content is compressed and the rest of its slot is a hole.
    pub page_compressed: bool,
    /// `ROW_FORMAT=COMPRESSED`.
    pub zip: bool,
}

/// Flags that no MariaDB server since 10.1.21 writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("tablespace flags {0:#010x} are not valid")]
pub struct BadFlags(pub u32);

const FULL_CRC32: u32 = 1 << 4;

impl PageFormat {
    /// The format of ordinary pages: neither compressed in any way nor `ROW_FORMAT=COMPRESSED`.
    pub fn plain(page_size: usize, full_crc32: bool) -> PageFormat {
        PageFormat {
            physical_size: page_size,
            logical_size: page_size,
            full_crc32,
            page_compressed: false,
            zip: false,
        }
    }

    /// Parses the flags word of page 0.
    ///
    /// # Errors
    /// A bit that must be zero is set, or the page size does not exist.
    pub fn from_flags(flags: u32) -> Result<PageFormat, BadFlags> {
        if flags & FULL_CRC32 != 0 { Self::full(flags) } else { Self::old(flags) }.ok_or(BadFlags(flags))
    }

    /// Bits 0-3 page size, 4 marker, 5-7 compression algorithm.
    fn full(flags: u32) -> Option<PageFormat> {
        let algorithm = (flags >> 5) & 7;
        if flags >> 8 != 0 || algorithm > 6 {
            return None;
        }
        let size = page_size(flags & 15)?;
        Some(PageFormat { page_compressed: algorithm != 0, ..Self::plain(size, true) })
    }

    /// Bit 0 set from COMPACT on, 1-4 zip size, 5 atomic BLOBs, 6-9 page size (0 = 16 KiB), 16 page-compressed,
    /// 17-20 its level. 10-15 and 21 up must be zero in a file.
    fn old(flags: u32) -> Option<PageFormat> {
        if flags & 0xffe0_fc00 != 0 {
            return None;
        }
        let logical_size = match (flags >> 6) & 15 {
            0 => 16384,
            code => page_size(code)?,
        };
        let zip_code = (flags >> 1) & 15;
        let zip = zip_code != 0;
        let physical_size = if zip { 512usize << zip_code } else { logical_size };
        // ROW_FORMAT=COMPRESSED exists up to a page size of 16 KiB, in slots of 1 to 16 KiB, and needs the
        // bits of the formats it was built on.
        if zip
            && (zip_code > 5 || physical_size > logical_size || logical_size > 16384 || flags & 0x21 != 0x21)
        {
            return None;
        }
        let page_compressed = flags & (1 << 16) != 0;
        Some(PageFormat { physical_size, logical_size, full_crc32: false, page_compressed, zip })
    }
}

/// 3 = 4 KiB ... 7 = 64 KiB.
fn page_size(code: u32) -> Option<usize> {
    (3..=7).contains(&code).then(|| 512usize << code)
}

/// The content of page 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TablespaceHeader {
    /// Identifier.
    pub space: SpaceId,
    /// Size in pages, as the server last recorded it; the file may be longer or, for a crashed server,
    /// shorter. For a system tablespace of several files this is the size of all.
    pub pages: u32,
    /// The flags as stored.
    pub flags: u32,
    /// Their meaning.
    pub format: PageFormat,
}

/// Why a first page is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Page0Error {
    /// Fewer than [`PAGE0_BYTES`] bytes.
    #[error("the first page is truncated: {0} bytes")]
    Short(usize),
    /// Never written: the file is being created and redo will initialise it.
    #[error("first page is all zero")]
    Zero,
    /// It is not page 0.
    #[error("page number {0} in the first page")]
    PageNumber(u32),
    /// The two places that hold the identifier disagree.
    #[error("first page says space {header} in its header and {body} in its body")]
    SpaceMismatch {
        /// At offset 34.
        header: u32,
        /// At offset 38.
        body: u32,
    },
    /// The flags are invalid.
    #[error(transparent)]
    Flags(#[from] BadFlags),
}

/// Parses the first page of a file, or the first [`PAGE0_BYTES`] of it. The checksum is not verified, because
/// the format must be known first.
///
/// # Errors
/// The first sign that this is not a page 0.
pub fn parse_page0(page: &[u8]) -> Result<TablespaceHeader, Page0Error> {
    let short = Page0Error::Short(page.len());
    let head = page.get(..PAGE0_BYTES).ok_or(short)?;
    if head.iter().all(|&b| b == 0) {
        return Err(Page0Error::Zero);
    }
    let word = |at| be32(head, at).ok_or(short);
    let (number, header, body) = (word(4)?, word(34)?, word(38)?);
    if number != 0 {
        return Err(Page0Error::PageNumber(number));
    }
    if header != body {
        return Err(Page0Error::SpaceMismatch { header, body });
    }
    let flags = word(54)?;
    Ok(TablespaceHeader {
        space: SpaceId(body),
        pages: word(46)?,
        flags,
        format: PageFormat::from_flags(flags)?,
    })
}

/// Where the list of extents begins in page 0 (the server adds the header's offset twice), and the size of an
/// entry without its bitmap of two bits for each page (`FSP_HEADER_OFFSET` + `XDES_ARR_OFFSET`,
/// `XDES_BITMAP`).
const EXTENTS_AT: usize = 38 + 150;
const EXTENT_HEAD: usize = 24;
/// The beginning of the crypt data behind that list (`CRYPT_MAGIC`, fil0crypt.cc).
const CRYPT_MAGIC: [u8; 6] = [b's', 0xe, 0xc, b'R', b'E', b't'];
/// `CRYPT_SCHEME_1`; 0 is a tablespace that was never encrypted.
const CRYPT_SCHEME: u8 = 1;

/// Whether pages of a tablespace may be encrypted, according to the crypt data in its first page: some were
/// encrypted, with whatever key, or `ENCRYPTED=YES` means that they will be. Needs all of page 0; false if it
/// is truncated or not page 0.
pub fn is_encrypted(page0: &[u8]) -> bool {
    let Ok(TablespaceHeader { format, .. }) = parse_page0(page0) else { return false };
    // An extent has 1 MiB for pages up to 16 KiB, and 64 pages for larger ones.
    let pages = ((1 << 20) / format.logical_size).max(64);
    let entry = EXTENT_HEAD + pages / 4;
    let at = EXTENTS_AT + entry * (format.physical_size / pages);
    let data = page0.get(at..).unwrap_or_default();
    // Magic, scheme, length of the vector, the vector, oldest key version, key, wish.
    let [scheme, vector] = [6, 7].map(|at| data.get(at).copied().unwrap_or(0));
    let versions = 8 + usize::from(vector);
    let oldest = be32(data, versions).unwrap_or(0);
    let wish = data.get(versions + 8).copied().unwrap_or(0);
    data.starts_with(&CRYPT_MAGIC) && scheme == CRYPT_SCHEME && (oldest != 0 || wish == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flags_of_both_worlds() {
        assert_eq!(PageFormat::from_flags(0x15), Ok(PageFormat::plain(16384, true)));
        let compressed = PageFormat::from_flags(0x15 | 1 << 5).unwrap();
        assert!(compressed.page_compressed && compressed.full_crc32);
        assert_eq!(PageFormat::from_flags(0), Ok(PageFormat::plain(16384, false)));
        assert_eq!(PageFormat::from_flags(0x21 | 3 << 6).unwrap().logical_size, 4096);
        let zip = PageFormat::from_flags(0x21 | 4 << 1).unwrap();
        assert_eq!((zip.physical_size, zip.logical_size, zip.zip), (8192, 16384, true));
        for bad in [0x12, 0x18, 0x15 | 7 << 5, 0x115, 1 << 10, 1 << 30, 0x21 | 8 << 6, 4 << 1, 0x21 | 6 << 1]
        {
            assert_eq!(PageFormat::from_flags(bad), Err(BadFlags(bad)), "{bad:#x}");
        }
    }

    #[test]
    fn what_is_not_a_first_page() {
        assert_eq!(parse_page0(&[1; 57]), Err(Page0Error::Short(57)));
        assert_eq!(parse_page0(&[0; 4096]), Err(Page0Error::Zero));
        let mut page = [0u8; 64];
        page[7] = 1;
        assert_eq!(parse_page0(&page), Err(Page0Error::PageNumber(1)));
        page[7] = 0;
        page[37] = 5;
        assert_eq!(parse_page0(&page), Err(Page0Error::SpaceMismatch { header: 5, body: 0 }));
    }

    proptest! {
        #[test]
        fn any_format_is_a_sane_one(flags: u32) {
            if let Ok(format) = PageFormat::from_flags(flags) {
                prop_assert!((4096..=65536).contains(&format.logical_size));
                prop_assert!((1024..=format.logical_size).contains(&format.physical_size));
                prop_assert!(format.physical_size.is_power_of_two());
            }
        }

        #[test]
        fn never_panics(page in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_page0(&page);
            let _ = is_encrypted(&page);
        }
    }
}
