//! A logical snapshot while it arrives, between the threads that receive it and those that load it.
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use formats::innodb::wsrep_position::StoredPosition;
use protocol::inventory::FileId;
use protocol::logical::{Contents, DEFINITIONS, is_of_table};

use super::parts::{self, Parts};
use super::referenced::Referenced;
use super::schedule::{Arrived, Next, Schedule, Step};
use super::system::plugins;
use super::{expressible, other_case};
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::datadir::layout::Layout;
use crate::threads::lock;

/// A snapshot that is loaded.
pub(super) struct Begun {
    /// Its number.
    pub number: FileId,
    /// What is known of it beforehand, but for its tables.
    pub contents: Arc<Contents>,
    /// Columns of its tables whose keys other tables need at once.
    pub referenced: Arc<Referenced>,
    /// The rows of `mysql.plugin`.
    pub plugins: Vec<PathBuf>,
}

/// The donor's last word, once everything has arrived.
pub struct Complete {
    /// Everything that is in the snapshot.
    pub contents: Contents,
    /// Its parts.
    pub parts: Parts,
    /// Where the donor was.
    pub position: StoredPosition,
    /// When the last part had arrived.
    pub since: Instant,
}

/// What arrives.
pub struct Arriving<'a> {
    layout: &'a Layout,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    schedule: Schedule,
    complete: Option<Arc<Complete>>,
    /// Nobody wants it any more.
    stopped: bool,
}

/// Why loading ends although nothing has failed.
#[derive(Debug, thiserror::Error)]
#[error("what is loaded is not wanted any more")]
pub(super) struct Void;

impl<'a> Arriving<'a> {
    /// Nothing has arrived. So many threads will load it, for the node of this layout.
    pub fn new(threads: usize, layout: &'a Layout) -> Arriving<'a> {
        let state = State { schedule: Schedule::new(threads), complete: None, stopped: false };
        Arriving { layout, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A part is staged, complete and as the donor sent it. If a snapshot begins with what is known now, returns its number: all
    /// parts with smaller ones are here, and void.
    ///
    /// # Errors
    /// It cannot be read, contradicts others, or describes what this node's server cannot have.
    pub fn part(&self, number: FileId, path: String, staged: &Path) -> Result<Option<FileId>> {
        let part = match path {
            path if path == DEFINITIONS => {
                let contents = parts::contents(staged)?;
                expressible::check(&contents, self.layout)?;
                other_case::warn(&contents, "this node", self.layout.lower_case_table_names);
                Arrived::Definitions(Box::new(contents))
            }
            path if is_of_table(&path) => Arrived::Table(parts::table(staged)?),
            path => Arrived::Rows(path, staged.to_owned()),
        };
        let mut state = lock(&self.state);
        let before = state.number();
        state.schedule.arrived(number, part)?;
        let now = state.number();
        drop(state);
        self.changed.notify_all();
        Ok(now.filter(|_| now != before))
    }

    /// Everything has arrived. No part of it has a smaller number than `first`.
    ///
    /// # Errors
    /// It is not what was sent, or this node's server cannot have it.
    pub fn complete(&self, complete: Complete, first: FileId) -> Result<()> {
        expressible::check(&complete.contents, self.layout)?;
        let mut state = lock(&self.state);
        state.schedule.is_complete(&complete.contents, first)?;
        state.complete = Some(Arc::new(complete));
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Nobody wants it any more, unless it is loaded already.
    pub fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
    }

    /// Whether the donor may still send something.
    pub fn is_incomplete(&self) -> bool {
        let state = lock(&self.state);
        state.complete.is_none() && !state.stopped
    }

    /// Waits for a snapshot and the list of its plugins, which comes with the first of its rows.
    ///
    /// # Errors
    /// Nobody wants it any more, or cancelled.
    pub(super) fn begun(&self, cancel: &Cancel) -> Result<Begun> {
        self.wait(cancel, |state| {
            let (number, contents) = state.schedule.snapshot()?;
            let plugins = state.schedule.system(plugins(&contents))?;
            let referenced = state.schedule.referenced()?;
            Some(Begun { number, contents, referenced, plugins })
        })
    }

    /// Fails if nobody wants it any more.
    ///
    /// # Errors
    /// Nobody does.
    pub(super) fn check_wanted(&self) -> Result<(), Void> {
        if lock(&self.state).stopped { Err(Void) } else { Ok(()) }
    }

    /// Whether another snapshot comes after this one within that time, and before everything has arrived.
    ///
    /// # Errors
    /// Cancelled.
    pub(super) fn begins_again(&self, number: FileId, within: Duration, cancel: &Cancel) -> Result<bool> {
        let until = Instant::now() + within;
        let known = |state: &mut State| match (state.check(number), &state.complete) {
            (Err(Void), _) => Some(true),
            (Ok(()), None) if Instant::now() < until => None,
            (Ok(()), _) => Some(false),
        };
        match self.wait(cancel, known) {
            Err(error) if error.is::<Void>() => Ok(false),
            again => again,
        }
    }

    /// Fails if this snapshot is void.
    ///
    /// # Errors
    /// The donor has begun again, or nobody wants it any more.
    pub(super) fn check(&self, number: FileId) -> Result<(), Void> {
        lock(&self.state).check(number)
    }

    /// Waits for something to do for this snapshot; none if nothing is left, or `over` is set.
    ///
    /// # Errors
    /// The snapshot is void, or cancelled.
    pub(super) fn next(&self, number: FileId, over: &AtomicBool, cancel: &Cancel) -> Result<Option<Step>> {
        self.wait(cancel, |state| match state.check(number) {
            Err(void) => Some(Err(void.into())),
            Ok(()) if over.load(Ordering::Acquire) => Some(Ok(None)),
            Ok(()) => match state.schedule.next() {
                Next::Step(step) => Some(Ok(Some(step))),
                Next::Done => Some(Ok(None)),
                Next::Wait => None,
            },
        })?
    }

    /// Something was done for this snapshot.
    ///
    /// # Errors
    /// The snapshot is void.
    pub(super) fn done(&self, number: FileId, change: impl FnOnce(&mut Schedule)) -> Result<()> {
        let mut state = lock(&self.state);
        state.check(number)?;
        change(&mut state.schedule);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The donor's last word, once there is nothing left to do, and how many rows were loaded.
    ///
    /// # Errors
    /// Cancelled.
    pub(super) fn last(&self, cancel: &Cancel) -> Result<(Arc<Complete>, u64)> {
        self.wait(cancel, |state| Some((state.complete.clone()?, state.schedule.rows())))
    }

    fn wait<T>(&self, cancel: &Cancel, mut ready: impl FnMut(&mut State) -> Option<T>) -> Result<T> {
        let mut state: MutexGuard<'_, State> = lock(&self.state);
        loop {
            cancel.check()?;
            if state.stopped {
                return Err(Void.into());
            }
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            let waited = self.changed.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// The number of the snapshot that is loaded.
    fn number(&self) -> Option<FileId> {
        self.schedule.snapshot().map(|(number, _)| number)
    }

    fn check(&self, number: FileId) -> Result<(), Void> {
        if self.number() == Some(number) && !self.stopped { Ok(()) } else { Err(Void) }
    }
}

#[cfg(test)]
#[path = "arriving_tests.rs"]
mod tests;
