//! InnoDB's files: tablespace pages, their checksums, the redo log's header.

pub mod checksum;
pub mod doublewrite;
pub mod page;
pub mod redo;
pub mod redo_change;
pub mod redo_flat;
pub mod redo_header;
pub mod redo_mtr;
pub mod redo_page;
pub mod tablespace;
pub mod undo_header;
pub mod wsrep_position;
