//! Stdout, which the server reads line by line and acts on. Nothing else in the program writes to it.
use std::io::Write;
use std::sync::Mutex;

use formats::wsrep::report::ReportLine;

use crate::failure::{Failure, Kind};

/// The one writer. It is shared because progress lines come from a separate thread.
pub struct Report {
    out: Mutex<Out>,
}

struct Out {
    stream: Box<dyn Write + Send>,
    /// After a final line the server reads nothing more; a further write could block for ever.
    closed: bool,
}

impl Report {
    /// Takes the process's stdout.
    pub fn stdout() -> Report {
        Report::to(Box::new(std::io::stdout()))
    }

    /// Writes somewhere else; for tests.
    pub fn to(stream: Box<dyn Write + Send>) -> Report {
        Report { out: Mutex::new(Out { stream, closed: false }) }
    }

    /// Writes one line and flushes it. Does nothing after a final line.
    pub fn print(&self, line: &ReportLine) -> Result<(), Failure> {
        let text = line.to_text().map_err(|e| Failure::new(Kind::Configuration, e.to_string()))?;
        let mut out = self.out.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if out.closed {
            return Ok(());
        }
        out.closed = matches!(line, ReportLine::JoinerState { .. } | ReportLine::Done { .. });
        let written = out.stream.write_all(text.as_bytes()).and_then(|()| out.stream.flush());
        written.map_err(|e| Failure::new(Kind::Server, format!("the server does not read our reports: {e}")))
    }

    /// Writes a progress line, or drops it if the server does not read.
    pub fn print_if_possible(&self, line: &ReportLine) {
        let _ = self.print(line);
    }
}
