//! The hashes that Galera puts on write-sets and configuration changes.
//!
//! The provider (26.4.23, galerautils) chooses by length among three published, public-domain functions:
//! FNV-1a with a final mix, MurmurHash3 and SpookyHash 1 without its short form. They are implemented here
//! from their published descriptions, and tested against values that the provider itself computed
//! (`tests/data/galera-hash-vectors.txt`).

use crate::bytes::{array, le32, le64};

/// Below this length Galera's 64-bit hash is FNV.
const FNV_BELOW: usize = 16;
/// Below this length Galera's 32-bit hash is the 32-bit Murmur.
const MURMUR32_BELOW: usize = 32;
/// From this length on it is Spooky.
const SPOOKY_FROM: usize = 512;

/// 128 bits of any input, as two little-endian words, low one first.
pub fn fast128(bytes: &[u8]) -> [u64; 2] {
    if bytes.len() < SPOOKY_FROM { murmur128(&[bytes]) } else { spooky128(bytes) }
}

/// 64 bits of any input.
pub fn fast64(bytes: &[u8]) -> u64 {
    if bytes.len() < FNV_BELOW {
        return fnv64_mixed(bytes);
    }
    let [low, _] = fast128(bytes);
    low
}

/// 32 bits of any input.
pub fn fast32(bytes: &[u8]) -> u32 {
    if bytes.len() < MURMUR32_BELOW { murmur32(bytes) } else { fast64(bytes) as u32 }
}

fn fnv64_mixed(bytes: &[u8]) -> u64 {
    let step = |h: u64, &b: &u8| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    let hash = hash.wrapping_mul(hash.rotate_left(56));
    hash ^ hash.rotate_left(43)
}

