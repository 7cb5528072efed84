//! `.MAI` files of Aria tables: whether a table is encrypted.
//!
//! Layout from storage/maria/ma_open.c (MariaDB 10.11), compared with tables that 10.11.19 created with
//! `aria_encrypt_tables=ON`. All numbers are big-endian.

use crate::bytes::be16;

/// How much of a file's beginning is needed: the base information follows the state, whose length grows with
/// the keys.
pub const HEAD_BYTES: usize = 8192;

const MAGIC: [u8; 3] = [0xfe, 0xfe, 9];
/// The place in the header that holds the offset of the base information.
const BASE_POS: usize = 12;
/// The later option bits, in the base information.
const EXTRA_OPTIONS: usize = 90;
const ENCRYPTED: u16 = 1;

/// Whether the beginning of a `.MAI` file marks the table as encrypted. Other bytes are not such a file, and
/// not encrypted.
pub fn is_encrypted(head: &[u8]) -> bool {
    let extra = be16(head, BASE_POS).and_then(|base| be16(head, usize::from(base) + EXTRA_OPTIONS));
    head.starts_with(&MAGIC) && extra.is_some_and(|bits| bits & ENCRYPTED != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(extra: u16) -> Vec<u8> {
        let mut head = vec![0; 400];
        head[..4].copy_from_slice(&[0xfe, 0xfe, 9, 3]);
        head[BASE_POS..][..2].copy_from_slice(&239u16.to_be_bytes());
        head[239 + EXTRA_OPTIONS..][..2].copy_from_slice(&extra.to_be_bytes());
        head
    }

    #[test]
    fn the_bit_in_the_base_information_says_it() {
        assert!(is_encrypted(&head(1)) && is_encrypted(&head(3)));
        assert!(!is_encrypted(&head(0)) && !is_encrypted(&head(2)));
    }

    #[test]
    fn what_is_cut_or_foreign_is_not_encrypted() {
        let whole = head(1);
        assert!((0..239 + EXTRA_OPTIONS + 2).all(|length| !is_encrypted(&whole[..length])));
        let mut myisam = whole;
        myisam[2] = 7;
        assert!(!is_encrypted(&myisam));
    }
}
