//! The archiver works at the lowest priority while it keeps up with the server, and at its usual one while it does not: on a
//! host whose processors are all taken the lowest priority gets next to nothing, and what the provider overwrites unread is a gap.
//!
//! A thread can lower its priority and needs a privilege to raise it again, which few processes in containers have. So the work
//! is handed from one thread to another: each shift at the lowest priority has a thread of its own.
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::server::niceness;
use crate::threads::{Running, Thread, try_scoped};

/// No work is behind after less than this.
const BEHIND_FOR: Duration = Duration::from_millis(200);
/// A provider that writes more bytes a second than this is not to be expected.
const PROVIDER_WRITES: f64 = (64 << 20) as f64;
/// A shift at the usual priority is at least so long: a host that was busy still is.
const SHIFT: Duration = Duration::from_secs(1);

/// Work that may be behind for so long can wait until a processor is idle. Under that policy a thread may wait for a second for
/// each other thread that wants its processor: with four of them a ring of 64 MiB was overwritten unread.
const LONG: Duration = Duration::from_secs(16);
/// Whoever has nothing left to do rests so long, and then does much at once: a busy server lost 7 % of its commits to an archiver
/// that looked every 25 ms, and 3 % to one that looked every 250 ms (docs/deep-ist.md).
const REST: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_millis(250);

/// How long the work may be behind before it goes on at the usual priority, with a ring of so many bytes.
pub(super) fn may_be_behind_for(ring: u64) -> Duration {
    written_in(ring).max(BEHIND_FOR)
}

/// How long to rest when everything was done: no provider writes more than a quarter of the ring meanwhile.
pub(super) fn may_rest_for(ring: u64) -> Duration {
    (written_in(ring) / 4).clamp(*REST.start(), *REST.end())
}

fn written_in(ring: u64) -> Duration {
    Duration::from_secs_f64(ring as f64 / PROVIDER_WRITES)
}

/// A time of work at one priority.
pub(super) enum Shift {
    /// At the lowest one, until the work has been behind for so long.
    Low(Duration),
    /// At the usual one, since then.
    Usual(Instant),
}

/// What has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The shift, and another one is to follow.
    Shift,
    /// The work.
    Work,
}

impl Shift {
    /// Whether it is over for work that had nothing left to do at that time. To be asked after every few milliseconds of work.
    pub(super) fn is_over(&self, caught_up: Instant) -> bool {
        match self {
            Shift::Low(behind_for) => caught_up.elapsed() > *behind_for,
            Shift::Usual(began) => began.elapsed() > SHIFT && caught_up.elapsed() <= BEHIND_FOR,
        }
    }
}

/// Does the work in shifts: on the calling thread those at its own priority, the others on threads of that kind. As long as no
/// such thread can be started, one shift at the usual priority follows another.
///
/// # Errors
/// Those of the work.
pub(super) fn in_shifts(
    thread: Thread,
    behind_for: Duration,
    mut work: impl FnMut(&Shift) -> Result<Ended> + Send,
) -> Result<()> {
    let (work, mut refused) = (&mut work, false);
    loop {
        if work(&Shift::Usual(Instant::now()))? == Ended::Work {
            return Ok(());
        }
        let low = std::thread::scope(|scope| {
            let at_lowest = || {
                if behind_for >= LONG {
                    niceness::be_idle()
                } else {
                    niceness::be_last()
                };
                work(&Shift::Low(behind_for))
            };
            try_scoped(scope, thread, at_lowest).map(Running::join)
        });
        match low {
            Ok(ended) => {
                refused = false;
                if ended? == Ended::Work {
                    return Ok(());
                }
            }
            // The archiver outlives a moment in which its user has too many threads.
            Err(failure) => {
                if !std::mem::replace(&mut refused, true) {
                    tracing::warn!("{failure}; until that succeeds, its work has the usual priority");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn the_work_rises_when_it_is_behind_and_sinks_when_it_has_caught_up() {
        let usual = niceness::own_priority();
        let mut priorities = Vec::new();
        let mut caught_up = Instant::now();
        in_shifts(Thread::ArchiveReader, BEHIND_FOR, |shift| {
            priorities.push(niceness::own_priority());
            if priorities.len() == 4 {
                return Ok(Ended::Work);
            }
            // Always behind at the lowest priority, never at the usual one.
            while !shift.is_over(caught_up) {
                std::thread::sleep(Duration::from_millis(10));
                if matches!(shift, Shift::Usual(_)) {
                    caught_up = Instant::now();
                }
            }
            Ok(Ended::Shift)
        })
        .unwrap();
        assert_eq!(priorities, [usual, niceness::LAST, usual, niceness::LAST]);
    }

    /// Runs this test again in another process, where a thread's stack has no room.
    #[test]
    fn the_work_goes_on_where_no_thread_can_be_started() {
        const NO_ROOM: &str = "REJOIN_TEST_NO_ROOM";
        if std::env::var_os(NO_ROOM).is_none() {
            let name = "writesets::archive::shifts::tests::the_work_goes_on_where_no_thread_can_be_started";
            let program = std::env::current_exe().unwrap();
            let again =
                std::process::Command::new(program).args(["--exact", name]).env(NO_ROOM, "1").output();
            let again = again.unwrap();
            let said = String::from_utf8_lossy(&again.stdout);
            assert!(again.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let usual = niceness::own_priority();
        let before = getrlimit(Resource::As);
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split_whitespace().next().unwrap().parse().unwrap();
        let now = pages * rustix::param::page_size() as u64;
        setrlimit(Resource::As, Rlimit { current: Some(now + (1 << 20)), ..before }).unwrap();
        let mut priorities = Vec::with_capacity(3);
        in_shifts(Thread::ArchiveReader, BEHIND_FOR, |_| {
            priorities.push(niceness::own_priority());
            if priorities.len() == 2 {
                setrlimit(Resource::As, before).unwrap();
            }
            Ok(if priorities.len() == 3 { Ended::Work } else { Ended::Shift })
        })
        .unwrap();
        assert_eq!(priorities, [usual, usual, niceness::LAST]);
    }
}
