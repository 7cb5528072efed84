//! One page: its header, and whether it is intact.
//!
//! Header offsets from storage/innobase/include/fil0fil.h; the rules of validity from buf/buf0buf.cc
//! (`buf_page_is_corrupted`), fil/fil0crypt.cc and page/page0zip.cc, MariaDB 10.11; compared with files of
//! 10.11.19 servers in every format, intact and damaged, with innochecksum, and for the old checksums with a
//! server.

use super::checksum;
use super::tablespace::PageFormat;
use crate::bytes::{be16, be32, be64, put};
use crate::ids::{Lsn, PageNo, SpaceId};

/// Page types that this crate reads (fil0fil.h).
pub mod page_type {
    /// First page of a tablespace.
    pub const FSP_HDR: u16 = 8;
    /// Transaction system header: page 5 of the system tablespace.
    pub const TRX_SYS: u16 = 7;
    /// Rollback segment header, undo logs' bookkeeping and other system pages.
    pub const SYS: u16 = 6;
    /// B-tree node.
    pub const INDEX: u16 = 17855;
    /// Root of a B-tree with columns that were added instantly.
    pub const INSTANT: u16 = 18;
    /// Part of a column that is stored elsewhere than its row.
    pub const BLOB: u16 = 10;
    /// R-tree node: it uses the bytes in which others have the key version.
    pub const RTREE: u16 = 17854;
    /// Page-compressed, in the formats before full_crc32.
    pub const PAGE_COMPRESSED: u16 = 34354;
    /// Page-compressed and encrypted, in the formats before full_crc32.
    pub const PAGE_COMPRESSED_ENCRYPTED: u16 = 37401;
}

/// The result of verifying a page's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// Intact.
    Valid,
    /// Never written, all zero: redo initialises it.
    Zero,
    /// Page-compressed in a format without a checksum over the compressed bytes: read it twice and compare.
    Unverifiable,
    /// Torn or damaged.
    Corrupt {
        /// The checksum computed from the bytes.
        expected: u32,
        /// The stored checksum. It may equal `expected` if the repeated LSN disagreed.
        found: u32,
    },
}

impl PageState {
    /// Whether the page is not corrupt.
    pub fn is_usable(self) -> bool {
        !matches!(self, PageState::Corrupt { .. })
    }
}

/// Page number, at offset 4.
pub fn page_no(page: &[u8]) -> Option<PageNo> {
    be32(page, 4).map(PageNo)
}

/// Tablespace identifier, at offset 34. `None` if it cannot be read: in full_crc32 files everything from 26
/// on is cipher text in an encrypted page and compressed bytes in a compressed one.
pub fn space_id(format: &PageFormat, page: &[u8]) -> Option<SpaceId> {
    let compressed = page_type(page)? & 0x8000 != 0;
    if format.full_crc32 && (compressed || key_version(format, page)? != 0) {
        return None;
    }
    be32(page, 34).map(SpaceId)
}

/// LSN of the newest change, at offset 16.
pub fn lsn(page: &[u8]) -> Option<Lsn> {
    be64(page, 16).map(Lsn)
}

/// Type, at offset 24; in a compressed page of a full_crc32 file it holds the length instead, with bit 15 set.
pub fn page_type(page: &[u8]) -> Option<u16> {
    be16(page, 24)
}

/// Encryption key version: 0 = not encrypted. In full_crc32 files at offset 0, before at 26, where page 0 of
/// the system tablespace keeps an LSN and R-tree pages a sequence number instead.
pub fn key_version(format: &PageFormat, page: &[u8]) -> Option<u32> {
    be32(page, if format.full_crc32 { 0 } else { 26 })
}

/// Bytes of a page that have content: the page's size, or for a page compressed in a full_crc32 file the
/// shorter length that its type states. `None` if that length is impossible or the page is truncated.
pub fn stored_len(format: &PageFormat, page: &[u8]) -> Option<usize> {
    let size = format.physical_size;
    let kind = page_type(page)?;
    if !format.full_crc32 || kind & 0x8000 == 0 {
        return Some(size);
    }
    let len = usize::from(kind & 0x7fff) << 8;
    // Header, checksum, and less than a page: a page that would not shrink is stored uncompressed.
    (len > 42 && len < size).then_some(len)
}

