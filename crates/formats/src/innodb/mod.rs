//! InnoDB's files: tablespace pages, their checksums, the redo log's header.

pub mod checksum;
pub mod doublewrite;
pub mod page;
pub mod redo_header;
pub mod tablespace;
pub mod wsrep_position;
