//! The doublewrite area: two extents of the system tablespace that hold copies of pages of any tablespace.
//!
//! Its pages must not be checked as pages of the system tablespace, and need not be copied. Place and layout from
//! storage/innobase/include/trx0sys.h and fsp0types.h (MariaDB 10.11), held against files of 10.11.19.

use std::ops::Range;

use crate::bytes::be32;
use crate::ids::PageNo;

const MAGIC: u32 = 536_853_855;

/// Pages in one extent: 1 MiB up to a page size of 16 KiB, 64 pages above.
pub fn extent_pages(page_size: usize) -> u32 {
    match page_size {
        4096 => 256,
        8192 => 128,
        _ => 64,
    }
}

/// Returns the page numbers of the two extents from the transaction system page (page 5 of the system
/// tablespace, whole); `None` if it has none, as before the first start of a server has created the area.
pub fn extents(trx_sys_page: &[u8]) -> Option<[Range<PageNo>; 2]> {
    let page_size = trx_sys_page.len();
    let at = page_size.checked_sub(190)?;
    if be32(trx_sys_page, at)? != MAGIC {
        return None;
    }
    let extent = |at| {
        let first = be32(trx_sys_page, at)?;
        Some(PageNo(first)..PageNo(first.checked_add(extent_pages(page_size))?))
    };
    Some([extent(at + 4)?, extent(at + 8)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::put;
    use proptest::prelude::*;

    #[test]
    fn two_extents_or_none() {
        let mut page = vec![0; 16384];
        assert_eq!(extents(&page), None);
        put(&mut page, 16384 - 190, &MAGIC.to_be_bytes());
        put(&mut page, 16384 - 186, &[0, 0, 0, 64, 0, 0, 0, 128]);
        assert_eq!(extents(&page), Some([PageNo(64)..PageNo(128), PageNo(128)..PageNo(192)]));
        put(&mut page, 16384 - 186, &[0xff; 4]);
        assert_eq!(extents(&page), None);
    }

    proptest! {
        #[test]
        fn never_panics(page in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = extents(&page);
        }
    }
}
