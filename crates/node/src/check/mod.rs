//! `rejoin check`: what would go wrong in the next transfer of this node, told before it is needed.
//!
//! Collecting and judging are apart: [`facts`] is a value, filled by [`collect`] (option files, directories, sockets) and
//! `ask` (the node's own server, and other members where an account lets us in); [`judge()`] is a pure function of it.
//! Nothing is changed anywhere: ports are bound for an instant, a stopped node's members are greeted by a TCP connection.
//!
//! | module | owns |
//! |---|---|
//! | [`facts`] | everything that is judged, as a value |
//! | [`collect`] | what files, directories and sockets of this host say |
//! | `program` | what the server would run as its method |
//! | `network` | which addresses are announced, which ports are free, who answers |
//! | `ask` | what the server says of itself, and of the account a transfer would use |
//! | `members` | what other members say, where they let us in |
//! | [`provider_options`] | the provider's options as a map |
//! | `judge` | facts to findings, one file a subject |
mod ask;
pub mod collect;
pub mod facts;
mod judge;
mod members;
mod network;
mod program;
pub mod provider_options;

use serde::Serialize;

pub use facts::Facts;
pub use judge::judge;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
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

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was looked at, one word; scripts may rely on it.
    pub subject: &'static str,
    /// What was found.
    pub text: String,
    /// What to do; there for everything that is not ok.
    pub fix: Option<String>,
}

/// Findings in the order in which they were made. Whatever is not ok has a fix: the methods leave no other way.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// As it should be.
    pub fn ok(&mut self, subject: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level: Level::Ok, subject, text: text.into(), fix: None });
    }

    /// Worth knowing.
    pub fn note(&mut self, subject: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.push(Level::Note, subject, text.into(), fix.into());
    }

    /// Works, but badly.
    pub fn warning(&mut self, subject: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.push(Level::Warning, subject, text.into(), fix.into());
    }

    /// Fails.
    pub fn error(&mut self, subject: &'static str, text: impl Into<String>, fix: impl Into<String>) {
        self.push(Level::Error, subject, text.into(), fix.into());
    }

    /// As it should be, unless something else was said of this subject.
    fn ok_if_clean(&mut self, subject: &'static str, text: impl Into<String>) {
        if self.is_clean(subject) {
            self.ok(subject, text);
        }
    }

    /// With a level decided elsewhere.
    pub fn push(&mut self, level: Level, subject: &'static str, text: String, fix: String) {
        self.0.push(Finding { level, subject, text, fix: Some(fix) });
    }

    /// Nothing worse than ok was said of this subject.
    fn is_clean(&self, subject: &str) -> bool {
        self.0.iter().all(|finding| finding.subject != subject || finding.level == Level::Ok)
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Finding> {
        self.0
    }
}
