//! A panic in any thread of either role: both programs end soon, both say where it was, and the donor's server is free.
//!
//! A real server is the donor's, so that the online snapshot has its locks when it happens; the programs run under fake
//! parents. Debug builds of the program can be told to panic in a thread (`transfer::threads::Thread`).
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, Node, data};
use rustix::process::Signal;
use transfer::threads::Thread;

use super::fake::{Call, Ended, Run};
use super::fake_transfer::{Fakes, SOON};
use super::pair::{last_log, until};

/// From the start of a program to its end: less than what the last resort alone would take after the panic.
const END: Duration = Duration::from_secs(15);
const ACCOUNT: &str = "wsrep-sst-auth=root:";
/// Everything is sent, in minutes.
const SLOW: [&str; 4] = [ACCOUNT, "incremental=0", "rlimit=100k", "compress=none"];
const QUICK: [&str; 1] = [ACCOUNT];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Donor,
    Joiner,
}

use Role::{Donor, Joiner};

/// A thread that panics, and when.
struct Case {
    thread: Thread,
    role: Role,
    /// How long it waits first: for the other threads to be in the middle of their work.
    after: Duration,
    /// Under `[sst]` of both.
    sst: Vec<&'static str>,
    /// The other side is connected already, and receives the reason.
    is_told: bool,
}

impl Case {
    fn of(thread: Thread, role: Role) -> Case {
        Case { thread, role, after: Duration::ZERO, sst: QUICK.to_vec(), is_told: true }
    }

    fn with(mut self, option: &'static str) -> Case {
        self.sst.push(option);
        self
    }

    /// While data flows.
    fn midway(self) -> Case {
        Case { after: Duration::from_millis(800), sst: SLOW.to_vec(), ..self }
    }

    fn before_they_meet(self) -> Case {
        Case { is_told: false, ..self }
    }
}

/// Every kind of thread has its cases here, or a word why not.
fn cases(thread: Thread) -> Vec<Case> {
    let donor = || Case::of(thread, Donor);
    let joiner = || Case::of(thread, Joiner);
    match thread {
        Thread::Main => vec![donor(), joiner()],
        Thread::Signals | Thread::Grace | Thread::ServerWatch | Thread::Progress => {
            vec![donor().midway(), joiner().midway()]
        }
        Thread::SocketWatch | Thread::Governor => vec![donor().midway()],
        Thread::Work => vec![donor(), joiner()],
        Thread::Resolver => vec![donor().before_they_meet()],
        // The server has answered `flush tables` by then, and what it answered is removed.
        Thread::Sender => {
            let blocking = donor().midway().with("snapshot=blocking");
            vec![donor().midway(), Case { after: Duration::from_secs(4), ..blocking }]
        }
        Thread::Questions | Thread::Answers => vec![donor()],
        Thread::RedoReader | Thread::RedoWriter => vec![donor().midway()],
        Thread::PageReader => vec![donor().midway().with("threads=2")],
        Thread::FileReader => vec![donor().with("threads=2")],
        Thread::BackupLocks => vec![donor()],
        // Once the server has answered, which a test does here, its answer is removed.
        Thread::BlockingLimit => {
            let blocking = donor().midway().with("snapshot=blocking").with("blocking=600");
            vec![Case { after: Duration::from_secs(4), ..blocking }]
        }
        Thread::TimeLimit => {
            vec![donor().midway().with("max-time=600"), joiner().midway().with("max-time=600")]
        }
        Thread::CheckpointWatch => vec![donor()],
        // Where the redo costs more than that: at a low limit little of it does.
        Thread::Checkpoint => vec![Case { sst: SLOW.to_vec(), ..donor() }],
        // Before it is gone a donor is in its queue.
        Thread::Listener => vec![joiner().midway().before_they_meet()],
        Thread::Handshake => vec![joiner().before_they_meet()],
        Thread::Admission => vec![joiner()],
        Thread::Receiver => vec![joiner().midway()],
        Thread::Sampler | Thread::Fingerprints => vec![joiner()],
        Thread::Settling | Thread::ReadBack => vec![joiner().with("threads=2")],
        Thread::ProgramOutput | Thread::BackupReader | Thread::BackupWatch => {
            vec![donor().with("snapshot=mariabackup")]
        }
        Thread::RowReader | Thread::RowWatch => vec![donor().with("snapshot=logical")],
        Thread::Loading | Thread::Loader | Thread::RowFeeder | Thread::LoadWatch => {
            vec![joiner().with("snapshot=logical")]
        }
        Thread::BlockReader => vec![joiner().with("threads=2").with("incremental=0")],
        // Starts in the same way as those that read pages first, and only for a large file that changed meanwhile.
        Thread::PageRereader => vec![],
        // Of operators' commands: below.
        Thread::Member | Thread::Comparer => vec![],
        // Of the process that relays IST, after the transfer: it has no peer program, and its end ends the connection.
        Thread::RelayOrders | Thread::RelaySession | Thread::RelayCaller => vec![],
        // Of the donor of a server that runs already, where no program of ours is: running_joiner/panics.rs.
        Thread::SqlListener | Thread::SqlConnection => vec![],
        // Of the archiver, which is no part of a transfer.
        Thread::ArchiveWriter | Thread::ArchiveReader | Thread::RelayStandIn | Thread::RelayListener => {
            vec![]
        }
        // Threads of the server of metrics.
        Thread::HttpConnection | Thread::CacheMetrics => vec![],
        // Started by a panic: below.
        Thread::LastResort => vec![],
    }
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build panics on purpose")]
fn a_panic_in_any_thread_of_the_donor_ends_both_programs() -> Result<()> {
    operators_commands(&every_thread_of(Donor)?)
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "only a debug build panics on purpose")]
fn a_panic_in_any_thread_of_the_joiner_ends_both_programs() -> Result<()> {
    the_last_resort(&every_thread_of(Joiner)?).context("the last resort")
}

