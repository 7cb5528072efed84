//! zstd where it pays: what a byte costs packed and plain is measured, the wait for the link included, and the cheaper
//! way is taken.
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use protocol::message::Packing;

/// The fastest level that still finds the repetition in InnoDB pages; higher ones cost more than a 1 GbE link.
const LEVEL: i32 = 1;
/// One chunk in this many goes the other way, so that the choice follows the link and the data.
const PROBE_EVERY: u32 = 32;
/// Weight of the newest measurement, one part in this many.
const SMOOTHING: f64 = 8.0;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Measure and choose.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Packs chunks, one at a time.
pub struct Packer {
    wish: Compression,
    compressor: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
    /// Nanoseconds a byte of data, plain and packed; `None` until measured.
    cost: [Option<f64>; 2],
    chunks: u32,
}

/// A chunk on its way: how it is packed and what it has cost so far.
pub struct Packed {
    /// How.
    pub packing: Packing,
    tried: usize,
    raw_len: usize,
    began: Instant,
}

impl Packer {
    /// Nothing measured yet.
    pub fn new(wish: Compression) -> Result<Packer> {
        let compressor = zstd::bulk::Compressor::new(LEVEL).context("cannot set up zstd")?;
        Ok(Packer { wish, compressor, packed: Vec::new(), cost: [None, None], chunks: 0 })
    }

    /// Packs `data`, or leaves it: the bytes to send are what [`Packer::take`] gives.
    pub fn pack(&mut self, data: &[u8]) -> Result<Packed> {
        let began = Instant::now();
        let tried = usize::from(self.choose());
        let mut packing = Packing::Plain;
        if tried == 1 && !data.is_empty() {
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

    /// What goes over the wire.
    pub fn take(&mut self, packed: &Packed, data: Vec<u8>) -> Vec<u8> {
        if packed.packing == Packing::Zstd { std::mem::take(&mut self.packed) } else { data }
    }

    /// The chunk was taken by the queue to the network: learns what it cost.
    pub fn sent(&mut self, packed: &Packed) {
        self.learn(packed.tried, packed.raw_len, packed.began.elapsed());
    }

    fn learn(&mut self, tried: usize, raw_len: usize, took: Duration) {
        // Small files say more about latency than about bytes.
        if raw_len < 65536 {
            return;
        }
        let cost = took.as_nanos() as f64 / raw_len as f64;
        if let Some(known) = self.cost.get_mut(tried) {
            *known = Some(known.map_or(cost, |old| old + (cost - old) / SMOOTHING));
        }
    }

    fn choose(&mut self) -> bool {
        self.chunks = self.chunks.wrapping_add(1);
        match (self.wish, self.cost) {
            (Compression::Never, _) => false,
            (Compression::Always, _) => true,
            (Compression::Auto, [Some(plain), Some(packed)]) => {
                (packed < plain) != self.chunks.is_multiple_of(PROBE_EVERY)
            }
            // The first few of each kind only fill the socket's buffers, so both are tried by turns.
            (Compression::Auto, _) => self.chunks.is_multiple_of(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(packer: &mut Packer, n: u32) -> usize {
        (0..n).filter(|_| packer.choose()).count()
    }

    #[test]
    fn takes_the_cheaper_way_and_goes_on_probing_the_other() {
        let mut packer = Packer::new(Compression::Auto).expect("zstd");
        packer.learn(0, 1 << 20, Duration::from_millis(10));
        packer.learn(1, 1 << 20, Duration::from_millis(3));
        let packed = choices(&mut packer, 320);
        assert_eq!(packed, 310, "a slow link: packed but for one probe in 32");
        for _ in 0..100 {
            packer.learn(0, 1 << 20, Duration::from_millis(1));
        }
        assert_eq!(choices(&mut packer, 320), 10, "the link became fast");
    }

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
}
