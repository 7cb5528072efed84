//! What a joiner remembers of the files that it installed. Nobody but this program has written to them, and it read every
//! byte before they got their names; so they need not have been left alone first.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use protocol::remembered::{self, FileRecord, FileState};
use serde::{Deserialize, Serialize};

use super::front::{Front, HEAD_BYTES, is_tablespace};
use super::learn::Learner;
use super::memory::Memory;
use super::trust::{is_good, state_of};
use super::waiting::Waiting;
use crate::disk::identity::{look, now};

/// Longer than any kernel's clock tick: a write that comes after this gives a file another time.
const TICK: Duration = Duration::from_millis(20);

/// Files that arrived or stay. There can be very many, so they wait for the end of the install on the disk. By default nothing is
/// collected and nothing remembered.
#[derive(Debug, Default)]
pub struct Arrived(Option<Waiting>);

#[derive(Serialize, Deserialize)]
struct One<'a> {
    path: &'a str,
    size: u64,
    /// The state of a file that stays as it is; of another one it is not known before it has its name.
    state: Option<FileState>,
    /// What a tablespace begins with, if that is known.
    #[serde(borrow)]
    front: Option<remembered::Front<'a>>,
    #[serde(borrow)]
    ranges: &'a [u8],
}

impl Arrived {
    /// Collects files, in a file without a name in this directory.
    pub fn waiting_in(directory: &Path) -> Arrived {
        let waiting = Waiting::in_directory(directory);
        Arrived(waiting.inspect_err(log_that_nothing_is_remembered).ok())
    }

    /// A file that will be at this path, with these ranges. `state`: it stays as it is. `front`: what it begins with; if that is
    /// not known of a tablespace, it is read later.
    pub fn add(
        &mut self,
        path: &Path,
        size: u64,
        state: Option<FileState>,
        front: Option<remembered::Front<'_>>,
        ranges: &[u8],
    ) {
        let (Some(waiting), Some(path)) = (&mut self.0, path.to_str().filter(|_| size > 0)) else { return };
        let Ok(encoded) = postcard::to_stdvec(&One { path, size, state, front, ranges }) else { return };
        if let Err(error) = waiting.push(&encoded) {
            log_that_nothing_is_remembered(&error);
            // What it takes on the disk is needed for the files themselves.
            self.0 = None;
        }
    }

    /// Called once all files have their names and before any server opens them. Returns the number of files that are remembered
    /// and their bytes; `None` if no list was written.
    ///
    /// # Errors
    /// From the disk.
    pub fn remember(self, memory: &Memory) -> Result<Option<(usize, u64)>> {
        let Some(waiting) = self.0 else { return Ok(None) };
        let mut newest = 0;
        waiting.each(|record| {
            let one = postcard::from_bytes::<One<'_>>(record).ok();
            newest = newest.max(one.and_then(|one| one.remember(memory)).unwrap_or(0));
        })?;
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
            // A server wrote it, whenever that was. It has ended, and a process ends after its writes.
            if !Learner::may_be_learned(path, &state, Some(memory.began()), false) {
                return None;
            }
        } else if !is_good(&state) {
            return None;
        }
        let read = match self.front {
            None if is_tablespace(path) => Some(front_of(path, self.size)?),
            _ => None,
        };
        let pages = read.as_ref().map(Front::encoded_pages).unwrap_or_default();
        let front = self.front.or_else(|| Some(read.as_ref()?.kept(&pages)));
        learner.add(&FileRecord { state, front, ranges: self.ranges }).then_some(newest)
    }
}

fn log_that_nothing_is_remembered(error: &std::io::Error) {
    tracing::info!(
        "the fingerprints of the installed files will not be remembered: they cannot be stored until the end of the \
         install: {error}"
    );
}

fn front_of(path: &Path, size: u64) -> Option<Front> {
    let mut head = vec![0; HEAD_BYTES.min(size as usize)];
    File::open(path).ok()?.read_exact_at(&mut head, 0).ok()?;
    Front::of(&head)
}

#[cfg(test)]
#[path = "arrived_tests.rs"]
mod tests;