fn every_thread_of(role: Role) -> Result<Fakes> {
    let fakes = Fakes::of(Cluster::builder().nodes(2))?;
    fakes.donor().bootstrap()?;
    data::sysbench_tables(fakes.donor(), 2, 2000)?;
    fakes.donor().exec(&["CREATE TABLE sbtest.written (a INT AUTO_INCREMENT PRIMARY KEY)"])?;
    for case in Thread::ALL.iter().copied().flat_map(cases).filter(|case| case.role == role) {
        let what =
            format!("{:?} of the {:?} with {:?} after {:?}", case.thread, case.role, case.sst, case.after);
        panics(&fakes, &case).context(what)?;
    }
    // Nothing of all that is in the way of a transfer.
    fakes.set_sst(&QUICK)?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let donor = fakes.full(&address, &auth)?.end(SOON)?;
    ensure!(donor.code == Some(0) && joiner.end(SOON)?.code == Some(0), "{}", donor.stderr);
    Ok(fakes)
}

fn panics(fakes: &Fakes, case: &Case) -> Result<()> {
    fakes.set_sst(&case.sst)?;
    if case.thread == Thread::Checkpoint {
        // An earlier transfer may have had a checkpoint made.
        fakes.donor().exec(&["UPDATE sbtest.sbtest1 SET c = REVERSE(c), k = k + 1"])?;
    }
    let name = case.thread.name();
    let wanted = format!("{name}:{}", case.after.as_millis());
    let told = |role, call: Call| if case.role == role { call.env("REJOIN_PANIC_IN", &wanted) } else { call };
    // Only a name is resolved.
    let host = if case.thread == Thread::Resolver { "localhost" } else { "127.0.0.1" };
    let line = fakes.joiner_line(&format!("{host}:{}", fakes.joiner().ports().sst()), 0);
    let call = Call::new(line, &fakes.joiner().datadir()).env("WSREP_SST_OPT_AUTH", "");
    let mut joiner = told(Joiner, call).start()?;
    let (auth, address) = joiner.ready()?;
    let donor = fakes.donor_call(fakes.donor_line(&address, 0, ""), &auth);
    let mut donor = told(Donor, donor).start()?;
    if case.sst.contains(&"snapshot=blocking") {
        fakes.stand_still_for(&mut donor)?;
    }
    let (donor, joiner) = both_end(case, donor, joiner)?;
    let (here, there) = if case.role == Donor { (&donor, &joiner) } else { (&joiner, &donor) };
    let reason = format!("internal error: thread `{name}` panicked at crates/transfer/src/threads.rs:");
    says(here, 125, &reason)?;
    if case.is_told {
        let words = if case.role == Donor { "the donor gave up: " } else { "the joiner gave up: " };
        says(there, 103, &format!("{words}{reason}"))?;
    }
    for (ended, node, role) in [(&donor, fakes.donor(), "donor"), (&joiner, fakes.joiner(), "joiner")] {
        ensure!(
            !ended.stderr.contains("has not ended within"),
            "the last resort was needed:\n{}",
            ended.stderr
        );
        ensure!(ended.took < END, "the {role} took {:?}", ended.took);
        if case.is_told {
            let log = last_log(node, role)?;
            ensure!(log.contains(&reason), "the {role}'s transfer log does not say it:\n{log}");
        }
    }
    if case.sst.contains(&"snapshot=blocking") {
        assert_eq!(donor.stdout, ["flush tables", "continue"]);
    }
    is_free(fakes.donor())?;
    fakes.nothing_is_left()
}

