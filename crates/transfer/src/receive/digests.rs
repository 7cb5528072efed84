//! The digests of what was written to a staged file, until it is read back.
use protocol::limits::RANGE_BYTES;

/// Digests of shorter pieces are not stored, unless the piece begins a range. Donors send few such pieces, and their
/// digests would take more memory than they have bytes.
const PIECE_MIN: u32 = 4 << 10;

/// The digests of a file, in ascending order. They take some thirty bytes for each piece, which is 1 MiB as a rule.
#[derive(Debug, Default)]
pub(super) struct Digests(Vec<(u64, Piece)>);

/// What was written at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub len: u32,
    pub digest: u64,
}

impl Digests {
    /// Records that these bytes were written. Without a digest nothing is known of them.
    pub fn note(&mut self, offset: u64, len: u32, digest: Option<u64>) {
        let end = offset + u64::from(len);
        // A piece never crosses a range.
        let before = offset.saturating_sub(u64::from(RANGE_BYTES));
        let near = self.from(before)..self.from(end);
        let mut at = near.start;
        for _ in near {
            let (start, piece) = self.0[at];
            if start + u64::from(piece.len) > offset {
                self.0.remove(at);
            } else {
                at += 1;
            }
        }
        let worth = len >= PIECE_MIN || offset.is_multiple_of(u64::from(RANGE_BYTES));
        if let Some(digest) = digest.filter(|_| worth) {
            if self.0.is_empty() {
                // Most files have only one piece.
                self.0.reserve_exact(1);
            }
            self.0.insert(self.from(offset), (offset, Piece { len, digest }));
        }
    }

    /// `Some(Some(digest))` if one digest covers a file of this length, `Some(None)` if there is no digest, `None` if
    /// there are others.
    pub fn only_one(&self, size: u64) -> Option<Option<u64>> {
        match self.0.as_slice() {
            [] => Some(None),
            [(0, piece)] if u64::from(piece.len) == size => Some(Some(piece.digest)),
            _ => None,
        }
    }

    /// Index of the first digest that begins at `offset` or later.
    fn from(&self, offset: u64) -> usize {
        self.0.partition_point(|(at, _)| *at < offset)
    }

    /// The digests that lie within a file of this length.
    pub fn of_length(&self, size: u64) -> Vec<(u64, Piece)> {
        let within = |(at, piece): &(u64, Piece)| at + u64::from(piece.len) <= size;
        self.0.iter().copied().filter(within).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_counts_until_something_of_its_piece_comes_again() {
        let range = u64::from(RANGE_BYTES);
        let at = |digests: &Digests, size| {
            digests.of_length(size).iter().map(|(at, piece)| (*at, piece.digest)).collect::<Vec<_>>()
        };
        let mut digests = Digests::default();
        digests.note(0, RANGE_BYTES, Some(1));
        digests.note(range, RANGE_BYTES, Some(2));
        digests.note(2 * range, 100, Some(3));
        assert_eq!(at(&digests, 3 * range), [(0, 1), (range, 2), (2 * range, 3)]);
        // The file became shorter, so its last piece is incomplete.
        assert_eq!(at(&digests, 2 * range - 1), [(0, 1)]);
        // A page of the second piece, and the whole first piece again.
        digests.note(range + 16384, 16384, Some(4));
        digests.note(0, RANGE_BYTES, Some(5));
        assert_eq!(at(&digests, 3 * range), [(0, 5), (range + 16384, 4), (2 * range, 3)]);
        // A write beside it leaves its digest valid; a short piece has no digest of its own.
        digests.note(range, 16384, None);
        digests.note(range + 32768, 100, Some(6));
        assert_eq!(at(&digests, 3 * range), [(0, 5), (range + 16384, 4), (2 * range, 3)]);
        digests.note(range + 32767, 1, None);
        assert_eq!(at(&digests, 3 * range), [(0, 5), (2 * range, 3)]);
    }
}
