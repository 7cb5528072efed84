//! The donor's side of a transfer, top to bottom.
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use formats::wsrep::credentials::Account;
use formats::wsrep::report::ReportLine;
use formats::wsrep::state_id::StateId;
use protocol::hello::capability;
use protocol::inventory::{FileEntry, FileRole, Place};
use protocol::limits::FILES_PER_MESSAGE_MAX;
use protocol::message::{Message, Offer};

use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, Scan};
use crate::failure::{Failure, Kind, kind_of};
use crate::invitation;
use crate::job::Job;
use crate::keeper;

use crate::peer::Established;
use crate::peer::dial::{CONNECT_WITHIN, Dialer};
use crate::peer::link::Link;
use crate::server::credentials;
use crate::server::sql::Session;
use crate::server::synced;
use crate::server::version::server_version;
use crate::source::binlog_state;
use crate::source::frozen::Frozen;
use crate::source::packer::Compression;
use crate::source::ranges::RangeQueue;
use crate::source::sender::{self, Shared};
use crate::source::throttle::Throttle;

/// Lines about files that are not sent, in the offer and the error logs.
const LEFT_OUT_LINES: usize = 50;

/// How long a joiner that wants another number of undo tablespaces may make us wait for purge.
const PURGE_WITHIN: Duration = Duration::from_secs(10);

/// How long a donor's failure is kept from its server, so that the joiner's server hears of it from its own program first.
/// Told by both at once (its program's end and the group's "Will never receive state"), a server of 10.11.19 can hang in
/// its abort: two threads close the group connection and wait for each other. It then neither serves nor ends.
const JOINER_ENDS_FIRST: Duration = Duration::from_secs(1);

/// A position and its GTID domain.
type Position = (StateId, Option<u32>);

/// Serves one joiner. The server hears `done` only when the joiner has everything on stable storage.
pub fn run(job: &Job) -> Result<()> {
    job.progress.phase("contacting the joiner", "");
    let credentials = credentials::collect(&job.args, &job.options, true);
    let dialer = invitation::read(&job.args, credentials.remote.as_ref())?.dialer(job)?;
    let Established { mut link, capabilities, program, .. } = dialer.dial_control(CONNECT_WITHIN)?;
    tracing::info!("connected to {}, {program}", link.peer());
    let compression =
        if capabilities & capability::ZSTD == 0 { Compression::Never } else { job.settings.compression };
    let outcome = match job.args.bypass {
        true => bypass(job, &mut link),
        false => transfer(job, &mut link, &Means { dialer, compression, account: credentials.local }),
    };
    match outcome {
        Ok((state, domain)) => {
            job.report.say(&ReportLine::Done { state, domain })?;
            keeper::release_as_donor(job);
            Ok(())
        }
        Err(error) => {
            link.abort(&format!("{error:#}"));
            // Not when our own server is gone or we were told to stop: then nobody may wait for us. (Not a wait that the
            // cancel ends: the joiner's own word that it gave up has set that.)
            if !matches!(kind_of(&error), Kind::Server | Kind::Stopped) {
                std::thread::sleep(JOINER_ENDS_FIRST);
            }
            Err(error)
        }
    }
}

/// The joiner only needs to know that IST follows, and its own position back.
fn bypass(job: &Job, link: &mut Link) -> Result<Position> {
    let (state, domain) = position_given(job)?;
    link.send(&Message::Bypass { position: state.to_string(), domain })?;
    accepted(link.recv()?)?;
    tracing::info!("IST follows from {state}; no data is sent");
    Ok((state, domain))
}

/// What a transfer has beside its job and its link.
struct Means {
    dialer: Dialer,
    compression: Compression,
    account: Option<Account>,
}

fn transfer(job: &Job, link: &mut Link, means: &Means) -> Result<Position> {
    job.progress.phase("listing files", "");
    let layout = Layout::resolve(&job.args, &job.options)?;
    let engines = EnginePolicy::from_options(&job.options);
    let offered = scan::scan(&layout, &engines)?;
    refuse_what_cannot_travel(&offered)?;
    let workers = agree(job, link, &layout, &offered, means.account.as_ref())?;

    job.progress.phase("waiting for the server to hold still", "");
    let frozen = link.keep_alive_while("waiting for the donor's server to hold its files still", || {
        Frozen::take(&job.report, &job.datadir, job.settings.flush, &job.cancel)
    })?;
    let position = (frozen.position().state, frozen.position().domain);
    tracing::info!("the donor's files are still at {}", position.0);

    job.progress.phase("listing still files", "");
    let still = scan::scan(&layout, &engines)?;
    refuse_what_cannot_travel(&still)?;
    announce(link, &still, &position, binlog_state::read(&layout)?)?;
    expect(link.recv()?, &Message::Ready)?;

    let bytes: u64 = still.files.iter().map(|f| f.entry.size).sum();
    job.progress.total_bytes.store(bytes, Ordering::Relaxed);
    job.progress.phase("sending", &format!("{} files, {bytes} bytes", still.files.len()));
    let chunks = send_all(job, link, means, workers, still, frozen)?;

    job.progress.phase("waiting for the joiner to store everything", &format!("{chunks} chunks"));
    link.send(&Message::Complete { chunks })?;
    expect(link.recv()?, &Message::Stored)?;
    log_totals(job, bytes);
    Ok(position)
}

