//! The donor's side of a transfer, top to bottom.
mod attempt;
mod choice;
mod decision;
mod deep_ist;
mod expected;
mod history;
mod mariabackup;
mod offer;
mod unreadable;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::wsrep::credentials::Account;
use formats::wsrep::report::ReportLine;
use protocol::fingerprint::FingerprintKey;
use protocol::hello::capability;
use protocol::message::{Logical, Message};

use crate::cleanup;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, Scan, ScannedFile};
use crate::failure::{Kind, is_lost, kind_of};
use crate::invitation;
use crate::job::Job;
use crate::load::governor::Governor;
use crate::panics::caught;
use crate::peer::Established;
use crate::peer::link::Link;
use crate::remembered::front::is_tablespace;
use crate::remembered::memory::Memory;
use crate::remembered::store;
use crate::send::packer::Compression;
use crate::server::{credentials, synced};
use crate::sql::Login;
use crate::threads::Thread;
use attempt::{DonorSession, Offered, Sent, TransferContext};
pub(crate) use choice::{NEWER, not_blocking, not_logical, not_online};
pub(crate) use decision::plan_by_rows;
use expected::{Position, expect, position_given};
pub(crate) use mariabackup::{ANOTHER_SERIES, needs_keys, neither, not_mariabackup};
use offer::{Accepted, accepted};

/// How long we wait before our own end after the joiner has ended, so that our server and the group learn of it
/// later. A joiner that was told to stop ends at once, and its server with it. If the group's "Will never receive
/// state" reached that server while it closes, two threads would close the group connection and could deadlock: the
/// server would neither serve nor end. A failure of the donor itself needs no such pause, because the joiner's
/// program then waits for the group to end its server.
const JOINER_ENDS_FIRST: Duration = Duration::from_secs(1);

/// Serves one joiner. `done` is reported to the server only when the joiner has everything on stable storage.
pub fn run(job: &Job) -> Result<()> {
    job.progress.phase("contacting the joiner", "");
    let _limit = job.limit()?;
    let credentials = credentials::collect(&job.args, &job.options, true);
    let governor = Governor::start(job, login(job, credentials.local.as_ref()))?;
    let invited = invitation::read(&job.args, credentials.remote.as_ref())?;
    job.record(&invited.invitation.secret);
    let dialer = invited.dialer(job)?;
    let end = Instant::now() + job.settings.first_contact;
    let (mut link, outcome) = loop {
        let left = end.saturating_duration_since(Instant::now());
        let Established { mut link, capabilities, program, .. } = dialer.dial_control(left)?;
        job.connected(&mut link, &program);
        let notes_reach = capabilities & capability::ARCHIVE_REACH != 0;
        let agreed = caught(|| {
            Thread::Main.panic_on_purpose();
            Ok(match job.args.bypass {
                true => Agreed::Bypass(bypass(job, &mut link, notes_reach)?),
                false => Agreed::Transfer(Box::new(agree(job, &mut link, credentials.local.as_ref())?)),
            })
        });
        break match agreed {
            // The joiner has not refused, so it still waits for us.
            Err(error) if is_lost(&error) && Instant::now() < end => {
                tracing::warn!("{error:#} before anything was agreed on; connecting again");
                continue;
            }
            Err(error) => (link, Err(error)),
            Ok(Agreed::Bypass(position)) => (link, Ok(position)),
            Ok(Agreed::Transfer(terms)) => {
                let compression = match capabilities & capability::ZSTD {
                    0 => Compression::Never,
                    _ => job.settings.compression,
                };
                let deep_ist = capabilities & capability::DEEP_IST != 0;
                let prepares = capabilities & capability::PREPARE != 0;
                let (account, throttle) = (credentials.local, Arc::clone(governor.throttle()));
                let context = TransferContext {
                    dialer,
                    compression,
                    account,
                    throttle,
                    deep_ist,
                    prepares,
                    notes_reach,
                };
                let outcome = caught(|| transfer(job, &mut link, &context, *terms));
                (link, outcome)
            }
        };
    };
    match outcome {
        Ok((state, domain)) => {
            job.report.print(&ReportLine::Done { state, domain })?;
            cleanup::release_as_donor(job);
            Ok(())
        }
        Err(error) => {
            link.abort(&format!("{error:#}"));
            if matches!(kind_of(&error), Kind::Peer | Kind::Timeout) {
                job.cancel.sleep_unless_ended(JOINER_ENDS_FIRST);
            }
            Err(error)
        }
    }
}

/// How to log in to our server.
fn login(job: &Job, account: Option<&Account>) -> Login {
    let socket = synced::socket_path(job.args.socket.as_deref(), &job.datadir);
    Login::at_socket(&socket, account)
}

/// Tells the joiner that IST follows, and from which position.
fn bypass(job: &Job, link: &mut Link, notes_reach: bool) -> Result<Position> {
    let (state, domain) = position_given(job)?;
    if notes_reach {
        deep_ist::tell_reach(job, link)?;
    }
    link.send(&Message::Bypass { position: state.to_string(), domain })?;
    accepted(link.recv()?, Logical::Never)?;
    job.progress.ledger.ist_follows(state);
    tracing::info!("IST follows from {state}; no data is sent");
    Ok((state, domain))
}

