//! Whether there is room for what is to be made.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Size;

/// Of an empty table, with pages of 4 KiB and what the filesystem adds.
const TABLE_BYTES: u64 = 40_000;
/// A server's logs and system tablespaces, on both nodes.
const BESIDE: u64 = 3_000_000_000;

/// About what the donor's files of this size take.
pub fn bytes(size: Size) -> u64 {
    match size {
        Size::Tables(tables) => u64::from(tables) * TABLE_BYTES,
        // Pages are never full.
        Size::Megabytes(megabytes) => megabytes * 1_150_000,
    }
}

/// What the nodes take at most: donor and joiner have the largest of one kind.
fn needed(kinds: &[&[Size]]) -> u64 {
    let largest = kinds.iter().copied().flatten().map(|size| bytes(*size)).max().unwrap_or(0);
    2 * largest + BESIDE
}

/// Of templates, one for each size.
fn kept(kinds: &[&[Size]]) -> u64 {
    kinds.iter().copied().flatten().map(|size| bytes(*size)).sum()
}

/// Fails, before anything is made, if the disk has not that much room.
pub fn ensure_room(kinds: &[&[Size]], template: Option<&Path>) -> Result<()> {
    let nodes = tempfile::env::temp_dir();
    let Some(template) = template else { return has(&nodes, needed(kinds)) };
    std::fs::create_dir_all(template).with_context(|| template.display().to_string())?;
    if nodes.metadata()?.dev() == template.metadata()?.dev() {
        return has(&nodes, needed(kinds) + kept(kinds));
    }
    has(&nodes, needed(kinds))?;
    has(template, kept(kinds))
}

fn has(dir: &Path, needed: u64) -> Result<()> {
    let filesystem = rustix::fs::statvfs(dir).with_context(|| dir.display().to_string())?;
    let free = filesystem.f_bavail * filesystem.f_frsize;
    ensure!(
        free >= needed,
        "{} has {:.1} GB free, and this needs about {:.1} GB (hint: name fewer tables or megabytes, or set TMPDIR to a directory \
         on a larger disk)",
        dir.display(),
        free as f64 / 1e9,
        needed as f64 / 1e9
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_nodes_have_the_largest_and_templates_every_one() {
        let tables = [Size::Tables(10), Size::Tables(100_000)];
        let megabytes = [Size::Megabytes(1000), Size::Megabytes(20_000)];
        assert_eq!(needed(&[&tables, &[]]), 2 * 4_000_000_000 + BESIDE);
        assert_eq!(needed(&[&tables, &megabytes]), 2 * 23_000_000_000 + BESIDE);
        assert_eq!(kept(&[&tables[1..], &megabytes]), 4_000_000_000 + 24_150_000_000);
    }

    #[test]
    fn what_has_no_room_is_refused_with_numbers() {
        let refused = has(&tempfile::env::temp_dir(), u64::MAX).unwrap_err().to_string();
        assert!(refused.contains("GB free") && refused.contains("TMPDIR"), "{refused}");
        has(&tempfile::env::temp_dir(), 1).unwrap();
    }
}
