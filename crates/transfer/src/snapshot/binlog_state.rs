//! The GTID state of the donor's binary log. With it the joiner's binary log continues the same numbering without the
//! donor's binary log files.
//!
//! `flush tables` rotates the binary log, so the list at the head of the newest file is exactly the state of the
//! flushed files. A server that starts without any binary log takes its state from `<basename>.state` (observed with
//! 10.11.19: `gtid_binlog_state` of donor and joiner stay equal, with `wsrep_gtid_mode` on and off).
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use formats::mariadb::gtid_list::{self, BinlogError};

use crate::datadir::layout::Layout;

/// Upper limit for the list of domains and servers: a million entries of 16 bytes.
const HEAD_BYTES_MAX: usize = 16 << 20;

/// The text of a `.state` file; `None` if the donor writes no binary log, or an encrypted one.
pub fn read(layout: &Layout) -> Result<Option<String>> {
    let Some(index) = &layout.binlog_index else { return Ok(None) };
    let names = match fs::read_to_string(index) {
        Ok(names) => names,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", index.display())),
    };
    let Some(newest) = names.lines().rfind(|l| !l.trim().is_empty()) else { return Ok(None) };
    // Names in the index are relative to the datadir, the server's working directory.
    let path = layout.datadir.join(newest);
    match gtid_list_of(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            tracing::warn!("the joiner's binary log will not know the donor's GTID state: {error:#}");
            Ok(None)
        }
    }
}

fn gtid_list_of(path: &Path) -> Result<String> {
    let mut head = Vec::new();
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut wanted = gtid_list::USUAL_HEAD;
    loop {
        let more = (wanted - head.len()) as u64;
        file.by_ref()
            .take(more)
            .read_to_end(&mut head)
            .with_context(|| format!("cannot read {}", path.display()))?;
        match gtid_list::parse(&head) {
            Ok(list) => return Ok(gtid_list::state_text(&list)),
            // The list is longer than what was read: read as much as it says, unless the file ends before.
            Err(BinlogError::Short { needed }) if head.len() == wanted && wanted < HEAD_BYTES_MAX => {
                wanted = needed.clamp(wanted + 1, HEAD_BYTES_MAX);
            }
            Err(e) => return Err(e).with_context(|| format!("{} has no readable GTID list", path.display())),
        }
    }
}
