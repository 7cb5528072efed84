//! Copies files for the rounds and for the settled moment, and notes in the catalog what was copied.
use anyhow::Result;
use protocol::inventory::FileId;

use super::catalog::{Catalog, Known};
use crate::source::copy::files::CopyFiles;
use crate::source::copy::pages::Wanted;

impl CopyFiles<'_> {
    /// Copies data files and notes it.
    ///
    /// # Errors
    /// From the system, the sink, cancelled, or pages that are damaged.
    pub fn pages(&self, catalog: &mut Catalog, ids: &[FileId]) -> Result<()> {
        let known = ids.iter().filter_map(|id| catalog.get(*id));
        let wanted = known.map(|known| self.known(known)).collect::<Result<Vec<_>>>()?;
        for file in self.data_files(&wanted)? {
            catalog.copied(file.id, file.bytes, None, file.space);
            catalog.first_page(file.id, file.first_lsn);
            catalog.head(file.id, file.head);
        }
        Ok(())
    }

    /// A file to copy, by its newest name.
    ///
    /// # Errors
    /// From the system.
    pub fn known(&self, known: &Known) -> Result<Wanted> {
        self.wanted(known.entry(), known.path().clone(), known.listed.look.identity)
    }

    /// Copies files without pages and notes it.
    ///
    /// # Errors
    /// From the system, the sink, or cancelled.
    pub fn small(&self, catalog: &mut Catalog, ids: &[FileId]) -> Result<()> {
        let known = ids.iter().filter_map(|id| catalog.get(*id));
        let wanted = known.map(|known| self.known(known)).collect::<Result<Vec<_>>>()?;
        let copied = self.small_files(&wanted)?;
        for (file, copied) in wanted.iter().zip(copied) {
            match copied {
                Some((bytes, signature)) => catalog.copied(file.entry.id, Some(bytes), Some(signature), None),
                None if catalog.get(file.entry.id).is_some_and(|known| known.is_gone().unwrap_or(false)) => {
                    catalog.forget(file.entry.id);
                }
                // Not the server's to read: whoever needs it in the end says so.
                None => {}
            }
        }
        Ok(())
    }
}
