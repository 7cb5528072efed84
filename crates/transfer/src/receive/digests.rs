//! The digests of what was written to a staged file, until it is read back.
use protocol::fingerprint::{Fingerprint, ranges};
use protocol::limits::RANGE_BYTES;
use protocol::remembered::{RANGE_RECORD_BYTES, range_record};

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
    /// Its fingerprint, if it is the joiner's own range or was read back already. It is valid for as long as the digest is.
    pub fingerprint: Option<Fingerprint>,
    /// All of it has been written, and past the page cache.
    pub on_disk: bool,
    /// It was read back, and is what it must be.
    pub read_back: bool,
}

impl Digests {
    /// Records that these bytes were written. Without a digest nothing is known of them.
    pub fn note(&mut self, offset: u64, len: u32, digest: Option<u64>, fingerprint: Option<Fingerprint>) {
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
            self.0.insert(
                self.from(offset),
                (offset, Piece { len, digest, fingerprint, on_disk: false, read_back: false }),
            );
        }
    }

    /// The piece that begins at an offset.
    pub fn piece(&self, offset: u64) -> Option<Piece> {
        let (at, piece) = self.0.get(self.from(offset))?;
        (*at == offset).then_some(*piece)
    }

    /// Changes what is known of the piece that begins at an offset.
    pub fn change(&mut self, offset: u64, change: impl FnOnce(&mut Piece)) {
        let index = self.from(offset);
        if let Some((_, piece)) = self.0.get_mut(index).filter(|(at, _)| *at == offset) {
            change(piece);
        }
    }

    /// Called when all pieces were read back, and are what they must be.
    pub fn all_were_read_back(&mut self) {
        self.0.iter_mut().for_each(|(_, piece)| piece.read_back = true);
    }

    /// Called when the bytes were copied to another file.
    pub fn nothing_was_read_back(&mut self) {
        self.0.iter_mut().for_each(|(_, piece)| (piece.on_disk, piece.read_back) = (false, false));
    }

    /// `Some(Some(piece))` if one digest covers a file of this length, `Some(None)` if there is no digest, `None` if
    /// there are others.
    pub fn only_one(&self, size: u64) -> Option<Option<Piece>> {
        match self.0.as_slice() {
            [] => Some(None),
            [(0, piece)] if u64::from(piece.len) == size => Some(Some(*piece)),
            _ => None,
        }
    }

    /// What can be remembered of a file of this length, if that is known of every range. `read_back`: ranges and their
    /// fingerprints that were computed since, ascending.
    pub fn to_remember(&self, size: u64, read_back: &[(u32, Fingerprint)]) -> Option<Vec<u8>> {
        let count = ranges(size);
        let mut records = Vec::with_capacity(count as usize * RANGE_RECORD_BYTES);
        for range in 0..count {
            let offset = u64::from(range) * u64::from(RANGE_BYTES);
            let (at, piece) = self.0.get(self.from(offset))?;
            let whole = (size - offset).min(u64::from(RANGE_BYTES)) == u64::from(piece.len);
            let computed = read_back.binary_search_by_key(&range, |(range, _)| *range).ok();
            let computed = computed.and_then(|at| read_back.get(at)).map(|(_, fingerprint)| *fingerprint);
            let fingerprint = computed.or(piece.fingerprint).filter(|_| whole && *at == offset)?;
            records.extend(range_record(&fingerprint, piece.digest));
        }
        Some(records)
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
        digests.note(0, RANGE_BYTES, Some(1), None);
        digests.note(range, RANGE_BYTES, Some(2), None);
        digests.note(2 * range, 100, Some(3), None);
        assert_eq!(at(&digests, 3 * range), [(0, 1), (range, 2), (2 * range, 3)]);
        // The file became shorter, so its last piece is incomplete.
        assert_eq!(at(&digests, 2 * range - 1), [(0, 1)]);
        // A page of the second piece, and the whole first piece again.
        digests.note(range + 16384, 16384, Some(4), None);
        digests.note(0, RANGE_BYTES, Some(5), None);
        assert_eq!(at(&digests, 3 * range), [(0, 5), (range + 16384, 4), (2 * range, 3)]);
        // A write beside it leaves its digest valid; a short piece has no digest of its own.
        digests.note(range, 16384, None, None);
        digests.note(range + 32768, 100, Some(6), None);
        assert_eq!(at(&digests, 3 * range), [(0, 5), (range + 16384, 4), (2 * range, 3)]);
        digests.note(range + 32767, 1, None, None);
        assert_eq!(at(&digests, 3 * range), [(0, 5), (2 * range, 3)]);
    }

    #[test]
    fn a_file_is_remembered_if_every_range_is_known() {
        let range = u64::from(RANGE_BYTES);
        let mut digests = Digests::default();
        digests.note(0, RANGE_BYTES, Some(1), Some([1; 16]));
        digests.note(range, RANGE_BYTES, Some(2), None);
        digests.note(2 * range, 5000, Some(3), Some([3; 16]));
        let size = 2 * range + 5000;
        assert_eq!(digests.to_remember(size, &[]), None, "nothing is known of the second range");
        let expected =
            [range_record(&[1; 16], 1), range_record(&[7; 16], 2), range_record(&[3; 16], 3)].concat();
        assert_eq!(digests.to_remember(size, &[(1, [7; 16])]), Some(expected));
        assert_eq!(digests.to_remember(size + 1, &[(1, [7; 16])]), None, "it became longer");
        // A part of a range came again: what was known of it is void.
        digests.note(16384, 16384, Some(4), None);
        assert_eq!(digests.to_remember(size, &[(1, [7; 16])]), None);
    }
}
