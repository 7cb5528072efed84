//! When lines appeared in an error log. The server's own times are whole seconds, and some lines carry none.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::errorlog::{self, LogMark};
use crate::node::Node;
use crate::watcher::Watcher;

/// How late a line may be seen.
const EVERY: Duration = Duration::from_millis(10);

/// A line, and when it was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// About ten milliseconds after it was written at most.
    pub seen: Instant,
    /// Without the newline.
    pub text: String,
}

/// A thread that reads a log as it grows.
#[derive(Debug)]
pub struct Follower(Watcher<Growing>);

impl Follower {
    /// Of the node's log, from now on.
    pub fn start(node: &Node) -> Result<Self> {
        let log = Growing { path: node.error_log(), mark: node.log_mark(), lines: Vec::new() };
        Watcher::start("follower", EVERY, log, Growing::look).map(Self)
    }

    /// What was written until now.
    pub fn stop(self) -> Result<Vec<Line>> {
        Ok(self.0.stop()?.lines)
    }
}

#[derive(Debug, Default)]
struct Growing {
    path: PathBuf,
    mark: LogMark,
    lines: Vec<Line>,
}

impl Growing {
    fn look(&mut self) {
        if errorlog::end(&self.path) != self.mark {
            self.take(&errorlog::read(&self.path, self.mark), Instant::now());
        }
    }

    /// A line whose end is not written yet is read again.
    fn take(&mut self, text: &str, seen: Instant) {
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            self.mark.0 += line.len() as u64;
            self.lines.push(Line { seen, text: line.trim_end().to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_when_it_is_whole() {
        let mut log = Growing::default();
        log.take("one\ntw", Instant::now());
        assert_eq!((log.lines.len(), log.mark), (1, LogMark(4)));
        log.take("two\n", Instant::now());
        assert_eq!(log.lines[1].text, "two");
    }
}
