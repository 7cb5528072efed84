//! What becomes of a logical snapshot while it is read: parts that travel as files, or rows that a running joiner loads at once.
use anyhow::Result;
use protocol::logical::{Contents, Table};

use super::part::Packed;

/// Takes a logical snapshot. Parts come from several threads.
pub trait Receiver: Sync {
    /// The snapshot begins: what was taken before does not count. `contents` has everything but the rows of tables that are
    /// still to be read: neither their number nor their parts are known. `early` are the parts that were read already.
    ///
    /// # Errors
    /// The transfer is over.
    fn begin(&self, contents: &Contents, early: Vec<Packed>) -> Result<()>;

    /// Some rows of one table; the path says of which ([`super::part::prefix`]).
    ///
    /// # Errors
    /// The transfer is over.
    fn part(&self, part: Packed) -> Result<()>;

    /// All rows of a large table were read and taken.
    ///
    /// # Errors
    /// The transfer is over.
    fn complete(&self, _table: &Table) -> Result<()> {
        Ok(())
    }
}
