//! What a server does to the datadir when it is started between two tries, as 10.11.19 was seen to do it
//! (see [`crate::sink::forward`]), and a judge: it panics when it would recover a mixture of two states.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::sink::forward::ARIA_GUARD;

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

/// Starts and stops. `states` has the files of each state that a server may rightly run on.
pub fn start(raw: &dyn Raw, datadir: &Path, states: &BTreeMap<&str, Vec<PathBuf>>, config: Config) {
    start_aria(raw, datadir, states, config);
    start_innodb(raw, datadir, states, config);
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

fn start_aria(raw: &dyn Raw, datadir: &Path, states: &BTreeMap<&str, Vec<PathBuf>>, config: Config) {
    let control = datadir.join("aria_log_control");
    let logs = named(raw, datadir, "aria_log.");
    let second = datadir.join("aria_log.00000002");
    match (raw.get(&control), logs.is_empty()) {
        // It refuses.
        (Some(guard), _) if guard.as_bytes() == ARIA_GUARD => return,
        (None, _) => {
            raw.put(&control, "foreign:control");
            raw.put(&datadir.join("aria_log.00000001"), "foreign:log");
            for log in logs {
                raw.put(&log, "foreign:overwritten");
            }
        }
        (Some(_), true) => {
            raw.put(&control, "foreign:changed");
            raw.put(&second, "foreign:log");
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
        }
    }
    let plugin = datadir.join("mysql/plugin.MAI");
    let control = raw.get(&control).unwrap();
    if raw.get(&plugin).is_some() && state_of(&control) == "foreign" {
        raw.put(&plugin, "foreign:marked");
    }
}

fn start_innodb(raw: &dyn Raw, datadir: &Path, states: &BTreeMap<&str, Vec<PathBuf>>, config: Config) {
    let (system, redo) = (datadir.join("ibdata1"), datadir.join("ib_logfile0"));
    let undo = named(raw, datadir, "undo0");
    match (raw.get(&system), raw.get(&redo)) {
        (Some(content), Some(_)) => {
            let state = state_of(&content).to_owned();
            judge_one(raw, &state, &redo);
            if let Some(paths) = states.get(state.as_str()) {
                let known = paths.iter().filter(|p| p.to_string_lossy().contains("/undo0"));
                if known.into_iter().any(|p| raw.get(p).is_none()) {
                    return; // "Failed to open the undo tablespace"
                }
                undo.iter().filter(|p| paths.contains(p)).for_each(|p| judge_one(raw, &state, p));
            }
            judge(raw, states, &state, &system, |p| extension(p) == "ibd");
            for path in undo.iter().chain([&system, &redo, &datadir.join("a/t1.ibd")]) {
                touch(raw, path);
            }
            raw.put(&datadir.join("ibtmp1"), "temporary:");
        }
        (None, None) if undo.is_empty() || config.undo_zero => {
            undo.iter().for_each(|path| raw.delete(path));
            let count = if config.undo_zero { 0 } else { 3 };
            let fresh = (1..=count).map(|n| datadir.join(format!("undo00{n}")));
            for path in fresh.chain([system, redo, datadir.join("ibtmp1")]) {
                raw.put(&path, "foreign:fresh");
            }
        }
        // It refuses, and touches nothing of InnoDB's.
        _ => {}
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
