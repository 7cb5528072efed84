//! Panics. A panic is a bug in this program or in a library, and ends the transfer like any other failure: at once, with
//! a named reason on both hosts.
//!
//! One hook for the whole process names the panic in both logs and cancels the transfer. Every wait checks the
//! [`Cancel`], so all other threads end as for any failure: the role sends the peer the reason, guards release the
//! server, the program ends with the exit code of [`Kind::Internal`]. The thread that panicked unwinds to where [`crate::threads`]
//! started it, or to [`caught`]. A program that has not ended 5 s later is ended.
//! See docs/decisions/0017-panics-end-the-transfer.md.
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cancel::Cancel;
use crate::failure::{Failure, Kind};
use crate::threads::{self, Thread};

/// How long an orderly end may take after a panic: the peer gets the reason, locks are released, the joiner's server gets
/// the time to end first.
const END_WITHIN: Duration = Duration::from_secs(5);
const HINT: &str = "this is a bug in rejoin: report this line and the transfer's log file";

/// The transfer of this process.
struct Transfer {
    cancel: Cancel,
    /// Removes files that must not stay when no destructors run.
    on_abrupt_end: Box<dyn Fn() + Send + Sync>,
}

static TRANSFER: OnceLock<Transfer> = OnceLock::new();
/// A panic ended the transfer.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Its backtrace is in the log.
static TRACED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// A description of the last panic of this thread.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    /// A panic of this thread is only an error of the function that it calls.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Logs every panic of this process from now on.
pub fn name_them() {
    std::panic::set_hook(Box::new(hook));
}

/// From now on a panic in any thread cancels this transfer. `on_abrupt_end` removes files that must not stay; it is called
/// if the program then does not end by itself.
pub fn end_transfer(cancel: &Cancel, on_abrupt_end: impl Fn() + Send + Sync + 'static) {
    let _ = TRANSFER.set(Transfer { cancel: cancel.clone(), on_abrupt_end: Box::new(on_abrupt_end) });
}

/// Cancels the transfer of this process, if there is one, because one of its threads cannot do its work.
pub(crate) fn cancel_transfer(failure: &Failure) {
    if let Some(transfer) = TRANSFER.get() {
        transfer.cancel.cancel(failure.kind, failure.to_string());
    }
}

/// Runs `work` and turns its panic into an error, so that other threads end in order.
///
/// # Errors
/// That of `work`, or its panic.
pub fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(internal(&words_of(&*panic)).into()))
}

/// Calls a library on data of its own: a panic in it ends this call, but not the transfer.
///
/// # Errors
/// The library panicked: the place and the message.
pub(crate) fn contained<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CONTAINED.set(outer);
    result.map_err(|panic| words_of(&*panic))
}

fn internal(words: &str) -> Failure {
    Failure::new(Kind::Internal, format!("internal error: {words}")).hint(HINT)
}

/// The hook knows the place; without the hook (in tests of this crate) there is only the message.
fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let last = LAST.try_with(|last| last.take()).ok().flatten();
    last.unwrap_or_else(|| format!("a thread panicked: {}", message_of(panic)))
}

/// The message in one line, because those of assertions have several.
fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The path of a registry's crate without the directories of the build machine.
fn short(file: &str) -> &str {
    let of_crate = file.split_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    of_crate.map_or(file, |(_, rest)| rest)
}

fn hook(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let at = info.location().map(|at| format!(" at {}:{}", short(at.file()), at.line())).unwrap_or_default();
    let name = thread.name().unwrap_or("without a name");
    let words = format!("thread `{name}` panicked{at}: {}", message_of(info.payload()));
    let _ = LAST.try_with(|last| last.replace(Some(words.clone())));
    if CONTAINED.try_with(Cell::get) == Ok(true) {
        tracing::debug!("contained: {words}");
        return;
    }
    let failure = internal(&words);
    // The cancel comes first, because the rest takes time.
    cancel_transfer(&failure);
    say(&failure);
    if TRANSFER.get().is_none() || ENDING.swap(true, Ordering::AcqRel) {
        return;
    }
    // Resolving the names of functions takes long enough for the peer to miss the reason. Others wait for this thread, so
    // another one does it.
    let backtrace = Backtrace::force_capture();
    let began = Instant::now();
    // Without that thread there is no deadline, so the program ends now.
    if let Err(error) = threads::spawn(Thread::LastResort, move || {
        tracing::debug!("backtrace of the panic:\n{backtrace}");
        TRACED.store(true, Ordering::Release);
        std::thread::sleep(END_WITHIN.saturating_sub(began.elapsed()));
        end_now();
    }) {
        tracing::error!("{error}");
        end_now();
    }
}

/// The program's last step after a panic: waits until the backtrace is in the log.
pub fn finish() {
    let until = Instant::now() + END_WITHIN;
    while ENDING.load(Ordering::Acquire) && !TRACED.load(Ordering::Acquire) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Logs the failure. Before there is a log, and in an operator's command, it goes to stderr.
fn say(failure: &Failure) {
    if tracing::dispatcher::has_been_set() {
        tracing::error!("{failure}");
    } else {
        let _ = writeln!(std::io::stderr(), "rejoin: {failure}");
    }
}

fn end_now() {
    let seconds = END_WITHIN.as_secs();
    tracing::error!("the program has not ended within {seconds} s after a panic and is now terminated");
    if let Some(transfer) = TRANSFER.get() {
        (transfer.on_abrupt_end)();
    }
    std::process::exit(i32::from(Kind::Internal.exit_code()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::kind_of;

    #[test]
    fn a_panic_becomes_an_error_in_one_line() {
        let error = caught::<()>(|| panic!("left: {}\n  right: {}", 1, 2)).unwrap_err();
        assert_eq!(kind_of(&error), Kind::Internal);
        assert!(error.to_string().contains("left: 1 right: 2"), "{error}");
        assert_eq!(caught(|| Ok(5)).unwrap(), 5);
        assert!(contained(|| -> u8 { panic!("theirs") }).unwrap_err().contains("theirs"));
        assert_eq!(contained(|| 5), Ok(5));
    }

    #[test]
    fn a_file_is_named_without_the_directories_of_the_build() {
        let file = "/home/b/.cargo/registry/src/registry-1234/mysql_common-0.37.3/src/scramble.rs";
        assert_eq!(short(file), "mysql_common-0.37.3/src/scramble.rs");
        assert_eq!(short("crates/transfer/src/panics.rs"), "crates/transfer/src/panics.rs");
    }
}
