//! Write-sets on disk, and on their way to a node that was away.
pub mod archive;
pub mod gcache;
pub mod ist;
pub mod store;
