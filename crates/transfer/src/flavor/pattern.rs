//! Patterns of the names that a server gives to its files.
use formats::mariadb::file_kind::is_binlog_of;
use serde::{Deserialize, Serialize};

/// A pattern of file names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// This text and digits: `undo001`.
    Numbered(String),
    /// The first text, anything, and the second: `undo_1_trunc.log`.
    Between(String, String),
    /// Exactly this name.
    Name(String),
    /// Files of the binary log with this base name.
    Binlog(String),
}

impl Pattern {
    /// This text and digits.
    pub fn numbered(prefix: &str) -> Pattern {
        Pattern::Numbered(prefix.to_owned())
    }

    /// Exactly this name.
    pub fn name(name: &str) -> Pattern {
        Pattern::Name(name.to_owned())
    }

    /// Whether the name matches.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Numbered(prefix) => {
                let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
                name.strip_prefix(prefix.as_str()).is_some_and(is_number)
            }
            Pattern::Between(before, after) => {
                name.strip_prefix(before.as_str()).is_some_and(|rest| rest.ends_with(after.as_str()))
            }
            Pattern::Name(exact) => name == exact,
            Pattern::Binlog(base) => is_binlog_of(base, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_pattern_matches_whole_names() {
        let redo = Pattern::numbered("ib_logfile");
        assert!(redo.matches("ib_logfile0") && redo.matches("ib_logfile101"));
        assert!(!redo.matches("ib_logfile") && !redo.matches("ib_logfile0.bak"));
        let truncated = Pattern::Between("undo_".to_owned(), "_trunc.log".to_owned());
        assert!(truncated.matches("undo_1_trunc.log") && !truncated.matches("undo001"));
        assert!(Pattern::name("tc.log").matches("tc.log") && !Pattern::name("tc.log").matches("tc.log.1"));
        let binlog = Pattern::Binlog("bin".to_owned());
        assert!(binlog.matches("bin.000001") && binlog.matches("bin.state") && !binlog.matches("bin.err"));
    }
}
