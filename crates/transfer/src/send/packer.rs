//! Compression with zstd, where it pays: `send::ways` measures that.
use anyhow::{Context, Result};
use protocol::chunk::Packing;

/// The fastest level that still finds the repetition in InnoDB pages; higher ones cost more than a 1 GbE link.
const LEVEL: i32 = 1;

/// Fewer bytes than this are always compressed: it takes microseconds, and if little differs, they are all that is
/// sent.
const FEW: usize = 64 << 10;

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
}

impl Packer {
    /// With the operator's choice.
    pub fn new(wish: Compression) -> Result<Packer> {
        let compressor = zstd::bulk::Compressor::new(LEVEL).context("cannot set up zstd")?;
        Ok(Packer { wish, compressor, packed: Vec::new() })
    }

    /// Whether so many bytes are compressed, if `pays` says that this is cheaper.
    pub fn packs(&self, len: usize, pays: bool) -> bool {
        let wanted = match self.wish {
            Compression::Never => false,
            Compression::Always => true,
            Compression::Auto => pays || len < FEW,
        };
        wanted && len > 0
    }

    /// Compresses `data`, or leaves it plain (see [`Packer::packs`]). Returns the bytes to send.
    pub fn pack(&mut self, data: Vec<u8>, pays: bool) -> Result<(Packing, Vec<u8>)> {
        if !self.packs(data.len(), pays) {
            return Ok((Packing::Plain, data));
        }
        self.packed.resize(zstd::zstd_safe::compress_bound(data.len()), 0);
        let len = self.compressor.compress_to_buffer(&data, &mut self.packed[..]).context("zstd failed")?;
        if len >= data.len() {
            return Ok((Packing::Plain, data));
        }
        self.packed.truncate(len);
        Ok((Packing::Zstd, std::mem::take(&mut self.packed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_goes_plain() {
        let mut packer = Packer::new(Compression::Always).expect("zstd");
        assert_eq!(packer.pack(vec![1, 2, 3], false).expect("pack"), (Packing::Plain, vec![1, 2, 3]));
        let fives = vec![5u8; 100_000];
        let (packing, sent) = packer.pack(fives.clone(), false).expect("pack");
        assert_eq!(packing, Packing::Zstd);
        assert_eq!(zstd::bulk::decompress(&sent, fives.len()).expect("unpack"), fives);
    }

    #[test]
    fn few_bytes_are_packed_wherever_they_go() {
        let mut packer = Packer::new(Compression::Auto).expect("zstd");
        let mut packing = |bytes: usize, pays| packer.pack(vec![5; bytes], pays).expect("pack").0;
        assert_eq!(packing(FEW - 1, false), Packing::Zstd);
        assert_eq!(packing(FEW, false), Packing::Plain);
        assert_eq!(packing(FEW, true), Packing::Zstd);
        let mut never = Packer::new(Compression::Never).expect("zstd");
        assert_eq!(never.pack(vec![5; 1000], true).expect("pack").0, Packing::Plain);
    }
}
