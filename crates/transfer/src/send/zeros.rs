//! Finding zeros: pages never written, and the holes of page-compressed tables.
use protocol::chunk::is_zero;
use protocol::limits::HOLE_BYTES;

/// Finds the parts of `bytes` that are not zero: (start, length) in bytes, ascending and not adjacent, in whole blocks
/// of [`HOLE_BYTES`].
pub fn find_parts(bytes: &[u8], parts: &mut Vec<(u32, u32)>) {
    parts.clear();
    for (index, block) in bytes.chunks(HOLE_BYTES as usize).enumerate() {
        if is_zero(block) {
            continue;
        }
        let (start, len) = (index as u32 * HOLE_BYTES, block.len() as u32);
        match parts.last_mut() {
            Some((from, length)) if *from + *length == start => *length += len,
            _ => parts.push((start, len)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_and_zeros_make_the_range_again(
            blocks in proptest::collection::vec(prop_oneof![Just(0u8), 1u8..], 0..40), tail in 0usize..4096
        ) {
            let mut bytes: Vec<u8> = blocks.iter().flat_map(|b| vec![*b; HOLE_BYTES as usize]).collect();
            bytes.extend(std::iter::repeat_n(7u8, tail));
            let mut parts = Vec::new();
            find_parts(&bytes, &mut parts);
            let mut again = vec![0u8; bytes.len()];
            for &(start, len) in &parts {
                let part = start as usize..(start + len) as usize;
                again[part.clone()].copy_from_slice(&bytes[part]);
            }
            prop_assert_eq!(again, bytes);
            prop_assert!(parts.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "parts are apart");
        }
    }
}
