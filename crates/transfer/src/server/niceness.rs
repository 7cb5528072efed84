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
/// from this one unless it is set by itself. For threads that are started later too.
pub fn be_last() {
    set_priority(LAST);
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
    fn the_score_rises() {
        let read = || fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse::<i32>().unwrap();
        let before = read();
        be_expendable();
        assert!(read() > before || before == 1000);
    }
}
