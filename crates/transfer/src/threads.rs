//! All threads of this program are started here, so that a panic in any of them is an error like any other (see
//! [`crate::panics`]). Also: work that several threads share.
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use anyhow::Result;

use crate::failure::{Failure, Kind};
use crate::panics::{cancel_transfer, caught};

/// What a thread is for. Its name stands in the reason when it panics, and in the kernel's list of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The program's first thread, which carries out a role.
    Main,
    /// Waits for signals.
    Signals,
    /// Ends the program if it has not ended after a signal or the server's end.
    Grace,
    /// Waits for the server's end.
    ServerWatch,
    /// Waits until the server closes its socket.
    SocketWatch,
    /// Writes the status file and the progress lines.
    Progress,
    /// Donor: steers the speed of the transfer.
    Governor,
    /// Ends the transfer when it takes longer than the operator allows.
    TimeLimit,
    /// Does long work while the control connection is kept alive.
    Work,
    /// Ends the program if it has not ended after a panic.
    LastResort,
    /// Donor: resolves the joiner's name.
    Resolver,
    /// Donor: sends on one connection.
    Sender,
    /// Donor: asks what the joiner has.
    Questions,
    /// Donor: receives the answers.
    Answers,
    /// Donor: follows the redo log.
    RedoReader,
    /// Donor: passes on the redo that was read.
    RedoWriter,
    /// Donor: reads data files.
    PageReader,
    /// Donor: reads pages again under the backup lock.
    PageRereader,
    /// Donor: reads small files.
    FileReader,
    /// Donor: watches the server's checkpoints.
    CheckpointWatch,
    /// Donor: has the server make a checkpoint.
    Checkpoint,
    /// Donor: owns the session that takes the backup locks.
    BackupLocks,
    /// Donor: ends a blocking snapshot when its time is over.
    BlockingLimit,
    /// Joiner: accepts connections.
    Listener,
    /// Joiner: does the handshake of one connection.
    Handshake,
    /// Joiner: starts a receiving thread for each connection.
    Admission,
    /// Joiner: receives on one connection.
    Receiver,
    /// Joiner: computes fingerprints of its old files.
    Fingerprints,
    /// Joiner: prepares received files for the install.
    Settling,
    /// Joiner: reads back what was staged.
    ReadBack,
    /// Joiner: reads back a part of it.
    BlockReader,
    /// Joiner: makes files of a logical snapshot, and runs the private server for that.
    Loading,
    /// Joiner: loads tables of a logical snapshot.
    Loader,
    /// Joiner: hands the rows of one table to the private server.
    RowFeeder,
    /// Joiner: ends the private server if the transfer is cancelled.
    LoadWatch,
    /// Donor: reads rows of a logical snapshot.
    RowReader,
    /// Donor: accepts our own client's connections to a running joiner.
    SqlListener,
    /// Donor: passes on one connection to a running joiner.
    SqlConnection,
    /// Donor: ends the sessions of a logical snapshot early.
    RowWatch,
    /// Relay of IST: receives the orders of the joiner's program.
    RelayOrders,
    /// Relay of IST: passes one connection on.
    RelaySession,
    /// Relay of IST: greets one connection that may be the donor's.
    RelayCaller,
    /// The archiver: stands in for a relay of IST while there is none.
    RelayStandIn,
    /// The archiver: accepts connections meanwhile.
    RelayListener,
    /// An operator's command: asks one member.
    Member,
    /// An operator's command: compares two datadirs.
    Comparer,
    /// The archiver: writes what was taken from the provider's cache.
    ArchiveWriter,
    /// An operator's server of metrics: answers one request.
    HttpConnection,
    /// An operator's server of metrics: reads the provider's cache.
    CacheMetrics,
    /// Reads what another program says.
    ProgramOutput,
    /// Donor: sends what mariadb-backup writes.
    BackupReader,
    /// Donor: ends a backup that waits for its locks too long.
    BackupWatch,
}

