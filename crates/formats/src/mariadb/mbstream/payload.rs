//! The payload of one chunk: bytes of a file, and the holes between them.
use std::collections::VecDeque;

use crc32fast::Hasher;

use crate::bytes::{le32, le64};

/// Length, offset, checksum.
pub(super) const NUMBERS_BYTES: usize = 20;
pub(super) const HOLE_BYTES: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Payload {
    /// Bytes that are missing.
    left: u64,
    /// Where in the file the next byte belongs.
    offset: u64,
    checksum: u32,
    hasher: Hasher,
    /// How many bytes of the file to skip and how many to write then, the next hole first.
    holes: VecDeque<(u32, u32)>,
}

/// What follows in a payload.
pub(super) enum Part<'a> {
    Bytes {
        /// Where in the file they begin.
        offset: u64,
        bytes: &'a [u8],
    },
    /// Nothing: it is complete.
    End {
        /// Where in the file it ends, holes included.
        end: u64,
        /// Its checksum is right.
        intact: bool,
    },
}

impl Payload {
    /// As the numbers in a chunk's header describe it.
    ///
    /// # Errors
    /// No file is as long.
    pub(super) fn described(numbers: &[u8]) -> Result<Payload, &'static str> {
        let payload = Payload {
            left: le64(numbers, 0).unwrap_or_default(),
            offset: le64(numbers, 8).unwrap_or_default(),
            checksum: le32(numbers, 16).unwrap_or_default(),
            ..Payload::default()
        };
        let end = payload.offset.checked_add(payload.left);
        match end.is_some_and(|end| end <= i64::MAX as u64) {
            true => Ok(payload),
            false => Err("it ends past the end of any file"),
        }
    }

    /// Adds a hole, as it stands in the stream.
    pub(super) fn add_hole(&mut self, hole: &[u8]) {
        self.hasher.update(hole);
        let (skip, len) = (le32(hole, 0).unwrap_or_default(), le32(hole, 4).unwrap_or_default());
        self.holes.push_back((skip, len));
    }

    /// The payload must be as long as what is written between the holes.
    pub(super) fn check_holes(&self) -> Result<(), &'static str> {
        let (mut written, mut end) = (0u64, self.offset);
        for (skip, len) in &self.holes {
            written += u64::from(*len);
            end = end.saturating_add(u64::from(*skip) + u64::from(*len));
        }
        if written != self.left {
            return Err("its holes and its payload have different lengths");
        }
        if end > i64::MAX as u64 {
            return Err("it ends past the end of any file");
        }
        Ok(())
    }

    /// Takes bytes from the front of `input`; `None` if it needs more of them.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Part<'a>> {
        // The holes before the next byte, also those at the end.
        while let Some((skip, len)) = self.holes.front_mut() {
            self.offset += u64::from(std::mem::take(skip));
            if *len > 0 {
                break;
            }
            self.holes.pop_front();
        }
        if self.left == 0 {
            let intact = std::mem::take(&mut self.hasher).finalize() == self.checksum;
            return Some(Part::End { end: self.offset, intact });
        }
        let together = self.holes.front().map_or(self.left, |(_, len)| u64::from(*len).min(self.left));
        let now = input.len().min(usize::try_from(together).unwrap_or(usize::MAX));
        if now == 0 {
            return None;
        }
        let (bytes, rest) = input.split_at(now);
        *input = rest;
        let offset = self.offset;
        (self.left, self.offset) = (self.left - now as u64, offset + now as u64);
        if let Some((_, len)) = self.holes.front_mut() {
            *len -= now as u32;
        }
        self.hasher.update(bytes);
        Some(Part::Bytes { offset, bytes })
    }
}
