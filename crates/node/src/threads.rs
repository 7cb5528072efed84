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
            match work(item) {
                Ok(answer) => lock(&done).push(answer),
                Err(error) => {
                    // The others need not go on.
                    lock(&items).by_ref().for_each(drop);
                    return Err(error);
                }
            }
        }
        Ok(())
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What threads share; a thread that panicked with it has said so already.
pub fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread answered.
///
/// # Errors
/// Its own; it panicked.
pub fn joined<T>(thread: std::thread::Result<Result<T>>) -> Result<T> {
    thread.unwrap_or_else(|_| Err(Failure::new(Kind::Disk, "a worker panicked").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_done_once_and_an_error_ends_it() {
        let mut done = each_in_threads(3, (0..100).collect(), &|n: u32| Ok(n + 1)).unwrap();
        done.sort_unstable();
        assert_eq!(done, (1..=100).collect::<Vec<_>>());
        assert!(each_in_threads(3, Vec::<u32>::new(), &|n| Ok(n)).unwrap().is_empty());
        let begun = Mutex::new(0);
        let error = each_in_threads(2, (0..1000).collect(), &|n: u32| {
            *lock(&begun) += 1;
            std::thread::sleep(std::time::Duration::from_millis(1));
            if n == 5 { Err(Failure::new(Kind::Disk, "five").into()) } else { Ok(()) }
        });
        assert!(error.unwrap_err().to_string().contains("five"));
        assert!(*lock(&begun) < 500, "the others went on");
    }
}