fn both_end(case: &Case, donor: Run, joiner: Run) -> Result<(Ended, Ended)> {
    let donor = donor.end(END * 2)?;
    if case.thread == Thread::Resolver {
        // No donor has connected to the joiner. Its server learns from the group that none will, and stops its program.
        joiner.signal(Signal::TERM)?;
    }
    Ok((donor, joiner.end(END)?))
}

fn says(ended: &Ended, code: i32, words: &str) -> Result<()> {
    let said = |line: &str| line.starts_with("WSREP_SST: [ERROR]") && line.contains(words);
    ensure!(ended.stderr.lines().any(said), "nobody says {words:?}:\n{}", ended.stderr);
    ensure!(ended.code == Some(code), "code {:?}:\n{}", ended.code, ended.stderr);
    Ok(())
}

/// The server takes writes and DDL, and no session of the program is left.
fn is_free(donor: &Node) -> Result<()> {
    let began = Instant::now();
    donor.exec(&["INSERT INTO sbtest.written VALUES ()", "ALTER TABLE sbtest.written COMMENT = 'free'"])?;
    ensure!(began.elapsed() < Duration::from_secs(20), "writing took {:?}", began.elapsed());
    until("no session is left", Duration::from_secs(5), || {
        let others = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'root' AND ID <> CONNECTION_ID()";
        Ok(donor.value(others)? == "0" && donor.status("wsrep_desync_count")? == "0")
    })
}

/// An operator's command says so and goes on, or ends with its code for that.
fn operators_commands(fakes: &Fakes) -> Result<()> {
    let rejoin = |thread: Thread| {
        let mut command = Command::new(fakes.cluster.program_dir().join("rejoin"));
        command.env("REJOIN_PANIC_IN", thread.name());
        command
    };
    let joiner = fakes.joiner();
    let mut compare = rejoin(Thread::Comparer);
    compare.arg("verify").arg("--datadir").arg(joiner.datadir()).arg("--with").arg(joiner.datadir());
    let out = compare.output()?;
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(
        words.contains("internal error: thread `comparer` panicked at ") && !out.status.success(),
        "{words}"
    );
    assert_eq!(out.status.code(), Some(3), "{words}");
    let mut check = rejoin(Thread::Member);
    check.arg("check").arg("--defaults-file").arg(joiner.option_file());
    let out = check.output()?;
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(words.contains("internal error: thread `member` panicked at "), "{words}");
    let findings = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(findings.contains("members") && out.status.code().is_some_and(|code| code < 3), "{findings}");
    Ok(())
}

/// A thread that looks at nothing while it works: the program is ended, and leaves what it would leave if it were killed.
fn the_last_resort(fakes: &Fakes) -> Result<()> {
    fakes.set_sst(&QUICK)?;
    let line = fakes.joiner_line(&format!("127.0.0.1:{}", fakes.joiner().ports().sst()), 0);
    let call = Call::new(line, &fakes.joiner().datadir()).env("WSREP_SST_OPT_AUTH", "");
    let call = call.env("REJOIN_PANIC_IN", "progress:800").env("REJOIN_HANG_IN", "main");
    let mut joiner = call.start()?;
    let (auth, address) = joiner.ready()?;
    let donor = fakes.full(&address, &auth)?.end(END)?;
    let joiner = joiner.end(END)?;
    says(&joiner, 125, "internal error: thread `progress` panicked at ")?;
    says(&joiner, 125, "has not ended within 5 s after a panic")?;
    ensure!(joiner.took < Duration::from_secs(10), "{:?}", joiner.took);
    says(&donor, 103, "the joiner at ")?;
    is_free(fakes.donor())?;
    fakes.nothing_is_left()
}
