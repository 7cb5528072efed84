//! Copying files with and without pages, for both snapshots.
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use formats::innodb::tablespace::{PAGE0_BYTES, PageFormat, parse_page0};
use protocol::inventory::{FileEntry, FileRole};
use protocol::limits::RANGE_BYTES;

use super::page_file::Damage;
use super::pages::{self, Copied, Copier, Wanted};
use super::small;
use super::unread::may_be_remembered;
use crate::disk::direct::{Buffer, Direct};
use crate::disk::identity::{Identity, Signature, look};
use crate::snapshot::declined::Declined;
use crate::threads::{Thread, each_in_threads};

/// Fewer files than this are copied by one thread: starting more costs more than it saves.
const FEW: usize = 16;

/// Length of a file without pages, and the state it was in before it was read; `None` if it is gone or the server
/// cannot read it.
pub type SmallCopy = Option<(u64, Signature)>;

/// Copies files.
pub struct CopyFiles<'a> {
    /// Reads data files.
    pub copier: Copier<'a>,
    /// Files of the system tablespace, in order.
    pub system_files: &'a [PathBuf],
    /// Corrupt pages that were sent as they are.
    pub damaged: Mutex<Vec<String>>,
}

impl CopyFiles<'_> {
    /// Prepares a file to be copied.
    ///
    /// # Errors
    /// From the system.
    pub fn wanted(&self, entry: FileEntry, path: PathBuf, identity: Identity) -> Result<Wanted> {
        let system = match entry.role {
            FileRole::SystemTablespace { index } if index > 0 => {
                let found = further_system_file(self.system_files, index, self.copier.direct)?;
                Some(found.context("the system tablespace has no first page")?)
            }
            _ => None,
        };
        Ok(Wanted { entry, path, identity, system })
    }

    /// Copies data files; corrupt pages end the copy unless they are allowed.
    ///
    /// # Errors
    /// From the system, the sink, cancelled, or [`Declined::CorruptPages`].
    pub fn data_files(&self, wanted: &[Wanted]) -> Result<Vec<Copied>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        self.expect(wanted)?;
        let (copied, damage) = pages::copy(self.copier, wanted)?;
        self.note(damage)?;
        Ok(copied)
    }

    /// Announces files, and the fingerprints that are remembered of small ones.
    fn expect(&self, wanted: &[Wanted]) -> Result<()> {
        let memory = self.copier.memory.filter(|memory| memory.recalls() && self.copier.sink.compares());
        if let Some(memory) = memory {
            for file in wanted.iter().filter(|file| may_be_remembered(&file.entry)) {
                let small = file.entry.size <= u64::from(RANGE_BYTES);
                let seen = if small { look(&file.path)? } else { None };
                if let Some(fingerprint) = seen.and_then(|seen| memory.of_small(&seen, file.entry.size)) {
                    self.copier.sink.remember(file.entry.id, &fingerprint);
                }
            }
        }
        self.copier.sink.expect(&mut wanted.iter().map(|file| &file.entry));
        Ok(())
    }

    /// Records pages that remain corrupt.
    ///
    /// # Errors
    /// [`Declined::CorruptPages`], if they may not be sent.
    pub fn note(&self, damage: Vec<Damage>) -> Result<()> {
        if let Some(first) = damage.first() {
            self.copier.sink.found_corrupt_pages(damage.len() as u64);
            if !self.copier.allow_corrupt {
                let (count, first) = (damage.len() as u64, first.text.clone());
                return Err(Declined::CorruptPages { count, first }.into());
            }
            let mut all = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(damage.into_iter().map(|d| d.text));
        }
        Ok(())
    }

    /// Takes over the corrupt pages that `other` found.
    pub fn take_damaged(&self, other: CopyFiles<'_>) {
        let found = other.damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }

    /// Copies files without pages. Returns the result for each.
    ///
    /// # Errors
    /// From the system, the sink, or cancelled.
    pub fn small_files(&self, wanted: &[Wanted]) -> Result<Vec<SmallCopy>> {
        self.expect(wanted)?;
        let one = |file: &Wanted| small::copy(self.copier, file);
        if wanted.len() < FEW {
            return wanted.iter().map(one).collect();
        }
        // There can be very many, so several threads share them.
        let numbered = wanted.iter().enumerate().collect();
        let copy = |(at, file): (usize, &Wanted)| Ok((at, one(file)?));
        let mut copied = vec![None; wanted.len()];
        for (at, outcome) in each_in_threads(Thread::FileReader, self.copier.threads, numbered, &copy)? {
            copied[at] = outcome;
        }
        Ok(copied)
    }
}

/// Format and first page number of a further file of the system tablespace, whose `files` are in order: those before it
/// have fixed sizes. `None` if the first page of the first file cannot be parsed.
///
/// # Errors
/// From the system.
pub fn further_system_file(files: &[PathBuf], index: u16, direct: bool) -> Result<Option<(PageFormat, u32)>> {
    let first = files.first().context("no system tablespace")?;
    let mut buffer = Buffer::new(PAGE0_BYTES);
    Direct::open(first, direct)?.read(buffer.bytes(), 0)?;
    let Ok(header) = parse_page0(buffer.bytes()) else { return Ok(None) };
    let mut pages = 0;
    for path in files.get(..usize::from(index)).unwrap_or_default() {
        pages += look(path)?.map_or(0, |l| l.signature.size) / header.format.physical_size as u64;
    }
    Ok(Some((header.format, pages as u32)))
}
