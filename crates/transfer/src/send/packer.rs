//! Compression with zstd where it pays: the cost of a byte is measured compressed and plain, including the wait for the
//! link, and the cheaper way is taken.
use std::time::Instant;

use anyhow::{Context, Result};
use protocol::chunk::Packing;

use crate::send::cost_model::CostModel;

/// The fastest level that still finds the repetition in InnoDB pages; higher ones cost more than a 1 GbE link.
const LEVEL: i32 = 1;

/// Compression must cost less than this part of sending plain. A busy joiner takes bytes slowly whatever the link could
/// carry, and decompressing makes it busier, which is not measured here.
const WORTH_IT: f64 = 0.7;

/// Fewer bytes than this are always compressed: it takes microseconds, and if little differs, they are all that is
/// sent.
const FEW: usize = 64 << 10;

/// The first bytes of each packer are compressed too, for the same reason: an example is the redo of a donor that is
/// hardly written to.
const FIRST: usize = 1 << 20;

/// The operator's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Measure and choose.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Compresses chunks, one at a time.
pub struct Packer {
    wish: Compression,
    compressor: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
    /// Bytes given to it so far.
    seen: usize,
    /// Whether plain or compressed is cheaper.
    way: CostModel,
}

/// A chunk on its way: how it is packed and when that began.
pub struct Packed {
    /// How it is packed.
    pub packing: Packing,
    tried: bool,
    raw_len: usize,
    began: Instant,
}

impl Packer {
    /// Nothing has been measured yet.
    pub fn new(wish: Compression) -> Result<Packer> {
        let compressor = zstd::bulk::Compressor::new(LEVEL).context("cannot set up zstd")?;
        Ok(Packer { wish, compressor, packed: Vec::new(), seen: 0, way: CostModel::new(WORTH_IT) })
    }

    /// Compresses `data` or leaves it plain; [`Packer::take`] returns the bytes to send.
    pub fn pack(&mut self, data: &[u8]) -> Result<Packed> {
        let began = Instant::now();
        let tried = self.choose(data.len());
        let mut packing = Packing::Plain;
        if tried && !data.is_empty() {
            self.packed.resize(zstd::zstd_safe::compress_bound(data.len()), 0);
            let len =
                self.compressor.compress_to_buffer(data, &mut self.packed[..]).context("zstd failed")?;
            self.packed.truncate(len);
            if len < data.len() {
                packing = Packing::Zstd;
            }
        }
        Ok(Packed { packing, tried, raw_len: data.len(), began })
    }

    /// The bytes to send.
    pub fn take(&mut self, packed: &Packed, data: Vec<u8>) -> Vec<u8> {
        if packed.packing == Packing::Zstd { std::mem::take(&mut self.packed) } else { data }
    }

    /// The send queue has taken the chunk: records what it cost.
    pub fn sent(&mut self, packed: &Packed) {
        self.way.learn(packed.tried, packed.raw_len, packed.began.elapsed());
    }

    fn choose(&mut self, bytes: usize) -> bool {
        self.seen = self.seen.saturating_add(bytes);
        match self.wish {
            Compression::Never => false,
            Compression::Always => true,
            Compression::Auto => bytes < FEW || self.seen < FIRST || self.way.choose_second(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_goes_plain() {
        let mut packer = Packer::new(Compression::Always).expect("zstd");
        let packed = packer.pack(&[1, 2, 3]).expect("pack");
        assert_eq!(packed.packing, Packing::Plain);
        let zeros = vec![5u8; 100_000];
        let packed = packer.pack(&zeros).expect("pack");
        assert_eq!(packed.packing, Packing::Zstd);
        let again = zstd::bulk::decompress(&packer.take(&packed, Vec::new()), zeros.len()).expect("unpack");
        assert_eq!(again, zeros);
    }

    #[test]
    fn few_bytes_are_packed_wherever_they_go() {
        let mut packer = Packer::new(Compression::Auto).expect("zstd");
        let mut packing = |bytes: usize| packer.pack(&vec![5; bytes]).expect("pack").packing;
        assert!((0..100).all(|_| packing(FEW - 1) == Packing::Zstd));
        assert!((0..100).any(|_| packing(FEW) == Packing::Plain));
        let mut packer = Packer::new(Compression::Auto).expect("zstd");
        let mut packing = |bytes: usize| packer.pack(&vec![5; bytes]).expect("pack").packing;
        assert!((0..FIRST / FEW - 1).all(|_| packing(FEW) == Packing::Zstd), "the first ones");
        assert!((0..100).any(|_| packing(FEW) == Packing::Plain));
        let mut never = Packer::new(Compression::Never).expect("zstd");
        assert_eq!(never.pack(&[5; 1000]).expect("pack").packing, Packing::Plain);
    }
}