/// MurmurHash3, x86, 32 bits, with Galera's seed.
pub fn murmur32(bytes: &[u8]) -> u32 {
    let mix = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut h: u32 = 0x811c_9dc5;
    for block in blocks {
        h ^= mix(u32::from_le_bytes(*block));
        h = h.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    h ^= mix(le32(&padded::<4>(tail), 0).unwrap_or_default());
    h ^= bytes.len() as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// MurmurHash3, x64, 128 bits, with Galera's seed, of the concatenation of `parts`.
pub fn murmur128(parts: &[&[u8]]) -> [u64; 2] {
    let mut state = Murmur128::default();
    parts.iter().for_each(|part| state.update(part));
    state.finish()
}

/// The same, of input that comes in pieces.
#[derive(Debug)]
pub(super) struct Murmur128 {
    h: [u64; 2],
    held: [u8; 16],
    len: u64,
}

impl Default for Murmur128 {
    fn default() -> Self {
        Self { h: [0x6c62_272e_07bb_0142, 0x62b8_2175_6295_c58d], held: [0; 16], len: 0 }
    }
}

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

impl Murmur128 {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        let held = (self.len % 16) as usize;
        self.len = self.len.wrapping_add(bytes.len() as u64);
        if held > 0 {
            let (head, rest) = bytes.split_at(bytes.len().min(16 - held));
            crate::bytes::put(&mut self.held, held, head);
            if held + head.len() < 16 {
                return;
            }
            let block = self.held;
            self.block(&block);
            bytes = rest;
        }
        let (blocks, tail) = bytes.as_chunks::<16>();
        blocks.iter().for_each(|block| self.block(block));
        self.held = padded(tail);
    }

    fn words(block: &[u8; 16]) -> [u64; 2] {
        [le64(block, 0).unwrap_or_default(), le64(block, 8).unwrap_or_default()]
    }

    fn block(&mut self, block: &[u8; 16]) {
        let [k1, k2] = Self::words(block);
        let [mut h1, mut h2] = self.h;
        h1 ^= k1.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= k2.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
        self.h = [h1, h2];
    }

    pub(super) fn finish(self) -> [u64; 2] {
        let [mut h1, mut h2] = self.h;
        if !self.len.is_multiple_of(16) {
            // Bytes of an earlier block may follow the tail in the buffer: only the tail counts.
            let tail = self.held.get(..(self.len % 16) as usize).unwrap_or_default();
            let [k1, k2] = Self::words(&padded(tail));
            h2 ^= k2.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
            h1 ^= k1.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
        }
        h1 ^= self.len;
        h2 ^= self.len;
        h1 = h1.wrapping_add(h2);
        h2 = h2.wrapping_add(h1);
        (h1, h2) = (fmix64(h1), fmix64(h2));
        h1 = h1.wrapping_add(h2);
        h2 = h2.wrapping_add(h1);
        [h1, h2]
    }
}

fn fmix64(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

/// `bytes` (at most `N` of them) followed by zeros.
fn padded<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    crate::bytes::put(&mut out, 0, bytes);
    out
}

const SPOOKY_BLOCK: usize = 96;

/// SpookyHash 1, long form, with Galera's seed.
fn spooky128(bytes: &[u8]) -> [u64; 2] {
    const MARK: u64 = 0xdead_beef_dead_beef;
    let mut s = [0, 0, MARK, 0, 0, MARK, 0, 0, MARK, 0, 0, MARK];
    let (blocks, tail) = bytes.as_chunks::<SPOOKY_BLOCK>();
    blocks.iter().for_each(|block| spooky_mix(&mut s, block));
    let mut last = padded::<SPOOKY_BLOCK>(tail);
    if let Some(end) = last.last_mut() {
        *end = tail.len() as u8;
    }
    spooky_mix(&mut s, &last);
    (0..3).for_each(|_| spooky_end(&mut s));
    let [low, high, ..] = s;
    [low, high]
}

/// Position `i` of twelve, counted round.
fn at(s: &mut [u64; 12], i: usize) -> &mut u64 {
    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the length")]
    &mut s[i % 12]
}

fn spooky_mix(s: &mut [u64; 12], block: &[u8; SPOOKY_BLOCK]) {
    const ROTATIONS: [u32; 12] = [11, 32, 43, 31, 17, 28, 39, 57, 55, 54, 22, 46];
    for (i, rotation) in ROTATIONS.into_iter().enumerate() {
        let data = array(block, i * 8).map(u64::from_le_bytes).unwrap_or_default();
        *at(s, i) = at(s, i).wrapping_add(data);
        *at(s, i + 2) ^= *at(s, i + 10);
        *at(s, i + 11) ^= *at(s, i);
        *at(s, i) = at(s, i).rotate_left(rotation);
        *at(s, i + 11) = at(s, i + 11).wrapping_add(*at(s, i + 1));
    }
}

fn spooky_end(s: &mut [u64; 12]) {
    const ROTATIONS: [u32; 12] = [44, 15, 34, 21, 38, 33, 10, 13, 38, 53, 42, 54];
    for (i, rotation) in ROTATIONS.into_iter().enumerate() {
        *at(s, i + 11) = at(s, i + 11).wrapping_add(*at(s, i + 1));
        *at(s, i + 2) ^= *at(s, i + 11);
        *at(s, i + 1) = at(s, i + 1).rotate_left(rotation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Input of the stored vectors: 0, 1, ..., 255, 0, 1, ...
    fn counting(n: usize) -> Vec<u8> {
        (0..n).map(|i| i as u8).collect()
    }

    #[test]
    fn equal_to_the_providers_own_values() {
        let text = include_str!("../../tests/data/galera-hash-vectors.txt");
        let lines = text.lines().filter_map(|line| line.strip_prefix("n="));
        let mut seen = 0;
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [n, _, mmh32, _, mmh128, _, f64, _, f32] = words[..] else { panic!("{line}") };
            let bytes = counting(n.parse().unwrap());
            assert_eq!(format!("{:08x}", murmur32(&bytes)), mmh32, "{line}");
            let [low, high] = murmur128(&[&bytes]);
            assert_eq!(format!("{low:016x}{high:016x}"), mmh128, "{line}");
            assert_eq!(format!("{:016x}", fast64(&bytes)), f64, "{line}");
            assert_eq!(format!("{:08x}", fast32(&bytes)), f32, "{line}");
            seen += 1;
        }
        assert_eq!(seen, 17);
    }

    proptest! {
        #[test]
        fn parts_hash_as_their_concatenation(bytes in proptest::collection::vec(any::<u8>(), 0..200),
                                             cuts in proptest::collection::vec(0usize..200, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let mut from = 0;
            let parts: Vec<&[u8]> =
                cuts.iter().map(|&to| { let part = &bytes[from..to]; from = to; part }).collect();
            prop_assert_eq!(murmur128(&parts), murmur128(&[&bytes]));
        }
    }
}
