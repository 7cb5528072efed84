//! Reading files, the same way for both snapshots.
//!
//! | module | owns |
//! |---|---|
//! | [`page_file`] | one data file, with its pages checked |
//! | [`free_pages`] | whether a corrupt page is free, so that no data is lost |
//! | [`pages`] | many data files, by several threads |
//! | `page_queue` | which piece of which file a thread reads next |
//! | `opened` | a data file that several threads read |
//! | [`remember`] | reading files for their fingerprints, between transfers |
//! | [`small`] | files without pages |
//! | [`unread`] | ranges whose fingerprints are remembered |
//! | [`files`] | files of both kinds |
pub mod files;
pub mod free_pages;
mod opened;
pub mod page_file;
mod page_queue;
pub mod pages;
pub mod remember;
pub mod small;
pub mod unread;
