//! What a donor says before anything is stopped or read, and what the joiner answers.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::wsrep::credentials::Account;
use protocol::inventory::{FileEntry, FileRole, Place};
use protocol::message::{Message, Offer};

use super::unexpected;
use crate::datadir::layout::Layout;
use crate::datadir::scan::Scan;
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::peer::link::Link;
use crate::server::sql::Session;
use crate::server::synced;
use crate::server::version::server_version;

/// Lines about files that are not sent, in the offer and the error logs.
const LEFT_OUT_LINES: usize = 50;

/// How long a joiner that wants another number of undo tablespaces may make us wait for purge.
const PURGE_WITHIN: Duration = Duration::from_secs(10);

/// Makes the offer; the joiner looks at settings and room. Its answer has the number of workers that may send.
pub(super) fn agree(job: &Job, link: &mut Link, layout: &Layout, scan: &Scan) -> Result<Accepted> {
    let left_out = left_out(scan);
    for line in &left_out {
        tracing::warn!("{line}");
    }
    link.send(&Message::Offer(offer(job, layout, scan, left_out)))?;
    let accepted = accepted(link.recv()?)?;
    if accepted.in_place {
        tracing::warn!("the joiner has no room for old and new files: it replaces them in place");
    }
    Ok(Accepted { workers: accepted.workers.min(job.settings.threads).max(1), ..accepted })
}

/// Gives purge a moment to deal with the last undo logs; goes on without when it takes longer or nobody lets us ask.
pub(super) fn wait_for_purge(job: &Job, account: Option<&Account>) -> Result<()> {
    let socket = synced::socket_path(job.args.socket.as_deref(), &job.datadir);
    let Some(mut session) = Session::open(&socket, account) else { return Ok(()) };
    let until = Instant::now() + PURGE_WITHIN;
    while Instant::now() < until && session.history_length().is_some_and(|left| left > 0) {
        job.cancel.sleep(Duration::from_millis(100))?;
    }
    Ok(())
}

/// What both logs must say, in lines that fit into one message.
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
        facts: layout.facts(server_version(job.server)),
        files: scan.files.len() as u32,
        bytes: bytes.into_iter().collect(),
        external: external.into_iter().collect(),
        undo_tablespaces: scan.files.iter().filter(|f| f.entry.role == FileRole::Undo).count() as u32,
        left_out,
    }
}

/// Nothing is left out silently.
pub(super) fn refuse_what_cannot_travel(scan: &Scan) -> Result<(), Failure> {
    if scan.refusals.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> = scan.refusals.iter().map(Failure::to_string).collect();
    Err(Failure::new(Kind::Refused, reasons.join("; ")))
}

/// The joiner's answer to an offer.
pub(super) struct Accepted {
    pub workers: u16,
    in_place: bool,
    pub empty_undo: bool,
    pub still: bool,
    /// The joiner has files that may hold what would be sent.
    pub base: bool,
}

pub(super) fn accepted(message: Message) -> Result<Accepted, Failure> {
    match message {
        Message::Accept { workers, in_place, empty_undo, still, base } => {
            Ok(Accepted { workers, in_place, empty_undo, still, base })
        }
        other => Err(unexpected(&other, "Accept")),
    }
}
