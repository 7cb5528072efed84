//! Looking at something again and again in the background.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

/// A thread that changes a `T` by what it sees. Dropping it tells it to stop.
#[derive(Debug)]
pub struct Watcher<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Watcher<T> {
    /// Looks for the first time now, and `every` so often after that.
    pub fn start(name: &str, every: Duration, mut seen: T, look: fn(&mut T)) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let work = move || {
            while !told.load(Relaxed) {
                look(&mut seen);
                std::thread::sleep(every);
            }
            look(&mut seen);
            seen
        };
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(work).context(name.to_owned())?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Looks a last time, and answers what it saw.
    pub fn stop(mut self) -> Result<T> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("stopped already")?;
        thread.join().map_err(|_| anyhow!("a thread that watches panicked"))
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
