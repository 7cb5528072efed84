//! Samples a few blocks of the joiner's files, and checks whether a donor has them: an estimate of what need
//! not be sent. How long the joiner's disk takes for them is an estimate of its server's recovery, which reads pages at
//! such places too.
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::delta;
use protocol::fingerprint::{BLOCK_BYTES, FingerprintKey, fingerprint};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::sample::{Decision, SAMPLE_BLOCKS, Sample, Sampled, Shared, blocks_of, spread};

use super::layout::Layout;
use super::managed::{Managed, ManagedFiles};
use crate::disk::direct::{Buffer, Direct, is_refused};
use crate::human::size;
use crate::threads::{Thread, each_in_threads};

/// Reads in flight together: what a server's recovery gains by more depends on the disk (decision 0052).
const IN_FLIGHT: u32 = 8;
/// With fewer blocks than this, nothing is known of the disk.
const TIMED_MIN: usize = 32;

/// A sample, and how long the disk took for a block of it: `None` if the page cache was read, or too few blocks.
pub(crate) struct Taken {
    pub sample: Sample,
    pub page_time: Option<Duration>,
}

/// Reads blocks from tables in the datadir. Unreadable blocks are skipped, because this is only an estimate.
///
/// # Errors
/// A thread cannot be started, or panicked.
pub(crate) fn of(datadir: &Path, old: &ManagedFiles, key: &FingerprintKey, more: bool) -> Result<Taken> {
    let tables: Vec<(PathBuf, u64)> = old
        .iter()
        .filter(|file| file.what == Managed::Table && file.path.extension().is_some_and(|e| e == "ibd"))
        .filter(|file| path_in(datadir, &file.path).is_some())
        .map(|file| (file.path, file.size))
        .collect();
    let sizes: Vec<u64> = tables.iter().map(|(_, size)| *size).collect();
    let bytes = sizes.iter().sum();
    let wanted = spread(&sizes, blocks_of(bytes)).into_iter();
    let wanted: Vec<_> = wanted.take(SAMPLE_BLOCKS).map(|(file, block)| (&*tables[file].0, block)).collect();
    let read = |(at, block): (&Path, u64)| {
        let (Some(path), Ok((mut buffer, took))) = (path_in(datadir, at), read_block(at, block)) else {
            return Ok(None);
        };
        let content = buffer.first(BLOCK_BYTES as usize);
        // Zeros are equal everywhere, and a hole takes no time.
        if content.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let (fingerprint, pieces) = (fingerprint(key, content), delta::few_fingerprints(key, content));
        let sampled = Sampled { place: Place::Datadir, path: path.to_owned(), block, fingerprint, pieces };
        Ok(Some((sampled, took)))
    };
    let read = each_in_threads(Thread::Sampler, IN_FLIGHT as usize, wanted, &read)?;
    let (blocks, times): (Vec<_>, Vec<_>) = read.into_iter().flatten().unzip();
    let page_time = time_of_one(times.into_iter().flatten().collect());
    Ok(Taken { sample: Sample { blocks, bytes, more }, page_time })
}

/// Reads a block past the page cache, where the filesystem can, and measures how long that takes.
fn read_block(path: &Path, block: u64) -> io::Result<(Buffer, Option<Duration>)> {
    let (mut buffer, len, at) =
        (Buffer::default(), BLOCK_BYTES as usize, block.saturating_mul(u64::from(BLOCK_BYTES)));
    let file = Direct::open_untried(path, true)?;
    let began = Instant::now();
    match file.read_exact(&mut buffer, len, at) {
        Ok(()) => Ok((buffer, file.is_direct().then(|| began.elapsed()))),
        Err(e) if is_refused(&e) => {
            Direct::open_untried(path, false)?.read_exact(&mut buffer, len, at)?;
            Ok((buffer, None))
        }
        Err(e) => Err(e),
    }
}

/// The time that the disk needs for each of many reads, if these were always in flight together. The middle one counts: one
/// that waited for a processor says nothing of the disk.
fn time_of_one(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).filter(|_| times.len() >= TIMED_MIN)?;
    Some(*middle / IN_FLIGHT)
}

fn path_in<'p>(datadir: &Path, path: &'p Path) -> Option<&'p str> {
    path.strip_prefix(datadir).ok()?.to_str()
}

