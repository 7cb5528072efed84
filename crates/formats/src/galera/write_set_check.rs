//! Verifies a write-set that comes in pieces: one of 2 GiB needs no 2 GiB of memory.
use super::hash::Murmur128;
use super::write_set::{HEADER_LEN, Part, SetHead, WriteSetError, WriteSetHeader};

/// A record set's head with its checksum is not longer.
const SET_HEAD_MAX: usize = 64;

/// A write-set of which some bytes have come.
#[derive(Debug, Default)]
pub struct WriteSetCheck {
    header: Option<WriteSetHeader>,
    /// Parts that have not come, the next one last.
    parts: Vec<Part>,
    records: Option<Records>,
    /// Bytes that have come and were not looked at.
    held: Vec<u8>,
}

/// A record set whose head has come.
#[derive(Debug)]
struct Records {
    part: Part,
    /// Bytes that its checksum covers and that have not come.
    left: u64,
    hash: Murmur128,
    head: Vec<u8>,
    stored: Vec<u8>,
}

impl WriteSetCheck {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), WriteSetError> {
        self.held.extend_from_slice(bytes);
        while self.step(false)? {}
        Ok(())
    }

    /// The header of the write-set, of which everything has come.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn finish(mut self) -> Result<WriteSetHeader, WriteSetError> {
        while self.step(true)? {}
        if let Some(records) = self.records {
            return Err(WriteSetError::Short(records.part));
        }
        // Buffers are padded to a multiple of 8.
        match (self.header, self.held.len()) {
            (None, _) => Err(WriteSetError::Short(Part::Header)),
            (Some(header), 0..8) => Ok(header),
            (_, more) => Err(WriteSetError::Trailing(more)),
        }
    }

    /// Looks at what was held; false when more is needed first. `ended`: no more will come.
    fn step(&mut self, ended: bool) -> Result<bool, WriteSetError> {
        if let Some(records) = &mut self.records {
            let now = usize::try_from(records.left).unwrap_or(usize::MAX).min(self.held.len());
            records.hash.update(self.held.get(..now).unwrap_or_default());
            records.left = records.left.saturating_sub(now as u64);
            self.held.drain(..now);
            if records.left > 0 {
                return Ok(false);
            }
            return self.records.take().map_or(Ok(true), |records| records.verify().map(|()| true));
        }
        if self.header.is_none() {
            if self.held.len() < HEADER_LEN {
                return Ok(false);
            }
            let header = WriteSetHeader::parse(&self.held)?;
            self.parts = header.parts().collect();
            self.parts.reverse();
            self.header = Some(header);
            self.held.drain(..HEADER_LEN);
            return Ok(true);
        }
        let Some(&part) = self.parts.last() else {
            // Bytes follow the last part: fail before all of them have arrived.
            return if self.held.len() < 8 {
                Ok(false)
            } else {
                Err(WriteSetError::Trailing(self.held.len()))
            };
        };
        if self.held.len() < SET_HEAD_MAX && !ended {
            return Ok(false);
        }
        let short = WriteSetError::Short(part);
        let head = SetHead::parse(&self.held, part)?;
        let records_at = head.len.saturating_add(head.checksum_len);
        let padded = head.size.checked_next_multiple_of(8).ok_or(short)?;
        if head.size < records_at as u64 {
            return Err(short);
        }
        self.records = Some(Records {
            part,
            left: padded.saturating_sub(records_at as u64),
            hash: Murmur128::default(),
            head: self.held.get(..head.len).ok_or(short)?.to_vec(),
            stored: self.held.get(head.len..records_at).ok_or(short)?.to_vec(),
        });
        self.parts.pop();
        self.held.drain(..records_at);
        Ok(true)
    }
}

impl Records {
    fn verify(mut self) -> Result<(), WriteSetError> {
        self.hash.update(&self.head);
        let [low, high] = self.hash.finish();
        let computed = [low.to_le_bytes(), high.to_le_bytes()].concat();
        if computed.starts_with(&self.stored) { Ok(()) } else { Err(WriteSetError::Checksum(self.part)) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::write_set::WriteSet;
    use super::*;
    use proptest::prelude::*;

    const REAL: &[u8] = include_bytes!("../../tests/data/writeset-653465.bin");

    fn check(bytes: &[u8], piece: usize) -> Result<WriteSetHeader, WriteSetError> {
        let mut check = WriteSetCheck::default();
        bytes.chunks(piece.max(1)).try_for_each(|piece| check.take(piece))?;
        check.finish()
    }

    proptest! {
        #[test]
        fn a_write_set_in_pieces_has_the_verdict_of_the_whole(
            piece in 1usize..400,
            len in 0usize..=REAL.len() - 24,
            more in proptest::collection::vec(any::<u8>(), 0..20),
            flip in proptest::option::of((any::<prop::sample::Index>(), 0u8..8)),
            whole: bool,
        ) {
            let real = &REAL[24..];
            let mut bytes = real[..if whole { real.len() } else { len }].to_vec();
            bytes.extend(more);
            if let Some((at, bit)) = flip.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            let at_once = WriteSet::parse(&bytes).map(|set| set.header);
            prop_assert_eq!(check(&bytes, piece).ok(), at_once.ok());
        }
    }
}