/// Verifies one page of exactly `format.physical_size` bytes; any other length is `Corrupt`.
pub fn verify(format: &PageFormat, page: &[u8]) -> PageState {
    let state = if page.len() != format.physical_size {
        None
    } else if page.iter().all(|&b| b == 0) {
        Some(PageState::Zero)
    } else if format.full_crc32 {
        verify_full_crc32(format, page)
    } else if format.zip {
        verify_zip(page)
    } else {
        verify_old(format, page)
    };
    state.unwrap_or(PageState::Corrupt { expected: 0, found: 0 })
}

/// Gives an ordinary page, neither compressed nor encrypted, the checksum of what it contains now. False if it is
/// another kind of page; then it is unchanged.
#[must_use]
pub fn seal(format: &PageFormat, page: &mut [u8]) -> bool {
    let size = format.physical_size;
    let ordinary = !format.zip && page.len() == size && stored_len(format, page) == Some(size);
    let kind = page_type(page);
    let compressed = matches!(kind, Some(page_type::PAGE_COMPRESSED | page_type::PAGE_COMPRESSED_ENCRYPTED));
    if !ordinary
        || size < 64
        || !format.full_crc32 && compressed
        || key_version(format, page).is_none_or(|version| version != 0)
    {
        return false;
    }
    if format.full_crc32 {
        if let Some(checksum) = checksum::full_crc32(page, size - 4) {
            put(page, size - 4, &checksum.to_be_bytes());
        }
    } else if let Some(checksum) = checksum::crc32(page) {
        put(page, 0, &checksum.to_be_bytes());
        put(page, size - 8, &checksum.to_be_bytes());
    }
    true
}

fn verify_full_crc32(format: &PageFormat, page: &[u8]) -> Option<PageState> {
    let len = stored_len(format, page)?;
    let compressed = len < format.physical_size;
    let at = len.checked_sub(4)?;
    let found = be32(page, at)?;
    let expected = checksum::full_crc32(page, at)?;
    // Only an unencrypted, uncompressed page repeats its LSN: in others those bytes are cipher or compressed
    // text.
    let in_clear = !compressed && key_version(format, page)? == 0;
    let lsn_agrees = !in_clear || be32(page, 20)? == be32(page, len.checked_sub(8)?)?;
    if found == expected && lsn_agrees {
        return Some(PageState::Valid);
    }
    Some(PageState::Corrupt { expected, found })
}

fn verify_zip(page: &[u8]) -> Option<PageState> {
    let found = be32(page, 0)?;
    let expected = checksum::zip_crc32(page)?;
    if found == expected || found == checksum::NO_CHECKSUM || is_encrypted_with(page, expected)? {
        return Some(PageState::Valid);
    }
    if found == checksum::zip_adler(page)? {
        return Some(PageState::Valid);
    }
    Some(PageState::Corrupt { expected, found })
}

fn verify_old(format: &PageFormat, page: &[u8]) -> Option<PageState> {
    let kind = page_type(page)?;
    let compressed = matches!(kind, page_type::PAGE_COMPRESSED | page_type::PAGE_COMPRESSED_ENCRYPTED);
    if compressed && format.page_compressed {
        return Some(PageState::Unverifiable);
    }
    let trailer = page.len().checked_sub(8)?;
    let (found, found_old) = (be32(page, 0)?, be32(page, trailer)?);
    let expected = checksum::crc32(page)?;
    if is_encrypted_with(page, expected)? {
        return Some(PageState::Valid);
    }
    let corrupt = PageState::Corrupt { expected, found };
    if be32(page, 20)? != be32(page, trailer.checked_add(4)?)? {
        return Some(corrupt);
    }
    if found == expected && found_old == expected || is_blank(page, found, found_old) {
        return Some(PageState::Valid);
    }
    // The algorithms before crc32, which a server accepts unless configured to be strict (innochecksum of
    // 10.11 refuses them): each of the two places may hold its own checksum or the constant of "none"; the
    // trailer of very old files holds the high word of the LSN.
    let old = [checksum::NO_CHECKSUM, be32(page, 16)?, checksum::innodb_old(page)?];
    let new = [checksum::NO_CHECKSUM, 0, checksum::innodb_new(page)?];
    if old.contains(&found_old) && new.contains(&found) {
        return Some(PageState::Valid);
    }
    Some(corrupt)
}

