//! The record that each transfer leaves (docs/report.md), and the page that is made from records.
//!
//! No I/O, no clock, and no panic on any input: records are read from files that others may have written.
//!
//! | module | owns |
//! |---|---|
//! | [`record`] | the record: its fields, its version, its limits, JSON |
//! | [`pairs`] | which records are of one transfer |
//! | [`why`], `why_files` | why one transfer took longer than another; why files were needed |
//! | [`limits`] | the donor's `rlimit` over time |
//! | [`page()`] | the HTML page |
//! | [`human`] | figures in words |

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod human;
pub mod limits;
pub mod page;
pub mod pairs;
pub mod record;
pub mod why;
mod why_files;

pub use page::page;
pub use record::Record;