/// Returns how much of a sample the files of `layout` have. `parts`: only the differing parts of pages would
/// be sent.
pub(crate) fn shared(layout: &Layout, sample: &Sample, key: &FingerprintKey, parts: bool) -> Shared {
    let mut shared = Shared::default();
    let (mut alike, mut telling) = (0, 0);
    for block in &sample.blocks {
        let Some(ours) = read_here(layout, block) else { continue };
        if fingerprint(key, &ours) == block.fingerprint {
            shared.same += 1;
        } else if parts {
            let (same, of) = delta::alike(key, &ours, &block.pieces);
            alike += same;
            telling += of;
        }
    }
    if telling > 0 {
        shared.alike = alike as f64 / telling as f64;
    }
    shared
}

/// An estimate is a known range if its bounds differ by at most one part in this many.
const NARROW: u64 = 4;

/// Describes how much of `all` bytes will be sent, as far as a sample shows: nothing is known about the files
/// that were not sampled, so all of them, or none, may be equal.
pub(crate) fn in_words(decision: Decision, shared: Shared, blocks: usize, all: u64) -> String {
    let Decision::Incremental { about, in_parts, at_least } = decision else {
        return format!("{} to send: none of {blocks} sampled blocks matches", size(all));
    };
    let least = at_least.min(about);
    let much = match about - least > about / NARROW {
        _ if least == 0 => format!("at most {} of {}", size(about), size(all)),
        true => format!("{} to {} of {}", size(least), size(about), size(all)),
        false => format!("about {} of {}", size(about), size(all)),
    };
    let parts = match in_parts < about {
        true => format!(", at most {} where parts of pages are sent", size(in_parts)),
        false => String::new(),
    };
    let why = match shared.same {
        _ if blocks == 0 => "there is no table to sample".to_owned(),
        same if same == blocks => format!("all {blocks} sampled blocks match"),
        same => format!("{same} of {blocks} sampled blocks match"),
    };
    format!("{much} to send{parts} ({why})")
}

fn read_here(layout: &Layout, sampled: &Sampled) -> Option<Vec<u8>> {
    // The path is checked like that of a file to be written: a peer's path is never followed unchecked.
    let entry = FileEntry {
        id: FileId(0),
        place: sampled.place,
        path: sampled.path.clone(),
        size: 0,
        allocated: 0,
        role: FileRole::Table,
    };
    let path = layout.target_of(&entry).ok()?;
    let at = sampled.block.checked_mul(u64::from(BLOCK_BYTES))?;
    let mut bytes = vec![0; BLOCK_BYTES as usize];
    File::open(path).and_then(|file| file.read_exact_at(&mut bytes, at)).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_known_by_the_middle_of_enough_times() {
        let times = |number| (1..=number).map(Duration::from_millis).collect();
        assert_eq!(time_of_one(times(31)), None);
        assert_eq!(time_of_one(times(63)), Some(Duration::from_millis(4)));
        assert_eq!(time_of_one(Vec::new()), None);
    }

    const MIB: u64 = 1 << 20;

    fn said(about: u64, in_parts: u64, at_least: u64, same: usize) -> String {
        let decision =
            Decision::Incremental { about: about * MIB, in_parts: in_parts * MIB, at_least: at_least * MIB };
        in_words(decision, Shared { same, alike: 0.0 }, 20, 100 * MIB)
    }

    #[test]
    fn an_estimate_is_no_nearer_than_its_sample() {
        // Little of the data is tables, and all of these match: the rest is not known.
        assert_eq!(
            said(98, 98, 0, 20),
            "at most 98.0 MiB of 100.0 MiB to send (all 20 sampled blocks match)"
        );
        assert_eq!(
            said(60, 60, 30, 12),
            "30.0 MiB to 60.0 MiB of 100.0 MiB to send (12 of 20 sampled blocks match)"
        );
        assert_eq!(
            said(50, 20, 40, 10),
            "about 50.0 MiB of 100.0 MiB to send, at most 20.0 MiB where parts of pages are sent (10 of 20 sampled blocks \
             match)"
        );
        let full = in_words(Decision::Full, Shared::default(), 40, 3 * MIB);
        assert_eq!(full, "3.0 MiB to send: none of 40 sampled blocks matches");
    }
}
