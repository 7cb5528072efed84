//! Rebuilds blocks of which only the differing pieces were sent, from the joiner's own version.
use protocol::chunk::Chunk;
use protocol::fingerprint::FingerprintKey;

use crate::receive::origin::Fingerprinted;

/// The results for the blocks of a chunk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rebuilt {
    /// Blocks that are as on the donor: start from the chunk's first byte, and length.
    pub parts: Vec<(u32, u32)>,
    /// Their bytes, one after the other.
    pub data: Vec<u8>,
    /// Blocks that could not be rebuilt: start and length of each.
    pub failed: Vec<(u32, u32)>,
}

impl Rebuilt {
    /// Rebuilds the blocks of a chunk from the joiner's version and the pieces that were sent. A block that cannot be
    /// read, or is no longer what was fingerprinted, fails like one for which a short fingerprint was wrong.
    pub fn of(
        chunk: &Chunk,
        fingerprinted: &Fingerprinted,
        key: &FingerprintKey,
        literals: &[u8],
    ) -> Rebuilt {
        let mut rebuilt = Rebuilt::default();
        let opened = fingerprinted.origin.open();
        let mut rest = literals;
        for delta in &chunk.deltas {
            let length = delta.literal_len().unwrap_or(0) as usize;
            let (now, later) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = later;
            let before = rebuilt.data.len();
            rebuilt.data.resize(before + delta.len as usize, 0);
            let block = &mut rebuilt.data[before..];
            let at = chunk.offset + u64::from(delta.start);
            let read =
                opened.as_ref().is_ok_and(|opened| opened.read(at, block, &fingerprinted.received).is_ok());
            if read && delta.rebuild(key, block, now) {
                rebuilt.parts.push((delta.start, delta.len));
            } else {
                rebuilt.data.truncate(before);
                rebuilt.failed.push((delta.start, delta.len));
            }
        }
        rebuilt
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::chunk::Packing;
    use protocol::delta::{diff, piece_fingerprints};
    use protocol::fingerprint::fingerprint;
    use protocol::inventory::FileId;

    use super::*;
    use crate::disk::identity::look;
    use crate::receive::origin::Origin;
    use crate::receive::reusable::Old;

    const KEY: FingerprintKey = [3; 32];

    #[test]
    fn a_block_that_is_another_one_by_now_is_asked_for_again() {
        let theirs: Vec<u8> = (0..49152u32).map(|n| (n / 3) as u8).collect();
        let mut ours = theirs.clone();
        for at in [10, 20_000, 40_000] {
            ours[at] ^= 1;
        }
        let (mut deltas, mut literals) = (Vec::new(), Vec::new());
        for (number, (ours, theirs)) in ours.chunks(16384).zip(theirs.chunks(16384)).enumerate() {
            let start = number as u32 * 16384;
            let whole = fingerprint(&KEY, theirs);
            deltas.extend(diff(&KEY, start, theirs, whole, &piece_fingerprints(&KEY, ours), &mut literals));
        }
        let (parts, same, packing) = (Vec::new(), Vec::new(), Packing::Plain);
        let chunk = Chunk {
            file: FileId(0),
            offset: 4096,
            len: 49152,
            parts,
            same,
            deltas,
            packing,
            digest: 0,
            whole: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.ibd");
        let write = |bytes: &[u8]| std::fs::write(&path, [&[0; 4096], bytes].concat()).unwrap();
        write(&ours);
        let of = |path: &std::path::Path| {
            let old = look(path).unwrap().map(|look| Old::new(path.to_owned(), look));
            let origin = Arc::new(Origin { old, ..Origin::default() });
            Rebuilt::of(&chunk, &Fingerprinted { origin, ..Fingerprinted::default() }, &KEY, &literals)
        };
        let rebuilt = of(&path);
        assert_eq!((rebuilt.failed.len(), rebuilt.data == theirs), (0, true));

        ours[20_100] ^= 1;
        write(&ours);
        let rebuilt = of(&path);
        assert_eq!((rebuilt.parts, rebuilt.failed), (vec![(0, 16384), (32768, 16384)], vec![(16384, 16384)]));
        assert_eq!(rebuilt.data, [&theirs[..16384], &theirs[32768..]].concat());

        write(&ours[..40_000]);
        assert_eq!(of(&path).failed, [(16384, 16384), (32768, 16384)]);
        let gone = of(&dir.path().join("gone"));
        assert_eq!((gone.failed.len(), gone.data.len()), (3, 0));
    }
}
