//! The donor's offer, made before anything is blocked or read, and the joiner's answer.
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use protocol::fingerprint::FingerprintKey;
use protocol::hello::cut;
use protocol::inventory::{FileEntry, FileRole, Place};
use protocol::limits::{HEADER_BYTES_MAX, TEXT_BYTES_MAX};
use protocol::message::{Logical, Message, Offer};
use protocol::policy::NodeFacts;

use super::expected::unexpected;
use crate::datadir::encrypted::first_encrypted;
use crate::datadir::layout::Layout;
use crate::datadir::scan::Scan;
use crate::failure::{Failure, Kind};
use crate::human::printable;
use crate::job::Job;
use crate::peer::link::Link;
use crate::server::version::server_version;

/// Maximum number of lines about files that are not sent, in the offer and the error logs.
const LEFT_OUT_LINES: usize = 50;

/// Maximum number of bytes of database names in the offer.
const DATABASE_BYTES: usize = HEADER_BYTES_MAX as usize / 4;

/// Sends the offer and receives the joiner's answer: how many workers may send. Fails if the joiner refuses, because
/// of its settings or its free space.
pub(super) fn agree(job: &Job, link: &mut Link, layout: &Layout, scan: &Scan) -> Result<Accepted> {
    let left_out = left_out(scan);
    for line in &left_out {
        tracing::warn!("{line}");
    }
    let offer = offer(job, layout, scan, left_out);
    let offered = offer.logical;
    link.send(&Message::Offer(offer))?;
    let (own_key, answer) = match link.recv()? {
        Message::OwnKey { key } => (Some(key), link.recv()?),
        answer => (None, answer),
    };
    let accepted = accepted(answer, offered)?;
    if accepted.in_place {
        tracing::warn!("the joiner has no room for old and new files: it replaces them in place");
    }
    Ok(Accepted { workers: accepted.workers.min(job.settings.threads).max(1), own_key, ..accepted })
}

/// Warnings for both logs, few enough for one message.
fn left_out(scan: &Scan) -> Vec<String> {
    for left in &scan.left_out {
        tracing::debug!("not sent: {}: {}", left.path.display(), left.why);
    }
    let files = scan.left_out.iter().map(|l| format!("not sent: {}: {}", l.path.display(), l.why));
    let mut lines: Vec<String> = scan.warnings.iter().cloned().chain(files).collect();
    if lines.len() > LEFT_OUT_LINES {
        let more = lines.len() - LEFT_OUT_LINES;
        lines.truncate(LEFT_OUT_LINES);
        lines.push(format!("{more} more files are not sent; the donor's transfer log names them"));
    }
    lines
}

fn offer(job: &Job, layout: &Layout, scan: &Scan, left_out: Vec<String>) -> Offer {
    let mut bytes: BTreeMap<Place, u64> = BTreeMap::new();
    let mut external: BTreeMap<String, u64> = BTreeMap::new();
    for FileEntry { place, path, allocated, .. } in scan.files.iter().map(|f| &f.entry) {
        if *place == Place::External {
            let directory = path.rsplit_once('/').map_or("/", |(dir, _)| dir).to_owned();
            *external.entry(directory).or_default() += allocated;
        } else {
            *bytes.entry(*place).or_default() += allocated;
        }
    }
    Offer {
        node: job.options.node_name(),
        position: job.args.gtid.clone().unwrap_or_default(),
        facts: NodeFacts {
            encrypted: first_encrypted(layout, &job.options, &scan.files),
            ..layout.facts(server_version(job.server))
        },
        files: scan.files.len() as u32,
        bytes: bytes.into_iter().collect(),
        external: external.into_iter().collect(),
        undo_tablespaces: scan.files.iter().filter(|f| f.entry.role == FileRole::Undo).count() as u32,
        left_out,
        databases: databases(scan),
        logical: job.settings.snapshot.logical(),
    }
}

/// Names of the databases' directories, as many as fit. The joiner checks the others when their first file arrives.
fn databases(scan: &Scan) -> Vec<String> {
    let files = scan.files.iter().map(|file| &file.entry).filter(|entry| entry.place == Place::Datadir);
    let names: BTreeSet<&str> = files.filter_map(|entry| Some(entry.path.split_once('/')?.0)).collect();
    let mut room = DATABASE_BYTES;
    let fits = |name: &&str| {
        room = room.saturating_sub(name.len() + 8);
        room > 0
    };
    names.into_iter().take_while(fits).map(str::to_owned).collect()
}

/// The joiner's answer to an offer.
pub(super) struct Accepted {
    pub workers: u16,
    in_place: bool,
    pub empty_undo: bool,
    /// The joiner must get files that need no redo.
    pub without_redo: bool,
    /// The joiner has files to compare.
    pub compare: bool,
    /// Why the joiner cannot use our files; empty if it can.
    pub logical: String,
    /// The key under which the joiner remembers fingerprints, if it remembers any.
    pub own_key: Option<FingerprintKey>,
}

/// Reads the answer to an offer that says this of a logical snapshot.
pub(super) fn accepted(message: Message, offered: Logical) -> Result<Accepted, Failure> {
    let Message::Accept { workers, in_place, empty_undo, without_redo, compare, logical } = message else {
        return Err(unexpected(&message, "Accept"));
    };
    // It is logged here.
    let logical = cut(&printable(&logical), TEXT_BYTES_MAX).to_owned();
    if offered == Logical::Never && !logical.is_empty() {
        let text = format!("the joiner asks for a logical snapshot, which was not offered: {logical}");
        return Err(Failure::new(Kind::Peer, text));
    }
    Ok(Accepted { workers, in_place, empty_undo, without_redo, compare, logical, own_key: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joiner_gets_only_what_was_offered() {
        let answer = |logical: &str| Message::Accept {
            workers: 1,
            in_place: false,
            empty_undo: false,
            without_redo: false,
            compare: false,
            logical: logical.to_owned(),
        };
        for (offered, reason, fits) in [
            (Logical::Never, "", true),
            (Logical::Never, "it has other pages", false),
            (Logical::IfNeeded, "it has other pages", true),
            (Logical::Always, "it has other pages", true),
            (Logical::Always, "", true),
        ] {
            assert_eq!(accepted(answer(reason), offered).is_ok(), fits, "{offered:?} {reason:?}");
        }
        let why = accepted(answer("a\nb"), Logical::Never).err().unwrap();
        assert!(why.kind == Kind::Peer && why.text.ends_with(": a b"), "{why}");
        let long = accepted(answer(&"\u{1b}".repeat(2 * TEXT_BYTES_MAX)), Logical::IfNeeded).unwrap();
        assert!(long.logical.len() <= TEXT_BYTES_MAX && !long.logical.contains('\u{1b}'));
    }
}
