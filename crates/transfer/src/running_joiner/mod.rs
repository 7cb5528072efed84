//! The donor's side of a transfer to a server that runs already (`wsrep_sst_method=mysqldump`, the one method that a server takes
//! after its start). No program of ours runs on the joiner: the donor logs in to its server and gives it definitions and rows, as
//! the logical snapshot reads them. From top to bottom:
//!
//! 1. log in, and make sure that this is the server that waits for this state (`joiner`);
//! 2. make the donor's tables in databases of their own, beside the server's old data, and load them while they are read (`incoming`);
//! 3. when everything is there, put it in the place of the old data (`exchange`);
//! 4. tell the server its position, with which its wait ends.
//!
//! Until step 3 the server has its old data; then there is no way back (docs/logical.md, docs/decisions/0047).
//!
//! | module | owns |
//! |---|---|
//! | `joiner` | the joiner's server: its sessions, what it must be, settings that are changed for the time |
//! | `proxy` | the connections to it: TLS where it offers it, and no password without |
//! | `incoming` | tables and rows on their way |
//! | `exchange` | the new data takes the place of the old one |
//! | `note` | the record that one transfer leaves there for the next |
//! | `cleanup` | after a failure: removes what arrived, and leaves the reason there |
//! | `voice` | the progress of the snapshot, for the status of the transfer |
mod cleanup;
mod exchange;
mod incoming;
mod joiner;
mod note;
mod proxy;
mod voice;

use anyhow::{Context, Result};
use formats::wsrep::credentials::Account;
use formats::wsrep::invocation::Role;
use formats::wsrep::report::ReportLine;
use formats::wsrep::state_id::{AnnotatedStateId, StateId};
use protocol::message::SnapshotKind;

use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan;
use crate::donor::plan_by_rows;
use crate::failure::{Failure, Kind};
use crate::human::size;
use crate::job::Job;
use crate::limits::Minute;
use crate::load::governor::Governor;
use crate::panics::caught;
use crate::server::credentials::{self, Credentials};
use crate::server::synced;
use crate::server::version::server_version;
use crate::snapshot::declined::{Declined, SnapshotError};
use crate::snapshot::logical::locked::LockedTables;
use crate::snapshot::logical::{Isolation, Logical};
use crate::sql::{ANSWER_WITHIN, Login, Session};
use cleanup::Data;
use incoming::Incoming;
use joiner::Joiner;
use voice::Voice;

/// The value of `wsrep_sst_method` for which the server runs us.
pub const METHOD: &str = "mysqldump";
/// The name of the program that it runs then.
pub const PROGRAM: &str = "wsrep_sst_mysqldump";

/// Serves one running joiner.
///
/// # Errors
/// Its server is not reached or refuses something, the donor's data cannot be read, or cancelled.
pub fn run(job: &Job) -> Result<()> {
    job.progress.phase("contacting the joiner", "");
    let _limit = job.limit()?;
    if job.args.role == Some(Role::Joiner) {
        let text =
            format!("a joiner needs no program for wsrep_sst_method=mysqldump; {PROGRAM} is the donor's");
        return Err(Failure::new(Kind::Configuration, text).into());
    }
    let given = given_position(job)?;
    job.record_node();
    // The rows are not slowed for the server: on 10.11 its clients wait for their end.
    let governor = Governor::of_limits(job)?;
    let Credentials { local, remote } = credentials::collect(&job.args, &job.options, true);
    let socket = synced::socket_path(job.args.socket.as_deref(), &job.datadir);
    let donor = Login::at_socket(&socket, local.as_ref().or(remote.as_ref()));
    let joiner = Joiner::find(job, &donor, remote.as_ref().or(local.as_ref()), governor.throttle())?;
    let state = match job.args.bypass {
        true => bypass(job, &joiner, given.state)?,
        false => transfer(job, &joiner, donor, given)?,
    };
    // An older server waits for our end, and knows the position itself.
    if job.args.role.is_some() {
        job.report.print(&ReportLine::Done { state, domain: given.domain })?;
    }
    Ok(())
}

/// The position that the server gave us. It holds that state still if it waits for our end: then it says no role.
fn given_position(job: &Job) -> Result<AnnotatedStateId> {
    let text = job.args.gtid.as_deref().unwrap_or("");
    let given = StateId::parse_annotated(text).with_context(|| format!("the server gave --gtid {text:?}"))?;
    Ok(AnnotatedStateId { domain: given.domain.or(job.args.gtid_domain_id), ..given })
}

/// IST follows: the joiner keeps its data, whose position is the one that we were given.
fn bypass(job: &Job, joiner: &Joiner<'_>, state: StateId) -> Result<StateId> {
    job.progress.ledger.ist_follows(state);
    joiner.starts_at(job.args.gtid.as_deref().unwrap_or_default())?;
    tracing::info!("IST follows from {state}; no data is sent");
    Ok(state)
}

