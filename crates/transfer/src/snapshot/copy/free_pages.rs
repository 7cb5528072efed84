//! Which pages of a tablespace are free: corruption there affects no data.
//!
//! An extent's descriptor has two bits per page, the first of which means free. Descriptors are in every page whose
//! number is a multiple of the page size in bytes, from offset 150 on (include/fsp0fsp.h, MariaDB 10.11). Pages at or
//! above the tablespace's free limit, at offset 50 of page 0, were never allocated.
use formats::PageNo;
use formats::innodb::doublewrite::extent_pages;
use formats::innodb::tablespace::PageFormat;

const FREE_LIMIT: usize = 50;
const DESCRIPTORS: usize = 150;
/// Bytes of a descriptor before its bits.
const DESCRIPTOR_HEAD: usize = 24;

/// The page that holds the descriptor of `page`'s extent.
pub fn descriptor_page(format: &PageFormat, page: PageNo) -> PageNo {
    let size = format.physical_size as u32;
    PageNo(page.0 / size * size)
}

/// True if `page` is free; `first` is page 0 and `descriptors` is the page that [`descriptor_page`] names, both whole.
pub fn is_free(format: &PageFormat, first: &[u8], descriptors: &[u8], page: PageNo) -> bool {
    let limit = first.get(FREE_LIMIT..FREE_LIMIT + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let Some(limit) = limit else { return false };
    if page.0 >= limit {
        return true;
    }
    let extent = extent_pages(format.logical_size);
    let descriptor = DESCRIPTOR_HEAD + extent as usize / 4;
    let at = (page.0 % format.physical_size as u32 / extent) as usize * descriptor;
    let bit = page.0 % extent * 2;
    let byte = descriptors.get(DESCRIPTORS + at + DESCRIPTOR_HEAD + bit as usize / 8);
    byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_an_extent() {
        let format = PageFormat::plain(16384, true);
        let mut page0 = vec![0u8; 16384];
        page0[50..54].copy_from_slice(&128u32.to_be_bytes());
        // Second extent, page 64 + 9: bit 18 of its bits.
        page0[150 + 40 + 24 + 2] = 1 << 2;
        let free = |n| is_free(&format, &page0, &page0, PageNo(n));
        assert!(free(73) && !free(72) && !free(74) && !free(9) && free(128) && free(70_000));
        assert_eq!(descriptor_page(&format, PageNo(70_000)), PageNo(65_536));
        assert!(!is_free(&format, &[], &[], PageNo(3)));
    }
}
