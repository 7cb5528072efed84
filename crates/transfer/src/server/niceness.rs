//! Our out-of-memory score, and our priority on the processors.
use std::fs;

/// Added to our out-of-memory score, on the kernel's scale from -1000 to 1000: losing a transfer is better
/// than losing the server that it runs for.
const EXPENDABLE: i32 = 500;

/// Makes the kernel end us rather than the server when memory runs out. Raising the score needs no privilege.
/// Where there is no `/proc` it fails harmlessly.
pub fn be_expendable() {
    let own = "/proc/self/oom_score_adj";
    let before: i32 = fs::read_to_string(own).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let after = (before + EXPENDABLE).min(1000);
    if let Err(error) = fs::write(own, after.to_string()) {
        tracing::debug!("the out-of-memory score stays {before}: {error}");
    }
}

/// The lowest priority there is.
pub const LAST: i32 = 19;

/// Gives every other program precedence on the processors, and with that on the disk: the kernel derives the I/O priority
/// from this one unless it is set by itself. For threads that are started later too. It cannot be taken back without a
/// privilege.
pub fn be_last() {
    set_priority(LAST);
}

/// The same, and more: a thread that is merely last still gets its share, and keeps its processor for some milliseconds while a
/// server's thread waits to run. Under `SCHED_IDLE` it gives way at once, and on a host whose processors are all taken it may
/// wait for seconds. The kernel puts its reads and writes into the idle class.
pub fn be_idle() {
    be_last();
    if let Err(error) = run_when_idle() {
        tracing::debug!("the scheduling policy stays as it is: {error}");
    }
}

/// Puts the calling thread under `SCHED_IDLE`.
#[expect(unsafe_code, reason = "rustix has no call for the scheduling policy")]
fn run_when_idle() -> std::io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: a thread may change its own policy at any time, and the parameters outlive the call.
    match unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_IDLE, &parameters) } {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)),
    }
}

/// How much lower the priority of a thread is that reads a working server's files: by the kernel's weights it gets about
/// a tenth of what a thread of the server gets while both want a processor, and all that the server does not want.
const GIVES_WAY: i32 = 10;

/// Gives the server precedence over the calling thread, and over nothing else of this program. It cannot be taken back without
/// a privilege.
pub fn give_way() {
    set_priority(own_priority() + GIVES_WAY);
}

/// The calling thread's priority, from -20 (first) to 19 (last): on Linux each thread has its own.
pub fn own_priority() -> i32 {
    rustix::process::getpriority_process(None).unwrap_or(0)
}

fn set_priority(priority: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, priority.min(LAST)) {
        tracing::debug!("the priority stays as it is: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_gives_way_and_the_others_do_not() {
        let before = own_priority();
        let thread = std::thread::spawn(move || {
            give_way();
            own_priority()
        });
        assert_eq!(thread.join().unwrap(), (before + GIVES_WAY).min(LAST));
        assert_eq!(own_priority(), before);
    }

    #[test]
    fn an_idle_one_has_the_idle_policy() {
        let policy = || {
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            // Behind the name, which may contain anything, field 41 of proc(5) is the policy.
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(38).unwrap().parse::<i32>().unwrap()
        };
        let before = policy();
        let of_thread = move || {
            be_idle();
            (policy(), own_priority())
        };
        let last = std::thread::spawn(of_thread).join().unwrap();
        assert_eq!((last, policy()), ((libc::SCHED_IDLE, LAST), before));
    }

    #[test]
    fn the_score_rises() {
        let read = || fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse::<i32>().unwrap();
        let before = read();
        be_expendable();
        assert!(read() > before || before == 1000);
    }
}