impl Thread {
    /// All kinds of threads.
    pub const ALL: [Thread; 52] = [
        Thread::Main,
        Thread::Signals,
        Thread::Grace,
        Thread::ServerWatch,
        Thread::SocketWatch,
        Thread::Progress,
        Thread::Governor,
        Thread::TimeLimit,
        Thread::Work,
        Thread::LastResort,
        Thread::Resolver,
        Thread::Sender,
        Thread::Questions,
        Thread::Answers,
        Thread::RedoReader,
        Thread::RedoWriter,
        Thread::PageReader,
        Thread::PageRereader,
        Thread::FileReader,
        Thread::CheckpointWatch,
        Thread::Checkpoint,
        Thread::BackupLocks,
        Thread::BlockingLimit,
        Thread::Listener,
        Thread::Handshake,
        Thread::Admission,
        Thread::Receiver,
        Thread::Fingerprints,
        Thread::Settling,
        Thread::ReadBack,
        Thread::BlockReader,
        Thread::Loading,
        Thread::Loader,
        Thread::RowFeeder,
        Thread::LoadWatch,
        Thread::RowReader,
        Thread::SqlListener,
        Thread::SqlConnection,
        Thread::RowWatch,
        Thread::RelayOrders,
        Thread::RelaySession,
        Thread::RelayCaller,
        Thread::RelayStandIn,
        Thread::RelayListener,
        Thread::Member,
        Thread::Comparer,
        Thread::ArchiveWriter,
        Thread::HttpConnection,
        Thread::CacheMetrics,
        Thread::ProgramOutput,
        Thread::BackupReader,
        Thread::BackupWatch,
    ];

    /// Its name: at most 15 bytes, which is what the kernel keeps.
    pub const fn name(self) -> &'static str {
        match self {
            Thread::Main => "main",
            Thread::Signals => "signals",
            Thread::Grace => "grace",
            Thread::ServerWatch => "server watch",
            Thread::SocketWatch => "socket watch",
            Thread::Progress => "progress",
            Thread::Governor => "governor",
            Thread::TimeLimit => "time limit",
            Thread::Work => "work",
            Thread::LastResort => "last resort",
            Thread::Resolver => "resolver",
            Thread::Sender => "sender",
            Thread::Questions => "questions",
            Thread::Answers => "answers",
            Thread::RedoReader => "redo reader",
            Thread::RedoWriter => "redo writer",
            Thread::PageReader => "page reader",
            Thread::PageRereader => "page rereader",
            Thread::FileReader => "file reader",
            Thread::CheckpointWatch => "check watch",
            Thread::Checkpoint => "checkpoint",
            Thread::BackupLocks => "backup locks",
            Thread::BlockingLimit => "blocking limit",
            Thread::Listener => "listener",
            Thread::Handshake => "handshake",
            Thread::Admission => "admission",
            Thread::Receiver => "receiver",
            Thread::Fingerprints => "fingerprints",
            Thread::Settling => "settling",
            Thread::ReadBack => "read back",
            Thread::BlockReader => "block reader",
            Thread::Loading => "loading",
            Thread::Loader => "loader",
            Thread::RowFeeder => "row feeder",
            Thread::LoadWatch => "load watch",
            Thread::RowReader => "row reader",
            Thread::SqlListener => "sql listener",
            Thread::SqlConnection => "sql connection",
            Thread::RowWatch => "row watch",
            Thread::RelayOrders => "relay orders",
            Thread::RelaySession => "relay session",
            Thread::RelayCaller => "relay caller",
            Thread::RelayStandIn => "relay stand-in",
            Thread::RelayListener => "relay listener",
            Thread::Member => "member",
            Thread::Comparer => "comparer",
            Thread::ArchiveWriter => "archive writer",
            Thread::HttpConnection => "http connection",
            Thread::CacheMetrics => "cache metrics",
            Thread::ProgramOutput => "program output",
            Thread::BackupReader => "backup reader",
            Thread::BackupWatch => "backup watch",
        }
    }

    /// In a debug build a test can make a thread panic: `REJOIN_PANIC_IN=NAME[:MILLISECONDS[:NUMBER]]` gives its name, how
    /// long it waits first, and which one of that name it is, if not each. `REJOIN_HANG_IN=NAME` makes one hang. A release build
    /// has neither.
    #[cfg(debug_assertions)]
    #[allow(clippy::panic, reason = "on purpose")]
    pub(crate) fn panic_on_purpose(self) {
        use std::sync::atomic::{AtomicU64, Ordering};
        use std::time::Duration;
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let of_env = |name| std::env::var(name).unwrap_or_default();
        let wanted = of_env("REJOIN_PANIC_IN");
        let mut words = wanted.split(':');
        if words.next() == Some(self.name()) {
            let started = STARTED.fetch_add(1, Ordering::Relaxed) + 1;
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            let (after, only) = (number().unwrap_or(0), number());
            if only.is_none_or(|only| only == started) {
                std::thread::sleep(Duration::from_millis(after));
                panic!("on purpose");
            }
        }
        if of_env("REJOIN_HANG_IN") == self.name() {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }

    #[cfg(not(debug_assertions))]
    pub(crate) fn panic_on_purpose(self) {}

    fn builder(self) -> Builder {
        Builder::new().name(self.name().to_owned())
    }

    fn cannot_start(self, error: &io::Error) -> Failure {
        let text = format!("cannot start the thread `{}`: {error}", self.name());
        let hint =
            "raise the limit of threads of the server's user (ulimit -u, TasksMax of its systemd unit)";
        Failure::new(Kind::Server, text).hint(hint)
    }
}

