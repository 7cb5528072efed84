//! Statements a client of a node repeats in the background until it is stopped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use mysql::Conn;

use crate::node::Node;
use crate::sql;

/// How long a statement may take until its connection is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A thread that does one thing again and again on a connection of its own. Dropping it tells it to stop.
#[derive(Debug)]
pub struct Repeated {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Failures>>,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repetitions {
    /// Steps that succeeded.
    pub done: u64,
    /// Steps that failed.
    pub failed: u64,
    /// The last failure.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    done: AtomicU64,
}

#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: Option<String>,
}

impl Repeated {
    /// Runs `step` against `node`, `every` from one start to the next. A step that fails is counted; where the
    /// connection was lost with it the next step gets a new one.
    pub fn start<F>(node: &Node, name: &str, every: Duration, step: F) -> Result<Self>
    where
        F: FnMut(&mut Conn) -> Result<()> + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let (work, socket) = (Arc::clone(&shared), node.socket());
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || repeat(&work, &socket, every, step)).context(name.to_owned())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Steps that succeeded so far.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Relaxed)
    }

    /// Tells it to stop and does not wait.
    pub fn halt(&self) {
        self.shared.stop.store(true, Relaxed);
    }

    /// Stops it and waits for the end of the step under way.
    pub fn stop(mut self) -> Result<Repetitions> {
        self.halt();
        let thread = self.thread.take().context("stopped already")?;
        let failures = thread.join().map_err(|_| anyhow!("a repeating thread panicked"))?;
        Ok(Repetitions { done: self.done(), failed: failures.count, last_error: failures.last })
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.halt();
    }
}

fn repeat<F>(shared: &Shared, socket: &Path, every: Duration, mut step: F) -> Failures
where
    F: FnMut(&mut Conn) -> Result<()>,
{
    let mut failures = Failures::default();
    let mut conn: Option<Conn> = None;
    while !shared.stop.load(Relaxed) {
        let start = Instant::now();
        match once(&mut conn, socket, &mut step) {
            Ok(()) => {
                shared.done.fetch_add(1, Relaxed);
            }
            Err(error) => {
                failures.count += 1;
                failures.last = Some(format!("{error:#}"));
            }
        }
        std::thread::sleep(every.saturating_sub(start.elapsed()));
    }
    failures
}

fn once<F>(conn: &mut Option<Conn>, socket: &Path, step: &mut F) -> Result<()>
where
    F: FnMut(&mut Conn) -> Result<()>,
{
    let live = match conn {
        Some(live) => live,
        None => conn.insert(sql::connect(socket, PATIENCE)?),
    };
    let result = step(live);
    if result.is_err() && live.ping().is_err() {
        *conn = None;
    }
    result
}
