//! What a joiner remembers of the files that it installed. Nobody but this program has written to them, and it read every
//! byte before they got their names; so they need not have been left alone first.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use protocol::remembered::FileState;
use serde::{Deserialize, Serialize};

use super::front::{Front, HEAD_BYTES, is_tablespace};
use super::learn::Learner;
use super::memory::Memory;
use super::trust::{is_good, state_of};
use crate::disk::identity::{look, now};

/// Longer than any kernel's clock tick: a write that comes after this gives a file another time.
const TICK: Duration = Duration::from_millis(20);

/// Files that arrived. There can be very many, so they are kept encoded.
#[derive(Debug, Default)]
pub struct Arrived(Vec<u8>);

#[derive(Serialize, Deserialize)]
struct One<'a> {
    path: &'a str,
    size: u64,
    /// The state of a file that stays as it is; of another one it is not known before it has its name.
    state: Option<FileState>,
    #[serde(borrow)]
    ranges: &'a [u8],
}

impl Arrived {
    /// A file that will be at this path, with these ranges. `state`: it stays as it is.
    pub fn add(&mut self, path: &Path, size: u64, state: Option<FileState>, ranges: &[u8]) {
        let Some(path) = path.to_str().filter(|_| size > 0) else { return };
        if let Ok(encoded) = postcard::to_stdvec(&One { path, size, state, ranges }) {
            self.0.extend_from_slice(&encoded);
        }
    }

    /// Called once all files have their names and before any server opens them. Returns the number of files that are remembered
    /// and their bytes.
    ///
    /// # Errors
    /// From the disk.
    pub fn remember(self, memory: &Memory) -> Result<Option<(usize, u64)>> {
        let (mut rest, mut newest) = (self.0.as_slice(), 0);
        while let Ok((one, after)) = postcard::take_from_bytes::<One<'_>>(rest) {
            newest = newest.max(one.remember(memory).unwrap_or(0));
            rest = after;
        }
        // Whatever is written from here on has a later time.
        let wait = newest + TICK.as_nanos() as i128 - now();
        std::thread::sleep(Duration::from_nanos(wait.clamp(0, 1_000_000_000) as u64));
        if newest + TICK.as_nanos() as i128 > now() {
            tracing::info!(
                "the installed files have times in the future: their fingerprints are not remembered"
            );
            return Ok(None);
        }
        memory.save()
    }
}

impl One<'_> {
    /// Returns the newest of the file's times.
    fn remember(&self, memory: &Memory) -> Option<i128> {
        let path = Path::new(self.path);
        let seen = look(path).ok()??;
        let (state, learner) = (state_of(&seen), memory.learner());
        if state.size != self.size || !seen.is_file {
            return None;
        }
        let newest = i128::from(state.changed.max(state.modified));
        if let Some(before) = self.state {
            if before != state {
                return None;
            }
            if let Some(at) = memory.find(&seen) {
                memory.keep(at);
                return Some(newest);
            }
            // A server wrote it, whenever that was.
            if !Learner::may_be_learned(path, &state, memory.began(), false) {
                return None;
            }
        } else if !is_good(&state) {
            return None;
        }
        let front = if is_tablespace(path) { Some(front_of(path, self.size)?) } else { None };
        learner.add_file(state, front.as_ref(), self.ranges).then_some(newest)
    }
}

fn front_of(path: &Path, size: u64) -> Option<Front> {
    let mut head = vec![0; HEAD_BYTES.min(size as usize)];
    File::open(path).ok()?.read_exact_at(&mut head, 0).ok()?;
    Front::of(&head)
}

#[cfg(test)]
#[path = "arrived_tests.rs"]
mod tests;