fn transfer(job: &Job, joiner: &Joiner<'_>, donor: Login, given: AnnotatedStateId) -> Result<StateId> {
    let isolation = match job.args.role {
        None => Isolation::Server(given.state),
        Some(_) => Isolation::BackupLocks,
    };
    let reason = format!("the joiner's server runs already (wsrep_sst_method={METHOD})");
    job.progress.ledger.attempt(SnapshotKind::Logical, &reason);
    tracing::info!("snapshot: logical: {reason}");
    let (layout, engines) =
        (Layout::resolve(&job.args, &job.options)?, EnginePolicy::from_options(&job.options));
    let bytes = plan(job, joiner, &donor, (&layout, &engines), isolation)?;
    let logical = Logical {
        login: donor,
        layout: &layout,
        server_version: server_version(job.server),
        skip: &engines.skip,
        threads: usize::from(job.settings.threads),
        budget: job.settings.consistency_point,
        desynced: 1,
        blocking: job.settings.blocking,
        isolation,
    };
    let incoming = Incoming::new(job, joiner);
    let loaded = caught(|| {
        // Here, so that the reason is left on the joiner's host too.
        job.settings.limits.permit_rows(bytes, Minute::now())?;
        let mut session = joiner.session()?;
        joiner.check_rights(&mut session)?;
        joiner.give_back(session);
        let read = logical.read(&incoming, &Voice(job), &job.cancel).map_err(failed)?;
        tracing::info!("{}", read.summary);
        let rows = incoming.complete(&read.contents)?;
        let (bytes, seconds) = (joiner.sent(), job.progress.elapsed().as_secs_f64());
        tracing::info!(
            "loaded {rows} rows of {} tables, {} in {seconds:.1} s, beside the joiner's old data",
            read.contents.tables.len(),
            size(bytes)
        );
        let mut session = joiner.session()?;
        job.cancel.check()?;
        joiner.leave_note(&mut session, true)?;
        Ok((read, session))
    });
    let (read, session) = loaded.inspect_err(|error| cleanup::after_failure(joiner, error, Data::Old))?;
    let state = read.position.state;
    job.progress.ledger.update(|record| record.position.after = Some(state.to_string()));
    let exchanged = exchange::exchange(job, joiner, &incoming, &read, session);
    exchanged.map_err(|error| exchange::half_done(joiner, error))?;
    let position = match isolation {
        // With the server's own GTID.
        Isolation::Server(_) => job.args.gtid.clone().unwrap_or_default(),
        Isolation::BackupLocks => state.to_string(),
    };
    joiner.starts_at(&position).inspect_err(|error| cleanup::after_failure(joiner, error, Data::New))?;
    tracing::info!("{} has the state {state}", joiner.name());
    Ok(state)
}

/// Records and logs what is expected. Returns the bytes of the files whose rows are sent.
fn plan(
    job: &Job,
    joiner: &Joiner<'_>,
    donor: &Login,
    (layout, engines): (&Layout, &EnginePolicy),
    isolation: Isolation,
) -> Result<u64> {
    let bytes = scan::bytes(&scan::scan(layout, engines)?.files, false);
    let session = Session::open(donor, ANSWER_WITHIN).ok();
    let tables = session.and_then(|mut session| LockedTables::seen(&mut session, &engines.skip));
    let server_holds = matches!(isolation, Isolation::Server(_));
    let (rlimit, blocking) = (joiner.rlimit(), job.settings.blocking);
    let hold = tables.and_then(|tables| tables.hold(Some(bytes), rlimit, blocking, server_holds));
    let plan = plan_by_rows(bytes, hold.as_ref());
    tracing::info!("{}", plan.words);
    job.progress.attempt(bytes);
    job.progress.ledger.update(|record| record.plan = Some(plan));
    Ok(bytes)
}

/// Why the donor's data cannot be read, for both logs.
fn failed(error: SnapshotError) -> anyhow::Error {
    match error {
        SnapshotError::Failed(error) => error,
        SnapshotError::Declined(declined) => {
            let kind = match declined {
                Declined::NoLogin(_) | Declined::MissingPrivilege { .. } => Kind::Configuration,
                _ => Kind::Server,
            };
            Failure::new(kind, format!("no logical snapshot of this donor: {declined}")).into()
        }
    }
}

/// The account with which the joiner's server is entered: the one that the joiner has sent, or that of `wsrep_sst_auth`.
fn account_for(joiner: &str, account: Option<&Account>) -> Result<Account, Failure> {
    account.filter(|account| !account.user.is_empty()).cloned().ok_or_else(|| {
        let text = format!("no account is known with which to log in to the joiner's server at {joiner}");
        Failure::new(Kind::Configuration, text)
            .hint("set wsrep_sst_auth=NAME:PASSWORD on the donor, of an account that may log in to the joiner over the network")
    })
}
