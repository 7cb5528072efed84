//! Work that several threads of ours share.
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use crate::failure::{Failure, Kind};

/// Does the same work in so many threads. All are waited for, then the first error counts.
///
/// # Errors
/// Of the work; a thread panicked.
pub fn in_threads(threads: usize, work: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done: Vec<_> = workers.into_iter().map(|worker| joined(worker.join())).collect();
        done.into_iter().collect()
    })
}

/// Does the same with each of these, several at a time. The answers come in no order.
///
/// # Errors
/// As [`in_threads`].
pub fn each_in_threads<T: Send, U: Send>(
    threads: usize,
    items: Vec<T>,
    work: &(dyn Fn(T) -> Result<U> + Sync),
) -> Result<Vec<U>> {
    let threads = threads.min(items.len());
    let (items, done) = (Mutex::new(items.into_iter()), Mutex::new(Vec::new()));
    let next = || lock(&items).next();
    in_threads(threads, &|| {
        while let Some(item) = next() {
            let answer = work(item)?;
            lock(&done).push(answer);
        }
        Ok(())
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread answered.
///
/// # Errors
/// Its own; it panicked.
pub fn joined<T>(thread: std::thread::Result<Result<T>>) -> Result<T> {
    thread.unwrap_or_else(|_| Err(Failure::new(Kind::Disk, "a worker panicked").into()))
}
