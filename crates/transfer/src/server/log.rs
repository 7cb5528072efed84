//! The two places of our log lines: the server's error log (our stderr), and one file for each transfer and
//! role.
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};

/// How many log files are retained for each role.
const KEPT_FILES: usize = 5;

/// Sends every later `tracing` event of this program to stderr and to a new file in `dir`.
///
/// Lines on stderr have the form that operators know from the shell methods:
/// `WSREP_SST: [INFO] text (YYYYMMDD HH:MM:SS.mmm)`. `debug` events go to the file alone.
pub fn begin(dir: &Path, role: &str) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let path = dir.join(format!("rejoin-{role}-{stamp}-{}.log", std::process::id()));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    forget_old(dir, role)?;
    let subscriber = tracing_subscriber::registry().with(Lines { file: Some(Mutex::new(file)) });
    // Fails only if a subscriber is already set, as in tests that run several transfers in one process.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(path)
}

/// Sends later events to stderr alone, for a datadir that cannot be written.
pub fn begin_without_file() {
    let subscriber = tracing_subscriber::registry().with(Lines { file: None });
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn forget_old(dir: &Path, role: &str) -> Result<()> {
    let mut ours: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| format!("cannot list {}", dir.display()))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| {
            p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("rejoin-{role}-")))
        })
        .collect();
    // The names contain the time, so sorting by name sorts by age.
    ours.sort();
    for old in ours.iter().rev().skip(KEPT_FILES) {
        let _ = fs::remove_file(old);
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
        let now = jiff::Zoned::now().strftime("%Y%m%d %H:%M:%S%.3f").to_string();
        if let Some(file) = &self.file {
            let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let _ = writeln!(file, "{now} [{level}] {}", text.0);
        }
        if level <= Level::INFO {
            let word = if level == Level::WARN { "WARNING" } else { level.as_str() };
            // Each line is one write, because the server and other scripts write to the same file.
            let line = format!("WSREP_SST: [{word}] {} ({now})\n", text.0);
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
