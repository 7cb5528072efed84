//! A file that differs.
use serde::Serialize;

/// At most this many page numbers are named for one file, and this many corrupt pages in all.
pub(super) const NAMED: usize = 20;

/// A file that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Different {
    /// Its place and path.
    pub file: String,
    /// It belongs to a server alone (redo, undo, the server's part of the system tablespace): differences are
    /// expected on nodes that ran.
    pub own_life: bool,
    /// Lengths in bytes; 0 if it does not exist.
    pub sizes: (u64, u64),
    /// Pages that differ; for a file without pages, parts of 1 MiB.
    pub pages: u64,
    /// Those of them that differ in checksum and LSN only.
    pub headers_only: u64,
    /// The first of them.
    pub first: Vec<u64>,
}
