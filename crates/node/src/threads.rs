//! Work that several threads of ours share.
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

/// What a thread answered.
///
/// # Errors
/// Its own; it panicked.
pub fn joined<T>(thread: std::thread::Result<Result<T>>) -> Result<T> {
    thread.unwrap_or_else(|_| Err(Failure::new(Kind::Disk, "a worker panicked").into()))
}