/// Whether the page has a key version and a correct checksum over the cipher text, at 30. R-tree pages have a
/// sequence number in place of the key version and were never encrypted in these formats.
fn is_encrypted_with(page: &[u8], expected: u32) -> Option<bool> {
    let kind = page_type(page)?;
    Some(kind != page_type::RTREE && be32(page, 26)? != 0 && be32(page, 30)? == expected)
}

/// Whether the page is zero except for the LSN that old servers wrote into bytes 26..34 of the first page of
/// each system file.
fn is_blank(page: &[u8], found: u32, found_old: u32) -> bool {
    let zero = |part: Option<&[u8]>| part.is_some_and(|part| part.iter().all(|&b| b == 0));
    found == 0 && found_old == 0 && zero(page.get(..26)) && zero(page.get(34..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sealed_page_is_valid() {
        for full_crc32 in [true, false] {
            let format = PageFormat::plain(4096, full_crc32);
            let mut page = vec![0; 4096];
            page[24..26].copy_from_slice(&page_type::SYS.to_be_bytes());
            page[1000] = 7;
            if !full_crc32 {
                page[0] = 9;
            }
            assert!(!verify(&format, &page).is_usable());
            assert!(seal(&format, &mut page));
            assert_eq!(verify(&format, &page), PageState::Valid);
            page[26..30].copy_from_slice(&[0, 0, 0, 1]);
            if full_crc32 {
                page[..4].copy_from_slice(&[0, 0, 0, 1]);
            }
            let encrypted = page.clone();
            assert!(!seal(&format, &mut page) && page == encrypted);
            assert!(!seal(&format, &mut page[..100]));
        }
    }

    /// A page with bytes from `seed` whose LSN is repeated as the formats before full_crc32 require.
    fn page(size: usize, seed: u8) -> Vec<u8> {
        let mut page: Vec<u8> = (0..size).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        put(&mut page, 24, &17855u16.to_be_bytes());
        put(&mut page, 26, &[0; 8]);
        let low: [u8; 4] = page[20..24].try_into().unwrap();
        put(&mut page, size - 4, &low);
        page
    }

    fn seal_old(page: &mut [u8], first: u32, last: u32) {
        let end = page.len() - 8;
        put(page, 0, &first.to_be_bytes());
        put(page, end, &last.to_be_bytes());
    }

    #[test]
    fn every_old_algorithm() {
        let format = PageFormat::plain(16384, false);
        let mut p = page(16384, 7);
        let crc = checksum::crc32(&p).unwrap();
        seal_old(&mut p, crc, crc);
        assert_eq!(verify(&format, &p), PageState::Valid);
        seal_old(&mut p, crc, crc ^ 1);
        assert!(matches!(verify(&format, &p), PageState::Corrupt { .. }));
        seal_old(&mut p, checksum::NO_CHECKSUM, checksum::NO_CHECKSUM);
        assert_eq!(verify(&format, &p), PageState::Valid);
        let new = checksum::innodb_new(&p).unwrap();
        seal_old(&mut p, new, 0);
        let old = checksum::innodb_old(&p).unwrap();
        seal_old(&mut p, new, old);
        assert_eq!(verify(&format, &p), PageState::Valid);
        p[16383] ^= 1;
        assert!(matches!(verify(&format, &p), PageState::Corrupt { .. }));
    }

    #[test]
    fn encrypted_before_full_crc32() {
        let format = PageFormat::plain(4096, false);
        let mut p = page(4096, 9);
        put(&mut p, 26, &1u32.to_be_bytes());
        p[4095] ^= 0xff; // cipher text does not repeat the LSN
        let crc = checksum::crc32(&p).unwrap();
        put(&mut p, 30, &crc.to_be_bytes());
        assert_eq!(verify(&format, &p), PageState::Valid);
        p[2000] ^= 1;
        assert!(!verify(&format, &p).is_usable());
    }

    #[test]
    fn zip_pages() {
        let format =
            PageFormat { physical_size: 2048, logical_size: 16384, zip: true, ..PageFormat::plain(0, false) };
        let mut p = page(2048, 3);
        for sum in [checksum::zip_crc32(&p), checksum::zip_adler(&p), Some(checksum::NO_CHECKSUM)] {
            put(&mut p, 0, &sum.unwrap().to_be_bytes());
            assert_eq!(verify(&format, &p), PageState::Valid);
        }
        put(&mut p, 0, &[1, 2, 3, 4]);
        assert!(!verify(&format, &p).is_usable());
    }

    #[test]
    fn full_crc32_compressed_is_checked_over_its_length() {
        let format = PageFormat { page_compressed: true, ..PageFormat::plain(16384, true) };
        let mut p = page(16384, 5);
        put(&mut p, 24, &(0x8000u16 | 8).to_be_bytes());
        let crc = checksum::full_crc32(&p, 2044).unwrap();
        put(&mut p, 2044, &crc.to_be_bytes());
        assert_eq!(stored_len(&format, &p), Some(2048));
        assert_eq!(verify(&format, &p), PageState::Valid);
        p[9000] ^= 1; // beyond the length: a hole, not content
        assert_eq!(verify(&format, &p), PageState::Valid);
        p[100] ^= 1;
        assert!(!verify(&format, &p).is_usable());
        put(&mut p, 24, &(0x8000u16 | 64).to_be_bytes());
        assert!(!verify(&format, &p).is_usable());
    }

    #[test]
    fn zero_and_wrong_length() {
        let format = PageFormat::plain(4096, true);
        assert_eq!(verify(&format, &[0; 4096]), PageState::Zero);
        assert!(!verify(&format, &[0; 4095]).is_usable());
        let mut p = vec![0; 4096];
        put(&mut p, 26, &[1; 8]);
        assert_eq!(verify(&PageFormat::plain(4096, false), &p), PageState::Valid);
        assert!(!verify(&format, &p).is_usable());
    }

    #[test]
    fn page_compressed_without_its_own_checksum() {
        let format = PageFormat { page_compressed: true, ..PageFormat::plain(4096, false) };
        let mut p = page(4096, 1);
        put(&mut p, 24, &page_type::PAGE_COMPRESSED.to_be_bytes());
        assert_eq!(verify(&format, &p), PageState::Unverifiable);
        assert!(!verify(&PageFormat::plain(4096, false), &p).is_usable());
    }

    fn any_format() -> impl Strategy<Value = PageFormat> {
        any::<u32>().prop_filter_map("flags", |flags| {
            // Most of the impossible bits are cleared so that most draws are formats.
            [flags & 0xff | 0x10, flags & 0x0001_03e1, flags & 0x3f | 0x21]
                .into_iter()
                .find_map(|f| PageFormat::from_flags(f).ok())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn never_panics(format in any_format(), head in prop::collection::vec(any::<u8>(), 0..200), full: bool) {
            let mut p = head;
            if full {
                p.resize(format.physical_size, 0x11);
            }
            let _ = verify(&format, &p);
            let _ = (page_no(&p), space_id(&format, &p), lsn(&p), page_type(&p), stored_len(&format, &p));
        }

        #[test]
        fn one_flipped_bit_is_seen(seed: u8, at in 0usize..4096, bit in 0u8..8) {
            let format = PageFormat::plain(4096, true);
            let mut p = page(4096, seed);
            put(&mut p, 0, &[0; 4]);
            let low: [u8; 4] = p[20..24].try_into().unwrap();
            put(&mut p, 4088, &low);
            let crc = checksum::full_crc32(&p, 4092).unwrap();
            put(&mut p, 4092, &crc.to_be_bytes());
            prop_assert_eq!(verify(&format, &p), PageState::Valid);
            p[at] ^= 1 << bit;
            prop_assert!(!verify(&format, &p).is_usable());
        }
    }
}
