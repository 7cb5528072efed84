//! All threads of this program are started here, so that a panic in any of them is an error like any other (see
//! [`crate::panics`]). Also: work that several threads share.
mod kind;

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use anyhow::Result;

use crate::failure::{Failure, Kind};
use crate::panics::{cancel_transfer, caught};
pub use kind::Thread;

impl Thread {
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
pub fn scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    thread: Thread,
    body: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Running<'scope, T> {
    try_scoped(scope, thread, body).unwrap_or_else(|failure| {
        cancel_transfer(&failure);
        Running(Err(failure))
    })
}

/// Starts a thread of a scope that the caller can do without.
///
/// # Errors
/// The system cannot start one.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn try_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    thread: Thread,
    body: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<Running<'scope, T>, Failure> {
    let body = move || {
        caught(|| {
            thread.panic_on_purpose();
            body()
        })
    };
    let started = thread.builder().spawn_scoped(scope, body).map_err(|e| thread.cannot_start(&e))?;
    Ok(Running(Ok(started)))
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
