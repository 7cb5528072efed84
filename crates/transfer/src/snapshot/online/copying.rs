//! Copies files for the rounds and for the consistency point, and records in the catalog what was copied.
use anyhow::Result;
use protocol::inventory::FileId;

use super::catalog::{Catalog, Known};
use crate::snapshot::copy::files::CopyFiles;
use crate::snapshot::copy::pages::Wanted;

/// How many files are planned in memory at a time; the joiner is asked about this many ahead.
pub(super) const AT_ONCE: usize = 4096;

impl CopyFiles<'_> {
    /// Copies data files and records what was copied. `between` is called whenever as many were copied as are planned at a time.
    ///
    /// # Errors
    /// From the system, the sink, cancelled, corrupt pages, or from `between`.
    pub fn pages(
        &self,
        catalog: &mut Catalog,
        ids: &[FileId],
        mut between: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        for some in ids.chunks(AT_ONCE) {
            let known = some.iter().filter_map(|id| catalog.get(*id));
            let wanted = known.map(|known| self.known(known)).collect::<Result<Vec<_>>>()?;
            for file in self.data_files(&wanted)? {
                catalog.copied(file.id, file.bytes, None, file.space);
                catalog.first_page(file.id, file.first_lsn);
                catalog.head(file.id, file.head);
                catalog.fresh(file.id, file.fresh);
            }
            between()?;
        }
        Ok(())
    }

    /// A file to copy, by its newest name.
    ///
    /// # Errors
    /// From the system.
    pub fn known(&self, known: &Known) -> Result<Wanted> {
        self.wanted(known.entry(), known.path(), known.listed.look().identity)
    }

    /// Copies files without pages and records what was copied.
    ///
    /// # Errors
    /// From the system, the sink, or cancelled.
    pub fn small(&self, catalog: &mut Catalog, ids: &[FileId]) -> Result<()> {
        ids.chunks(AT_ONCE).try_for_each(|some| self.some_small(catalog, some))
    }

    fn some_small(&self, catalog: &mut Catalog, ids: &[FileId]) -> Result<()> {
        let known = ids.iter().filter_map(|id| catalog.get(*id));
        let wanted = known.map(|known| self.known(known)).collect::<Result<Vec<_>>>()?;
        let copied = self.small_files(&wanted)?;
        for (file, copied) in wanted.iter().zip(copied) {
            match copied {
                Some((bytes, signature)) => catalog.copied(file.entry.id, Some(bytes), Some(signature), None),
                None if catalog.get(file.entry.id).is_some_and(|known| known.is_gone().unwrap_or(false)) => {
                    catalog.forget(file.entry.id);
                }
                // The server itself cannot read it. If it is still missing at the end, `checks` reports it.
                None => {}
            }
        }
        Ok(())
    }
}
