//! Passes over the files without a lock, until few new ones are found.
use std::time::Instant;

use protocol::inventory::FileId;

use super::catalog::Catalog;
use super::snapshot::Work;
use crate::snapshot::declined::SnapshotError;

/// Passes over the files without a lock stop when one finds fewer new files than this.
const FEW: usize = 4;
/// They stop at the latest after this many.
const PASSES_MAX: u32 = 8;

impl Work<'_> {
    /// Lists and copies files without a lock, until few new ones are found.
    pub(super) fn passes(&mut self, catalog: &mut Catalog) -> Result<u32, SnapshotError> {
        for pass in 1..=PASSES_MAX {
            let began = Instant::now();
            let todo = self.lister.refresh(catalog)?;
            let found = todo.pages.len() + todo.small.len();
            if let Some(checkpoints) = self.checkpoints {
                let size = |id: &FileId| catalog.get(*id).map_or(0, |file| file.listed.look().signature.size);
                checkpoints.expect(todo.pages.iter().map(size).sum());
            }
            let listed = Instant::now();
            self.copy.pages(catalog, &todo.pages, || self.lister.collect())?;
            let pages = Instant::now();
            self.copy.small(catalog, &todo.small)?;
            self.copy.small(catalog, &todo.late)?;
            tracing::debug!(
                "pass {pass}: {found} files found in {:.1?}, those with pages copied in {:.1?}, the others in {:.1?}",
                listed - began,
                pages - listed,
                pages.elapsed()
            );
            if found < FEW {
                return Ok(pass);
            }
        }
        Ok(PASSES_MAX)
    }
}
