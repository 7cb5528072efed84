//! A logical snapshot on the joiner: its parts are verified, files are made of them, and these take the parts' place in staging. From
//! there on they are files like any other.
use anyhow::Result;
use formats::innodb::wsrep_position::StoredPosition;
use formats::wsrep::state_id::Gtid;
use protocol::entries::Entries;
use protocol::inventory::FileEntry;

use super::file_list::FileList;
use super::incoming::IncomingTransfer;
use crate::datadir::layout::Layout;
use crate::job::Job;
use crate::loading;

/// Makes files of the parts. Returns the list of these files.
///
/// # Errors
/// A part is not what the donor sent, this node's server does not take something, or cancelled.
pub(super) fn load(
    job: &Job,
    layout: &Layout,
    incoming: &IncomingTransfer,
    list: &FileList,
) -> Result<FileList> {
    let parts = incoming.parts(job, list)?;
    let gtid =
        list.position.1.map(|domain| gtid_in(list.binlog_state.as_deref().unwrap_or_default(), domain));
    let position =
        StoredPosition { state: list.position.0, gtid: gtid.or(Some(Gtid { domain: 0, server: 0, seq: 0 })) };
    let loaded = loading::load(job, layout, incoming.staging(), &parts, position)?;
    let mut files = Entries::default();
    // Behind the numbers of the parts, which stay in staging until the files have their names.
    let first = list.files.iter().map(|part| part.id.0 + 1).max().unwrap_or(0);
    for file in &loaded.files {
        job.cancel.check()?;
        let id = protocol::inventory::FileId(file.entry.id.0.saturating_add(first));
        let entry = FileEntry { id, ..file.entry.clone() };
        incoming.take_over(&entry, &file.path)?;
        files.insert(&entry);
    }
    loaded.remove()?;
    Ok(FileList { files, position: list.position, binlog_state: list.binlog_state.clone() })
}

/// The last GTID of a domain, which a server with `wsrep_gtid_mode` counts on from.
fn gtid_in(state: &str, domain: u32) -> Gtid {
    let gtids = state.lines().filter_map(|line| {
        let mut numbers = line.trim().split('-');
        let of = numbers.next()?.parse().ok().filter(|of: &u32| *of == domain)?;
        Some(Gtid { domain: of, server: numbers.next()?.parse().ok()?, seq: numbers.next()?.parse().ok()? })
    });
    gtids.max_by_key(|gtid| gtid.seq).unwrap_or(Gtid { domain, server: 0, seq: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_gtid_of_the_domain_counts() {
        let state = "0-1-9\n3-2-5\n3-1-7\n";
        assert_eq!(gtid_in(state, 3), Gtid { domain: 3, server: 1, seq: 7 });
        assert_eq!(gtid_in(state, 4), Gtid { domain: 4, server: 0, seq: 0 });
        assert_eq!(gtid_in("x", 0), Gtid { domain: 0, server: 0, seq: 0 });
    }
}
