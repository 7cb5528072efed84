//! Copies the donor's files while its server does not write to them.
use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use protocol::inventory::{FileEntry, FileRole};

use crate::datadir::scan::ScannedFile;
use crate::failure::{Failure, Kind};
use crate::snapshot::copy::files::CopyFiles;

/// Reads all files once, verifies their pages, and hands them to the sink. When this returns, none of the files is
/// needed any more.
///
/// # Errors
/// A file is not as it was listed, pages are corrupt and that is not allowed, from the system, the sink, or cancelled.
pub fn copy(files: &[ScannedFile], copy: &CopyFiles<'_>) -> Result<()> {
    let (mut data_files, mut others) = (Vec::new(), Vec::new());
    for file in files.iter().filter(|f| !matches!(f.entry.role, FileRole::Link { .. })) {
        let wanted = copy.wanted(file.entry.clone(), file.path.clone(), file.look.identity)?;
        if has_pages(&file.entry) { data_files.push(wanted) } else { others.push(wanted) }
    }
    let copied: HashMap<_, _> =
        copy.data_files(&data_files)?.into_iter().map(|copied| (copied.id, copied.bytes)).collect();
    for file in &data_files {
        complete(&file.entry, &file.path, copied.get(&file.entry.id).copied().flatten())?;
    }
    for (file, copied) in others.iter().zip(copy.small_files(&others)?) {
        complete(&file.entry, &file.path, copied.map(|(bytes, _)| bytes))?;
    }
    Ok(())
}

fn has_pages(entry: &FileEntry) -> bool {
    match entry.role {
        FileRole::SystemTablespace { .. } | FileRole::Undo => true,
        _ => entry.path.ends_with(".ibd"),
    }
}

fn complete(entry: &FileEntry, path: &Path, copied: Option<u64>) -> Result<(), Failure> {
    if copied == Some(entry.size) {
        return Ok(());
    }
    let what = match copied {
        Some(bytes) => format!("has {bytes} bytes instead of {}", entry.size),
        None if path.exists() => "was replaced, or can no longer be read,".to_owned(),
        None => "went away".to_owned(),
    };
    Err(Failure::new(
        Kind::Server,
        format!("{} {what} while the donor's server blocked writes", path.display()),
    ))
}