/// Starts a thread whose result nobody waits for.
///
/// # Errors
/// The system cannot start one.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn spawn(thread: Thread, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let body = move || {
        // The panic hook has logged its error and cancelled the transfer.
        let _ = caught(|| {
            thread.panic_on_purpose();
            body();
            Ok(())
        });
    };
    thread.builder().spawn(body).map_err(|e| thread.cannot_start(&e))
}

/// A thread of a scope.
pub struct Running<'scope, T>(Result<ScopedJoinHandle<'scope, Result<T>>, Failure>);

/// Starts a thread of a scope. One that cannot be started counts as one that has failed, and cancels the transfer.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    thread: Thread,
    body: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Running<'scope, T> {
    let body = move || {
        caught(|| {
            thread.panic_on_purpose();
            body()
        })
    };
    let started = thread.builder().spawn_scoped(scope, body).map_err(|e| thread.cannot_start(&e));
    Running(started.inspect_err(cancel_transfer))
}

impl<T> Running<'_, T> {
    /// Waits for its end.
    ///
    /// # Errors
    /// The thread's own error; it panicked, or could not be started.
    pub fn join(self) -> Result<T> {
        // Only the standard library's part of the thread runs outside of `caught`, and it does not panic.
        self.0?.join().unwrap_or_else(|panic| caught(|| std::panic::resume_unwind(panic)))
    }

    /// Whether it has ended, or was never started.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().map_or(true, ScopedJoinHandle::is_finished)
    }
}

/// Does the same work in `threads` threads. Waits for all of them, then returns the first error.
///
/// # Errors
/// That of the work; a thread panicked.
pub fn in_threads(kind: Thread, threads: usize, work: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scoped(scope, kind, work)).collect();
        let done: Vec<_> = workers.into_iter().map(Running::join).collect();
        done.into_iter().collect()
    })
}

/// Does `work` with each item, several at a time. The results are in no particular order.
///
/// # Errors
/// As [`in_threads`].
pub fn each_in_threads<T: Send, U: Send>(
    kind: Thread,
    threads: usize,
    items: Vec<T>,
    work: &(dyn Fn(T) -> Result<U> + Sync),
) -> Result<Vec<U>> {
    let threads = threads.min(items.len());
    let (items, done) = (Mutex::new(items.into_iter()), Mutex::new(Vec::new()));
    let next = || lock(&items).next();
    in_threads(kind, threads, &|| {
        while let Some(item) = next() {
            match work(item) {
                Ok(answer) => lock(&done).push(answer),
                Err(error) => {
                    // Leave no items, so that the other threads stop.
                    lock(&items).by_ref().for_each(drop);
                    return Err(error);
                }
            }
        }
        Ok(())
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Locks a mutex. If a thread has panicked while it held it, that panic has already ended the transfer.
pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::kind_of;

    #[test]
    fn each_is_done_once_and_an_error_ends_it() {
        let kind = Thread::Comparer;
        let mut done = each_in_threads(kind, 3, (0..100).collect(), &|n: u32| Ok(n + 1)).unwrap();
        done.sort_unstable();
        assert_eq!(done, (1..=100).collect::<Vec<_>>());
        assert!(each_in_threads(kind, 3, Vec::<u32>::new(), &|n| Ok(n)).unwrap().is_empty());
        let begun = Mutex::new(0);
        let error = each_in_threads(kind, 2, (0..1000).collect(), &|n: u32| {
            *lock(&begun) += 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
            if n == 5 { Err(Failure::new(Kind::Disk, "five").into()) } else { Ok(()) }
        });
        assert!(error.unwrap_err().to_string().contains("five"));
        assert!(*lock(&begun) < 500, "the others went on");
    }

    #[test]
    fn a_panic_is_the_threads_error_and_the_scope_goes_on() {
        let error = std::thread::scope(|scope| {
            let thread = scoped(scope, Thread::Sender, || -> Result<()> { panic!("it broke") });
            thread.join().unwrap_err()
        });
        assert_eq!(kind_of(&error), Kind::Internal);
        assert!(error.to_string().contains("it broke"), "{error}");
        // Nobody joins it, and the end of the scope does not panic again.
        std::thread::scope(|scope| drop(scoped(scope, Thread::Sender, || -> Result<()> { panic!("again") })));
        spawn(Thread::Progress, || panic!("alone")).unwrap().join().unwrap();
    }

    #[test]
    fn names_are_short_and_of_one_thread_each() {
        let mut names: Vec<_> = Thread::ALL.iter().map(|thread| thread.name()).collect();
        assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Thread::ALL.len());
    }
}