/// What both sides agreed on.
enum Agreed {
    /// IST follows from this position; no data is sent.
    Bypass(Position),
    /// Data will be sent.
    Transfer(Box<Terms>),
}

/// What the donor found in its datadir, and the joiner's answer to the offer.
struct Terms {
    layout: Layout,
    engines: EnginePolicy,
    offered: Scan,
    accepted: Accepted,
}

fn agree(job: &Job, link: &mut Link, account: Option<&Account>) -> Result<Terms> {
    job.progress.phase("listing files", "");
    let layout = Layout::resolve(&job.args, &job.options)?;
    let engines = EnginePolicy::from_options(&job.options);
    let offered = scan::scan(&layout, &engines)?;
    offered.refuse_what_cannot_travel()?;
    unreadable::refuse_in_use(job, account, &offered)?;
    let accepted = offer::agree(job, link, &layout, &offered)?;
    Ok(Terms { layout, engines, offered, accepted })
}

fn transfer(job: &Job, link: &mut Link, context: &TransferContext, terms: Terms) -> Result<Position> {
    let Terms { layout, engines, offered, accepted } = terms;
    let size = Offered {
        bytes: scan::bytes(&offered.files, true),
        without_redo: scan::bytes(&offered.files, false),
        tablespaces: offered.files.iter().filter(|file| is_tablespace(&file.path)).count() as u64,
    };
    let memory = memory(job, accepted.own_key.as_ref());
    let is_remembered = |file: &&ScannedFile| memory.as_ref().is_some_and(|m| m.find(&file.look).is_some());
    let remembered = offered.files.iter().filter(is_remembered).map(|file| file.entry.size).sum();
    // Each snapshot lists the files again, and the list can be very long.
    let skipped = offered.skipped;
    drop(offered.files);

    let session = DonorSession {
        job,
        context,
        accepted: &accepted,
        layout: &layout,
        engines: &engines,
        skipped: &skipped,
        offered: size,
        memory,
        remembered,
    };
    if context.deep_ist
        && let Some(position) = deep_ist::send_write_sets(&session, link)?
    {
        return Ok(position);
    }
    let mut sent = session.send(link)?;
    loop {
        link.tell_total()?;
        job.progress.all_is_copied();
        let bytes = sent.list.files().total_bytes();
        job.progress.phase("waiting for the joiner to store everything", &format!("{} chunks", sent.chunks));
        let position = sent.position;
        job.progress.ledger.update(|record| record.position.after = Some(position.0.to_string()));
        send_file_list(link, sent)?;
        match link.recv()? {
            Message::NotPrepared { why } => sent = session.instead_of_mariabackup(link, &why)?,
            stored => {
                expect(stored, &Message::Stored)?;
                log_totals(job, bytes);
                remember(session.memory.as_deref());
                return Ok(position);
            }
        }
    }
}

/// What this node remembers of its files; `None` if nothing is remembered. The transfer does not depend on it. `joiners`: the key
/// under which the joiner remembers.
fn memory(job: &Job, joiners: Option<&FingerprintKey>) -> Option<Arc<Memory>> {
    let open = || {
        joiners.map_or(Ok(()), |key| store::agree_on_key(&job.datadir, key))?;
        Memory::open(&job.datadir)
    };
    let memory = job.settings.remember_fingerprints.then(open).unwrap_or(Ok(None));
    let memory = memory.unwrap_or_else(|error| {
        tracing::warn!("fingerprints are not remembered: {error:#}");
        None
    });
    memory.map(Arc::new)
}

fn remember(memory: Option<&Memory>) {
    match memory.map_or(Ok(None), Memory::save) {
        Ok(Some((files, bytes))) => {
            tracing::info!(
                "the fingerprints of {} in {files} files are remembered",
                crate::human::size(bytes)
            );
        }
        Ok(None) => {}
        Err(error) => tracing::warn!("fingerprints are not remembered: {error:#}"),
    }
}

fn send_file_list(link: &mut Link, sent: Sent) -> Result<()> {
    sent.list.messages(|files| link.gather(files))?;
    let (count, (state, domain)) = (sent.list.files().len() as u32, sent.position);
    let (position, binlog_state) = (state.to_string(), sent.binlog_state);
    link.send(&Message::FilesEnd { count, position, domain, binlog_state })?;
    link.send(&Message::Complete { chunks: sent.chunks })
}

fn log_totals(job: &Job, bytes: u64) {
    let wire = job.progress.wire_bytes();
    let seconds = job.progress.elapsed().as_secs_f64();
    let size = crate::human::size;
    let rate = size((bytes as f64 / seconds) as u64);
    tracing::info!("sent {} as {} on the network in {seconds:.1} s ({rate}/s)", size(bytes), size(wire));
}
