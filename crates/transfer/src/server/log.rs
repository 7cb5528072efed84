//! The two places of our log lines: the server's error log (our stderr), and one file for each transfer and
//! role. The record of the transfer is beside that file ([`super::recorder`]).
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};

use super::recorder::{RECORD, RECORD_IN_THE_MAKING};

/// How many transfers' log files and records are retained for each role. A node that is started some times in a row has as many
/// transfers in which IST followed, and the one that needed files should still be there to be looked at.
const KEPT: usize = 20;

/// What the names of our log files and records begin with.
const PREFIXES: [&str; 2] = ["rejoin-joiner-", "rejoin-donor-"];

/// Whether a file of this name in a datadir is a log file or a record of ours.
pub fn is_ours(name: &str) -> bool {
    let ours = [".log", RECORD, RECORD_IN_THE_MAKING].iter().any(|end| name.ends_with(end));
    ours && PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Sends every later `tracing` event of this program to stderr and to a new file in `dir`.
///
/// Lines on stderr have the form that operators know from the shell methods:
/// `WSREP_SST: [INFO] text (YYYYMMDD HH:MM:SS.mmm)`. `debug` events go to the file alone.
pub fn begin(dir: &Path, role: &str) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join(file_name(role));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    remove_old(dir, role)?;
    let subscriber = tracing_subscriber::registry().with(Lines { file: Some(Mutex::new(file)) });
    // Fails only if a subscriber is already set, as in tests that run several transfers in one process.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(path)
}

/// The name of a log file that begins now.
pub fn file_name(role: &str) -> String {
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S");
    format!("rejoin-{role}-{stamp}-{}.log", std::process::id())
}

/// A line of a log file. `level`: `ERROR`, `INFO`, ...
pub fn line(level: &str, text: &str) -> String {
    format!("{} [{level}] {text}\n", now())
}

fn now() -> String {
    jiff::Zoned::now().strftime("%Y%m%d %H:%M:%S%.3f").to_string()
}

/// Sends later events to stderr alone, for a datadir that cannot be written.
pub fn begin_without_file() {
    let subscriber = tracing_subscriber::registry().with(Lines { file: None });
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn remove_old(dir: &Path, role: &str) -> Result<()> {
    let listed = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let names = listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let prefix = format!("rejoin-{role}-");
    let ours: Vec<String> = names.filter(|name| name.starts_with(&prefix) && is_ours(name)).collect();
    // What a transfer left has one name up to the dot. It contains the time, so sorting by name sorts by age.
    let transfer = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let transfers: BTreeSet<String> = ours.iter().map(|name| transfer(name)).collect();
    let old: BTreeSet<&String> = transfers.iter().rev().skip(KEPT).collect();
    for name in ours.iter().filter(|name| old.contains(&transfer(name))) {
        let _ = fs::remove_file(dir.join(name));
    }
    Ok(())
}

struct Lines {
    file: Option<Mutex<File>>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::DEBUG || !event.metadata().target().starts_with("rejoin") {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let _ = file.write_all(line(level.as_str(), &text.0).as_bytes());
        }
        if level <= Level::INFO {
            let word = if level == Level::WARN { "WARNING" } else { level.as_str() };
            // Each line is one write, because the server and other scripts write to the same file.
            let line = format!("WSREP_SST: [{word}] {} ({})\n", text.0, now());
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// The message of an event, and its other fields as `name=value`.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        } else {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}

/// Logs an error line unless it repeats the last one: a failure that was logged when it happened is not
/// logged again at the end of the program.
pub fn error(text: &str) {
    static LAST: Mutex<String> = Mutex::new(String::new());
    let mut last = LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if *last != text {
        tracing::error!("{text}");
        text.clone_into(&mut last);
    }
}

/// A line for information, for callers outside this crate.
pub fn info(text: &str) {
    tracing::info!("{text}");
}

/// A warning line, for callers outside this crate.
pub fn warning(text: &str) {
    tracing::warn!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_go_with_their_logs() {
        let dir = tempfile::tempdir().expect("a directory");
        let make = |name: &str| drop(File::create(dir.path().join(name)).expect("created"));
        for number in 1..=KEPT + 2 {
            make(&format!("rejoin-joiner-202601{number:02}-000000-5.log"));
            make(&format!("rejoin-joiner-202601{number:02}-000000-5.json"));
        }
        // Of a transfer that made no log, one that was killed while it wrote, and what is not ours.
        for name in ["rejoin-joiner-20250101-000000-5.json", "rejoin-joiner-20250102-000000-5.json.tmp"] {
            make(name);
        }
        let others = ["rejoin-donor-20250101-000000-5.log", "rejoin-joiner-notes.txt", "rejoin-lineage.json"];
        others.iter().for_each(|name| make(name));
        remove_old(dir.path(), "joiner").expect("removed");
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .expect("listed")
            .map(|entry| entry.expect("read").file_name().into_string().expect("a text"))
            .collect();
        names.sort();
        let kept = (3..=KEPT + 2).flat_map(|number| {
            ["json", "log"].map(|end| format!("rejoin-joiner-202601{number:02}-000000-5.{end}"))
        });
        let mut expected: Vec<String> = kept.chain(others.map(str::to_owned)).collect();
        expected.sort();
        assert_eq!(names, expected);
        assert!(!is_ours("rejoin-lineage.json") && !is_ours("rejoin-joiner-x.json.bak"));
    }
}
