//! The donor's side of a transfer, top to bottom.
mod attempt;
mod decision;
mod offer;

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use formats::wsrep::credentials::Account;
use formats::wsrep::report::ReportLine;
use formats::wsrep::state_id::StateId;
use protocol::hello::capability;
use protocol::inventory::FileEntry;
use protocol::marks::MarkKey;
use protocol::message::{Attempt, Message, Source};
use protocol::sample::Sample;

use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan;
use crate::failure::{Failure, Kind, kind_of};
use crate::invitation;
use crate::job::Job;
use crate::keeper;
use crate::peer::Established;
use crate::peer::dial::{CONNECT_WITHIN, Dialer};
use crate::peer::link::Link;
use crate::server::credentials;
use crate::source::packer::Compression;
use attempt::Donation;
use offer::accepted;

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
    link.count_in(&job.progress);
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

/// A state that was sent as a whole: what it consists of and where it is.
struct Sent {
    files: Vec<FileEntry>,
    /// What tells the joiner of them.
    list: Vec<Message>,
    position: Position,
    /// GTID state of our binary log, as lines of a `.state` file.
    binlog_state: Option<String>,
    chunks: u64,
}

fn transfer(job: &Job, link: &mut Link, means: &Means) -> Result<Position> {
    job.progress.phase("listing files", "");
    let layout = Layout::resolve(&job.args, &job.options)?;
    let engines = EnginePolicy::from_options(&job.options);
    let offered = scan::scan(&layout, &engines)?;
    offer::refuse_what_cannot_travel(&offered)?;
    let accepted = offer::agree(job, link, &layout, &offered)?;
    job.progress.total_bytes.store(scan::bytes(&offered.files, true), Ordering::Relaxed);

    let donation = Donation {
        job,
        means,
        accepted: &accepted,
        layout: &layout,
        engines: &engines,
        skipped: &offered.skipped,
        offered: &offered.files,
    };
    let sent = donation.send(link)?;
    let bytes: u64 = sent.files.iter().map(|f| f.size).sum();
    job.progress.phase("waiting for the joiner to store everything", &format!("{} chunks", sent.chunks));
    let position = sent.position;
    say_what_was_sent(link, sent)?;
    expect(link.recv()?, &Message::Stored)?;
    log_totals(job, bytes);
    Ok(position)
}

/// Begins an attempt; what an earlier one sent is void. With a key to mark its files with the joiner gives a sample.
fn begin(
    job: &Job,
    link: &mut Link,
    source: Source,
    reason: &str,
    marks: Option<MarkKey>,
) -> Result<Option<Sample>> {
    job.progress.done_bytes.store(0, Ordering::Relaxed);
    tracing::info!("{}", protocol::message::source_line(source, reason));
    let reason = protocol::hello::cut(reason, protocol::limits::TEXT_BYTES_MAX).to_owned();
    link.send(&Message::Attempt(Attempt { source, reason, marks }))?;
    if marks.is_none() {
        return Ok(None);
    }
    match link.recv()? {
        Message::Sample(sample) => Ok(Some(sample)),
        other => Err(unexpected(&other, "Sample").into()),
    }
}

fn say_what_was_sent(link: &mut Link, sent: Sent) -> Result<()> {
    sent.list.iter().try_for_each(|files| link.gather(files))?;
    let (count, (state, domain)) = (sent.files.len() as u32, sent.position);
    let (position, binlog_state) = (state.to_string(), sent.binlog_state);
    link.send(&Message::FilesEnd { count, position, domain, binlog_state })?;
    link.send(&Message::Complete { chunks: sent.chunks })
}

/// The position the server gave us for `done` when nothing is copied.
fn position_given(job: &Job) -> Result<Position> {
    let text = job.args.gtid.as_deref().unwrap_or("");
    let state = text.parse::<StateId>().with_context(|| format!("the server gave --gtid {text:?}"))?;
    Ok((state, job.args.gtid_domain_id))
}

fn expect(message: Message, wanted: &Message) -> Result<(), Failure> {
    if message == *wanted { Ok(()) } else { Err(unexpected(&message, wanted.name())) }
}

fn unexpected(message: &Message, wanted: &str) -> Failure {
    Failure::new(Kind::Peer, format!("the joiner said {} where {wanted} was due", message.name()))
}

fn log_totals(job: &Job, bytes: u64) {
    let wire = job.progress.wire_bytes();
    let seconds = job.progress.elapsed().as_secs_f64();
    let rate = bytes as f64 / seconds / f64::from(1 << 20);
    tracing::info!("sent {bytes} bytes as {wire} on the network in {seconds:.1} s ({rate:.0} MB/s)");
}
