//! Samples a few blocks of the joiner's files, and checks whether a donor has them: an estimate of what need
//! not be sent.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use protocol::delta;
use protocol::fingerprint::{BLOCK_BYTES, FingerprintKey, fingerprint};
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::sample::{Decision, SAMPLE_BLOCKS, Sample, Sampled, Shared, blocks_of, spread};

use super::layout::Layout;
use super::managed::{Managed, ManagedFiles};
use crate::human::size;

/// Reads blocks from tables in the datadir. Unreadable blocks are skipped, because this is only an estimate.
pub(crate) fn of(datadir: &Path, old: &ManagedFiles, key: &FingerprintKey, more: bool) -> Sample {
    let tables: Vec<(PathBuf, u64)> = old
        .iter()
        .filter(|file| file.what == Managed::Table && file.path.extension().is_some_and(|e| e == "ibd"))
        .filter(|file| path_in(datadir, &file.path).is_some())
        .map(|file| (file.path, file.size))
        .collect();
    let sizes: Vec<u64> = tables.iter().map(|(_, size)| *size).collect();
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    let mut blocks = Vec::new();
    let bytes = sizes.iter().sum();
    for (file, block) in spread(&sizes, blocks_of(bytes)) {
        let (at, _) = &tables[file];
        let (Some(path), Ok(opened)) = (path_in(datadir, at), File::open(at)) else { continue };
        let read = opened.read_exact_at(&mut buffer, block * u64::from(BLOCK_BYTES));
        // Zeros are equal everywhere.
        if read.is_ok() && buffer.iter().any(|byte| *byte != 0) && blocks.len() < SAMPLE_BLOCKS {
            let path = path.to_owned();
            let (fingerprint, pieces) = (fingerprint(key, &buffer), delta::few_fingerprints(key, &buffer));
            blocks.push(Sampled { place: Place::Datadir, path, block, fingerprint, pieces });
        }
    }
    Sample { blocks, bytes, more }
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
