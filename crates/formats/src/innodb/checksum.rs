//! The checksums a page can carry.
//!
//! Which bytes each covers is stated at the function. Established from storage/innobase/buf/buf0checksum.cc,
//! page/page0zip.cc and include/fil0fil.h (MariaDB 10.11), and compared with files of 10.11.19 servers and with
//! innochecksum of that version.

use crc32c::crc32c;

/// The value that `innodb_checksum_algorithm=none` wrote as a checksum.
pub const NO_CHECKSUM: u32 = 0xdead_beef;

/// CRC-32C of bytes 4..26 XOR that of 38..n-8; stored at 0 and at n-8, in an encrypted page at 30.
/// `None` if the page is shorter than a header and a trailer.
pub fn crc32(page: &[u8]) -> Option<u32> {
    let body = page.get(38..page.len().checked_sub(8)?)?;
    Some(crc32c(page.get(4..26)?) ^ crc32c(body))
}

/// `ROW_FORMAT=COMPRESSED`: CRC-32C of 4..16 XOR that of 24..26 XOR that of 34..n; stored at 0.
pub fn zip_crc32(page: &[u8]) -> Option<u32> {
    Some(crc32c(page.get(4..16)?) ^ crc32c(page.get(24..26)?) ^ crc32c(page.get(34..)?))
}

/// CRC-32C of the first `covered` bytes, of the formats that end a page with its checksum.
pub fn full_crc32(page: &[u8], covered: usize) -> Option<u32> {
    page.get(..covered).map(crc32c)
}

/// `ROW_FORMAT=COMPRESSED` with the old algorithm: Adler-32 over the bytes of [`zip_crc32`], starting at 0.
pub fn zip_adler(page: &[u8]) -> Option<u32> {
    let parts = [page.get(4..16)?, page.get(24..26)?, page.get(34..)?];
    let (mut low, mut high) = (0u32, 0u32);
    for &byte in parts.into_iter().flatten() {
        low = (low + u32::from(byte)) % 65521;
        high = (high + low) % 65521;
    }
    Some(high << 16 | low)
}

/// The old algorithm's value at offset 0: the fold of 4..26 plus that of 38..n-8.
pub fn innodb_new(page: &[u8]) -> Option<u32> {
    let body = page.get(38..page.len().checked_sub(8)?)?;
    Some(fold(page.get(4..26)?).wrapping_add(fold(body)))
}

/// The old algorithm's value at n-8: the fold of 0..26, the first checksum included.
pub fn innodb_old(page: &[u8]) -> Option<u32> {
    page.get(..26).map(fold)
}

/// InnoDB's byte fold, in 32 bits (include/ut0rnd.h and ut0rnd.ic).
fn fold(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0u32, |sum, &byte| {
        let byte = u32::from(byte);
        let mixed = (sum ^ byte ^ 1_653_893_711) << 8;
        (mixed.wrapping_add(sum) ^ 1_463_735_687).wrapping_add(byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn adler_of_a_known_text() {
        // Adler-32 of "Wikipedia" is 0x11e60398 when it starts at 1; starting at 0 lowers the low half by one
        // and the high half by one for each of nine bytes.
        let mut page = vec![0u8; 34];
        page[4..13].copy_from_slice(b"Wikipedia");
        // The 5 zero bytes after it repeat the low half in the high one.
        let low = 0x0397u32;
        let high = 0x11e6 - 9 + 5 * low;
        assert_eq!(zip_adler(&page), Some(high << 16 | low));
    }

    #[test]
    fn short_pages_have_no_checksum() {
        for n in 0..46 {
            assert_eq!(crc32(&vec![0; n]), None);
            assert_eq!(innodb_new(&vec![0; n]), None);
        }
        assert_eq!(zip_crc32(&[0; 33]), None);
        assert_eq!(innodb_old(&[0; 25]), None);
        assert_eq!(full_crc32(&[0; 3], 4), None);
    }

    proptest! {
        #[test]
        fn the_covered_bytes_are_the_stated_ones(
            page in prop::collection::vec(any::<u8>(), 128),
            at in 0usize..128,
        ) {
            let mut other = page.clone();
            other[at] ^= 0x5a;
            let covered = |ranges: &[std::ops::Range<usize>]| ranges.iter().any(|r| r.contains(&at));
            prop_assert_eq!(crc32(&page) != crc32(&other), covered(&[4..26, 38..120]));
            prop_assert_eq!(zip_crc32(&page) != zip_crc32(&other), covered(&[4..16, 24..26, 34..128]));
            prop_assert_eq!(zip_adler(&page) != zip_adler(&other), covered(&[4..16, 24..26, 34..128]));
            prop_assert_eq!(full_crc32(&page, 100) != full_crc32(&other, 100), at < 100);
        }
    }
}