/// Makes the offer; the joiner looks at settings and room before anything is stopped here.
fn agree(job: &Job, link: &mut Link, layout: &Layout, scan: &Scan, account: Option<&Account>) -> Result<u16> {
    let left_out = left_out(scan);
    for line in &left_out {
        tracing::warn!("{line}");
    }
    link.send(&Message::Offer(offer(job, layout, scan, left_out)))?;
    let accepted = accepted(link.recv()?)?;
    if accepted.in_place {
        tracing::warn!("the joiner has no room for old and new files: it replaces them in place");
    }
    if accepted.empty_undo {
        link.keep_alive_while("waiting for purge", || wait_for_purge(job, account))?;
    }
    Ok(accepted.workers.min(job.settings.threads).max(1))
}

/// Gives purge a moment to deal with the last undo logs; goes on without when it takes longer or nobody lets us ask.
fn wait_for_purge(job: &Job, account: Option<&Account>) -> Result<()> {
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
        facts: layout.facts(server_version(job.server)),
        files: scan.files.len() as u32,
        bytes: bytes.into_iter().collect(),
        external: external.into_iter().collect(),
        undo_tablespaces: scan.files.iter().filter(|f| f.entry.role == FileRole::Undo).count() as u32,
        left_out,
    }
}

fn refuse_what_cannot_travel(scan: &Scan) -> Result<(), Failure> {
    if scan.refusals.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> = scan.refusals.iter().map(Failure::to_string).collect();
    Err(Failure::new(Kind::Refused, reasons.join("; ")))
}

fn announce(
    link: &mut Link,
    scan: &Scan,
    (state, domain): &Position,
    binlog_state: Option<String>,
) -> Result<()> {
    for batch in scan.files.chunks(FILES_PER_MESSAGE_MAX) {
        link.send(&Message::Files(batch.iter().map(|f| f.entry.clone()).collect()))?;
    }
    let count = scan.files.len() as u32;
    link.send(&Message::FilesEnd { count, position: state.to_string(), domain: *domain, binlog_state })
}

/// Sends all ranges over the workers' connections. The server may go on as soon as the last range has been read.
fn send_all(
    job: &Job,
    link: &mut Link,
    means: &Means,
    workers: u16,
    scan: Scan,
    frozen: Frozen,
) -> Result<u64> {
    let files = scan.files.into_iter().filter(|f| !matches!(f.entry.role, FileRole::Link { .. }));
    let queue = RangeQueue::new(files.map(|f| (f.entry.id, f.path, f.entry.size)).collect());
    let frozen = Mutex::new(Some(frozen));
    let release = || drop(frozen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    let throttle = Throttle::new(job.settings.rlimit);
    let shared = Shared {
        queue: &queue,
        throttle: &throttle,
        progress: &job.progress,
        all_read: &release,
        cancel: &job.cancel,
    };
    link.keep_alive_while("sending", || {
        std::thread::scope(|scope| {
            let work = |number| {
                let shared = &shared;
                scope.spawn(move || {
                    let sent = means
                        .dialer
                        .dial_worker(number, CONNECT_WITHIN)
                        .and_then(|mut link| sender::send_ranges(&mut link, means.compression, shared));
                    // One broken worker breaks the transfer: the others must not go on filling the joiner's disk.
                    sent.inspect_err(|e| shared.cancel.cancel_by_worker(e))
                })
            };
            let threads: Vec<_> = (0..workers).map(work).collect();
            threads
                .into_iter()
                .map(|t| t.join().map_err(|_| Failure::new(Kind::Disk, "a worker panicked"))?)
                .sum()
        })
    })
}

/// The position the server gave us for `done` when nothing is copied.
fn position_given(job: &Job) -> Result<Position> {
    let text = job.args.gtid.as_deref().unwrap_or("");
    let state = text.parse::<StateId>().with_context(|| format!("the server gave --gtid {text:?}"))?;
    Ok((state, job.args.gtid_domain_id))
}

/// The joiner's answer to an offer.
struct Accepted {
    workers: u16,
    in_place: bool,
    empty_undo: bool,
}

fn accepted(message: Message) -> Result<Accepted, Failure> {
    match message {
        Message::Accept { workers, in_place, empty_undo } => Ok(Accepted { workers, in_place, empty_undo }),
        other => Err(unexpected(&other, "Accept")),
    }
}

fn expect(message: Message, wanted: &Message) -> Result<(), Failure> {
    if message == *wanted { Ok(()) } else { Err(unexpected(&message, wanted.name())) }
}

fn unexpected(message: &Message, wanted: &str) -> Failure {
    Failure::new(Kind::Peer, format!("the joiner said {} where {wanted} was due", message.name()))
}

fn log_totals(job: &Job, bytes: u64) {
    let wire = job.progress.wire_bytes.load(Ordering::Relaxed);
    let seconds = job.progress.elapsed().as_secs_f64();
    let rate = bytes as f64 / seconds / f64::from(1 << 20);
    tracing::info!("sent {bytes} bytes as {wire} on the network in {seconds:.1} s ({rate:.0} MB/s)");
}
