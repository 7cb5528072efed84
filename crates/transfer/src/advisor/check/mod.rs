//! `rejoin check`: finds problems that the next transfer of this node would have, before it is needed.
//!
//! Collecting and judging are separate: [`facts`] is a value, filled by [`collect`] (option files,
//! directories, sockets) and `ask` (the node's own server, and other members if an account may log in);
//! [`judge()`] is a pure function of it. Nothing is changed anywhere: ports are bound for an instant, and a
//! stopped node's members get a TCP connection.
//!
//! | module | owns |
//! |---|---|
//! | [`facts`] | everything that the findings depend on, as a value |
//! | [`collect`] | facts from files, directories and sockets of this host |
//! | `program` | the program that the server would run as its method |
//! | `network` | announced addresses, free ports, reachable members |
//! | `ask` | facts from the server, and about the account that a transfer would use |
//! | `members` | facts from other members, if they accept a login |
//! | `judge` | facts to findings, one file a subject |
mod ask;
pub mod collect;
pub mod facts;
mod judge;
mod members;
mod network;
pub(super) mod program;
pub mod wanted;

use serde::Serialize;

pub use facts::Facts;
pub use judge::judge;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Correct.
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    /// A transfer works, but worse than it could, or it hurts the cluster.
    Warning,
    /// A transfer, or the node's start, fails.
    Error,
}

impl Level {
    /// The word in the output.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its level.
    pub level: Level,
    /// The subject in one word; scripts may rely on it.
    pub subject: &'static str,
    /// What was found.
    pub text: String,
    /// The remedy; every finding that is not ok has one.
    pub fix: Option<String>,
}

/// Findings in the order of the checks. Every finding that is not ok has a remedy: the methods enforce it.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds a finding that all is well.
    pub fn ok(&mut self, subject: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level: Level::Ok, subject, text: text.into(), fix: None });
    }

    /// Adds a note.
    pub fn note(&mut self, subject: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.push(Level::Note, subject, text.into(), fix.into());
    }

    /// Adds a warning.
    pub fn warning(&mut self, subject: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.push(Level::Warning, subject, text.into(), fix.into());
    }

    /// Adds an error.
    pub fn error(&mut self, subject: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.push(Level::Error, subject, text.into(), fix.into());
    }

    /// Adds that all is well, unless there is another finding of this subject.
    fn ok_if_clean(&mut self, subject: &'static str, text: impl Into<String>) {
        if self.is_clean(subject) {
            self.ok(subject, text);
        }
    }

    /// Adds a finding with a level that was decided elsewhere.
    pub fn push(&mut self, level: Level, subject: &'static str, text: String, fix: String) {
        self.0.push(Finding { level, subject, text, fix: Some(fix) });
    }

    /// Whether no finding of this subject is worse than ok.
    fn is_clean(&self, subject: &str) -> bool {
        self.0.iter().all(|finding| finding.subject != subject || finding.level == Level::Ok)
    }

    /// All findings.
    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}
