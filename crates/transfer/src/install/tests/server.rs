//! What a server does to the datadir when it is started between two tries, as 10.11.19 and 11.8.9 were seen to do it
//! (see [`crate::install::forward`]), and a judge: it panics when it would recover a mixture of two states, or make files anew.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::install::guard::GUARD;

/// The part of a filesystem that a server uses.
pub trait Raw {
    fn get(&self, path: &Path) -> Option<String>;
    fn put(&self, path: &Path, content: &str);
    fn put_bytes(&self, path: &Path, content: &[u8]);
    fn changed(&self, path: &Path) -> i128;
    fn delete(&self, path: &Path);
    fn names(&self, directory: &Path) -> Vec<PathBuf>;
}

/// How it is configured.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// `innodb_undo_tablespaces=0`: it deletes the undo files it finds when it makes a fresh system tablespace.
    pub undo_zero: bool,
    /// It begins a new Aria log.
    pub rotate: bool,
}

/// A content is `STATE:PATH`, with `|used` for each time a server wrote to it.
pub fn state_of(content: &str) -> &str {
    content.split(':').next().unwrap_or("")
}

/// What an engine does with its set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It starts neither the engine nor, therefore, the server, and changes nothing.
    Refuses,
    /// It runs on this state, whose set is whole.
    Runs(String),
    /// It makes the set anew.
    Anew,
}

/// Starts and stops. `states` has the files of each state that a server may rightly run on. Answers what Aria and InnoDB do: Aria
/// comes first, and neither looks at what became of the other; the server is up when both run.
pub fn start(
    raw: &dyn Raw,
    datadir: &Path,
    states: &BTreeMap<&str, Vec<PathBuf>>,
    config: Config,
) -> (Start, Start) {
    let aria = start_aria(raw, datadir, states, config);
    (aria, start_innodb(raw, datadir, states, config))
}

/// The guard is not, nor a part of one: both engines look at the length.
fn is_whole(content: &str, states: &BTreeMap<&str, Vec<PathBuf>>) -> bool {
    content.as_bytes() != GUARD && (states.contains_key(state_of(content)) || state_of(content) == "foreign")
}

fn named(raw: &dyn Raw, datadir: &Path, prefix: &str) -> Vec<PathBuf> {
    let wanted =
        |p: &PathBuf| p.file_name().is_some_and(|n| n.to_str().is_some_and(|n| n.starts_with(prefix)));
    raw.names(datadir).into_iter().filter(wanted).collect()
}

fn touch(raw: &dyn Raw, path: &Path) {
    if let Some(content) = raw.get(path) {
        raw.put(path, &format!("{content}|used"));
    }
}

fn start_aria(raw: &dyn Raw, datadir: &Path, states: &BTreeMap<&str, Vec<PathBuf>>, config: Config) -> Start {
    let control = datadir.join("aria_log_control");
    let logs = named(raw, datadir, "aria_log.");
    let second = datadir.join("aria_log.00000002");
    let started = match (raw.get(&control), logs.is_empty()) {
        (Some(content), _) if !is_whole(&content, states) => return Start::Refuses,
        (None, _) => {
            raw.put(&control, "foreign:control");
            raw.put(&datadir.join("aria_log.00000001"), "foreign:log");
            for log in logs {
                raw.put(&log, "foreign:overwritten");
            }
            Start::Anew
        }
        (Some(_), true) => {
            raw.put(&control, "foreign:changed");
            raw.put(&second, "foreign:log");
            Start::Anew
        }
        (Some(content), false) => {
            let state = state_of(&content).to_owned();
            judge(raw, states, &state, &control, |p| matches!(extension(p), "MAI" | "MAD"));
            logs.iter().for_each(|log| judge_one(raw, &state, log));
            logs.iter().for_each(|log| touch(raw, log));
            touch(raw, &control);
            if config.rotate && raw.get(&second).is_none() && states.contains_key(state.as_str()) {
                raw.put(&second, &format!("{state}:second"));
                let content = raw.get(&control).unwrap();
                raw.put(&control, &format!("{content}|rotated"));
            }
            Start::Runs(state)
        }
    };
    let plugin = datadir.join("mysql/plugin.MAI");
    let control = raw.get(&control).unwrap();
    if raw.get(&plugin).is_some() && state_of(&control) == "foreign" {
        raw.put(&plugin, "foreign:fingerprinted");
    }
    started
}

fn start_innodb(
    raw: &dyn Raw,
    datadir: &Path,
    states: &BTreeMap<&str, Vec<PathBuf>>,
    config: Config,
) -> Start {
    let (system, redo) = (datadir.join("ibdata1"), datadir.join("ib_logfile0"));
    let undo = named(raw, datadir, "undo0");
    match (raw.get(&system), raw.get(&redo)) {
        // Whatever else is there.
        (Some(content), _) if !is_whole(&content, states) => Start::Refuses,
        (Some(content), Some(_)) => {
            let state = state_of(&content).to_owned();
            judge_one(raw, &state, &redo);
            if let Some(paths) = states.get(state.as_str()) {
                let known = paths.iter().filter(|p| p.to_string_lossy().contains("/undo0"));
                if known.into_iter().any(|p| raw.get(p).is_none()) {
                    return Start::Refuses; // "Failed to open the undo tablespace"
                }
                undo.iter().filter(|p| paths.contains(p)).for_each(|p| judge_one(raw, &state, p));
            }
            judge(raw, states, &state, &system, |p| extension(p) == "ibd");
            for path in undo.iter().chain([&system, &redo, &datadir.join("a/t1.ibd")]) {
                touch(raw, path);
            }
            raw.put(&datadir.join("ibtmp1"), "temporary:");
            Start::Runs(state)
        }
        (None, None) if undo.is_empty() || config.undo_zero => {
            undo.iter().for_each(|path| raw.delete(path));
            let count = if config.undo_zero { 0 } else { 3 };
            let fresh = (1..=count).map(|n| datadir.join(format!("undo00{n}")));
            for path in fresh.chain([system, redo, datadir.join("ibtmp1")]) {
                raw.put(&path, "foreign:fresh");
            }
            Start::Anew
        }
        // It refuses, and touches nothing of InnoDB's.
        _ => Start::Refuses,
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|e| e.to_str()).unwrap_or("")
}

/// Recovery of a state writes to its tables: all of them must be there, and of that state.
fn judge(
    raw: &dyn Raw,
    states: &BTreeMap<&str, Vec<PathBuf>>,
    state: &str,
    by: &Path,
    of_engine: impl Fn(&Path) -> bool,
) {
    let Some(own) = states.get(state) else { return };
    for path in own.iter().filter(|p| of_engine(p)) {
        // Aria tables of the server leave before the logs, whose copies are then safe: see `leave_aria`.
        let may_be_gone = by.ends_with("aria_log_control") && path.to_string_lossy().contains("/mysql/");
        assert!(may_be_gone || raw.get(path).is_some(), "{by:?} of {state} recovered without {path:?}");
    }
    for path in states.values().flatten().filter(|p| of_engine(p)) {
        judge_one(raw, state, path);
    }
}

fn judge_one(raw: &dyn Raw, state: &str, path: &Path) {
    if let Some(content) = raw.get(path) {
        assert_eq!(state_of(&content), state, "a server that recovers {state} found {content} at {path:?}");
    }
}
