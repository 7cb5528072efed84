//! A few blocks of what a joiner has, and whether a donor has them: an estimate of what need not be sent.
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use protocol::delta;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::marks::{BLOCK_BYTES, MarkKey, mark};
use protocol::sample::{SAMPLE_BLOCKS, Sample, Sampled, Shared, blocks_of, spread};

use super::layout::Layout;
use super::managed::{Managed, ManagedFile};

/// Reads blocks from tables in the datadir. What does not read is left out: it is only an estimate.
pub(crate) fn of(datadir: &Path, old: &[ManagedFile], key: &MarkKey, more: bool) -> Sample {
    let tables: Vec<(PathBuf, &str, u64)> = old
        .iter()
        .filter(|file| file.what == Managed::Table && file.path.extension().is_some_and(|e| e == "ibd"))
        .filter_map(|file| {
            let path = file.path.strip_prefix(datadir).ok()?.to_str()?;
            Some((file.path.clone(), path, file.size))
        })
        .collect();
    let sizes: Vec<u64> = tables.iter().map(|(_, _, size)| *size).collect();
    let mut buffer = vec![0; BLOCK_BYTES as usize];
    let mut blocks = Vec::new();
    let bytes = sizes.iter().sum();
    for (file, block) in spread(&sizes, blocks_of(bytes)) {
        let (at, path, _) = &tables[file];
        let Ok(opened) = File::open(at) else { continue };
        let read = opened.read_exact_at(&mut buffer, block * u64::from(BLOCK_BYTES));
        // Zeros are the same everywhere.
        if read.is_ok() && buffer.iter().any(|byte| *byte != 0) && blocks.len() < SAMPLE_BLOCKS {
            let path = (*path).to_owned();
            let (mark, pieces) = (mark(key, &buffer), delta::few_marks(key, &buffer));
            blocks.push(Sampled { place: Place::Datadir, path, block, mark, pieces });
        }
    }
    Sample { blocks, bytes, more }
}

/// What of a sample the files of `layout` have. `parts`: of pages in two versions only what differs would be sent.
pub(crate) fn shared(layout: &Layout, sample: &Sample, key: &MarkKey, parts: bool) -> Shared {
    let mut shared = Shared::default();
    let (mut alike, mut telling) = (0, 0);
    for block in &sample.blocks {
        let Some(ours) = read_here(layout, block) else { continue };
        if mark(key, &ours) == block.mark {
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

fn read_here(layout: &Layout, sampled: &Sampled) -> Option<Vec<u8>> {
    // Checked like a file that would be written: a peer's path is not followed anywhere else.
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
