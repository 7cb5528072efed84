//! The archiver has the lowest priority while it keeps up with the server, and its usual one while it does not: on a host whose
//! processors are all taken the lowest priority gets nearly nothing, and what the provider overwrites meanwhile is a gap.
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::gettid;

use crate::cancel::Cancel;
use crate::server::niceness;
use crate::threads::lock;

/// How long the archiver may be behind before its priority rises. A ring that the provider fills in less is too small for any
/// joiner.
const BEHIND_FOR: Duration = Duration::from_millis(200);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The priority of the threads that archive.
pub(super) struct Priority {
    usual: i32,
    low: i32,
    threads: Mutex<Vec<Pid>>,
    caught_up: Mutex<Instant>,
}

impl Priority {
    /// Between the calling thread's priority and the lowest one. Without the right to raise what was lowered it stays in between
    /// all the time.
    pub(super) fn new() -> Priority {
        let usual = niceness::own_priority();
        let low = if niceness::may_rise_again() { niceness::LAST } else { usual + niceness::GIVES_WAY };
        Priority { usual, low, threads: Mutex::default(), caught_up: Mutex::new(Instant::now()) }
    }

    /// The calling thread is one of those that archive.
    pub(super) fn join(&self) {
        lock(&self.threads).push(gettid());
        niceness::set_priority(None, self.low);
    }

    /// Everything that the provider has written and released is taken.
    pub(super) fn caught_up(&self) {
        *lock(&self.caught_up) = Instant::now();
    }

    /// Raises and lowers the priority until `cancel` says otherwise, and raises it then: somebody waits for the end. To be called
    /// on a thread of the usual priority.
    pub(super) fn steer(&self, cancel: &Cancel) {
        let mut raised = false;
        while cancel.sleep(LOOK_EVERY).is_ok() {
            let behind = lock(&self.caught_up).elapsed() > BEHIND_FOR;
            if std::mem::replace(&mut raised, behind) != behind {
                self.set(if behind { self.usual } else { self.low });
            }
        }
        self.set(self.usual);
    }

    fn set(&self, priority: i32) {
        if niceness::may_rise_again() {
            lock(&self.threads).iter().for_each(|thread| niceness::set_priority(Some(*thread), priority));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the thread's priority is this one.
    fn becomes(thread: Pid, priority: i32) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if rustix::process::getpriority_process(Some(thread)) == Ok(priority) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    #[test]
    fn a_thread_that_is_behind_has_its_usual_priority() {
        niceness::keep_right_to_rise();
        if !niceness::may_rise_again() {
            // Nobody but root has it by default: the thread gives way as others do then.
            let priority = Priority::new();
            assert_eq!(priority.low, priority.usual + niceness::GIVES_WAY);
            return;
        }
        let (priority, cancel) = (Priority::new(), Cancel::new());
        std::thread::scope(|scope| {
            let (say, hear) = std::sync::mpsc::channel();
            let (end, wait) = std::sync::mpsc::channel::<()>();
            let joined = &priority;
            scope.spawn(move || {
                joined.join();
                let _ = say.send(gettid());
                let _ = wait.recv();
            });
            let thread = hear.recv().unwrap();
            scope.spawn(|| priority.steer(&cancel));
            assert!(becomes(thread, niceness::LAST));
            // Nobody says that it has caught up.
            let rose = becomes(thread, priority.usual);
            let fell = (0..2000).any(|_| {
                priority.caught_up();
                std::thread::sleep(Duration::from_millis(10));
                rustix::process::getpriority_process(Some(thread)) == Ok(niceness::LAST)
            });
            cancel.cancel(crate::failure::Kind::Stopped, "the test ends");
            drop(end);
            assert!(rose && fell, "{rose} {fell}");
        });
    }
}
