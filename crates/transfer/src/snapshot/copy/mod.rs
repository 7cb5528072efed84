//! Reading files as they are: what both snapshots do.
//!
//! | module | owns |
//! |---|---|
//! | [`direct`] | reading as the server writes, the page cache left as it is |
//! | [`page_file`] | one data file: its pages checked |
//! | [`free_pages`] | whether damage is anybody's data |
//! | [`pages`] | many data files, by several threads |
//! | [`small`] | files without pages |
//! | [`files`] | both kinds |
pub mod direct;
pub mod files;
pub mod free_pages;
pub mod page_file;
pub mod pages;
pub mod small;
