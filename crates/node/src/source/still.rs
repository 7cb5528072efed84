//! Copies a donor's files while its server holds them still.
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use protocol::inventory::{FileEntry, FileRole};

use super::native::copy_files::CopyFiles;
use super::native::small::{self, Small};
use crate::datadir::scan::ScannedFile;
use crate::disk::identity::{Look, look};
use crate::failure::{Failure, Kind};

/// Reads all files once, pages verified, and hands them to the sink. When this returns, none of them is needed any more.
///
/// # Errors
/// A file is not as it was listed, from the system, the sink, cancelled, or damaged pages that are not allowed.
pub fn copy(files: &[ScannedFile], copy: &CopyFiles<'_>) -> Result<()> {
    let (mut data_files, mut others) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|f| !matches!(f.entry.role, FileRole::Link { .. })) {
        let here = look(&file.path)?.with_context(|| format!("{} is gone", file.path.display()))?;
        match has_pages(&file.entry) {
            true => data_files.push(copy.wanted_at(file.entry.clone(), file.path.clone(), here.identity)?),
            false => others.push((file, here)),
        }
    }
    let copied: HashMap<_, _> =
        copy.data_files(&data_files)?.into_iter().map(|copied| (copied.id, copied.bytes)).collect();
    for file in &data_files {
        complete(&file.entry, &file.path, copied.get(&file.entry.id).copied().flatten())?;
    }
    copy_others(&others, copy)
}

fn has_pages(entry: &FileEntry) -> bool {
    match entry.role {
        FileRole::SystemTablespace { .. } | FileRole::Undo => true,
        _ => entry.path.ends_with(".ibd"),
    }
}

/// There can be very many: several threads take them by turns.
fn copy_others(files: &[(&ScannedFile, Look)], copy: &CopyFiles<'_>) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some((file, here)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let small = Small { entry: &file.entry, path: &file.path, identity: here.identity };
            let copied = small::copy(copy.copier.sink, &small, copy.copier.cancel)?;
            complete(&file.entry, &file.path, copied.map(|(bytes, _)| bytes))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..copy.copier.threads.max(1)).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Err(anyhow::anyhow!("a reader panicked"));
        let results: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        results.into_iter().try_for_each(|result| result.unwrap_or_else(panicked))
    })
}

fn complete(entry: &FileEntry, path: &Path, copied: Option<u64>) -> Result<(), Failure> {
    if copied == Some(entry.size) {
        return Ok(());
    }
    let what = copied.map_or("went away".to_owned(), |b| format!("has {b} bytes instead of {}", entry.size));
    Err(Failure::new(Kind::Server, format!("{} {what} while it was held still", path.display())))
}
