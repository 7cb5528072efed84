//! The lines that we print on stdout for the server.
//!
//! The server reads with `fgets`: a joiner's lines into 512 bytes, a donor's into 128, with terminator and
//! newline, and treats the rest of a longer line as the next line (sql/wsrep_sst.cc, MariaDB 10.11 and 11.8).
//! The limits here prevent that.

use thiserror::Error;

use super::state_id::{BadStateId, StateId};

/// Longest text after `ready `, in bytes: 512 less the NUL, the newline and the word itself.
pub const READY_MAX: usize = 504;

/// One line on stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportLine {
    /// Joiner, first line: we listen; the text goes to the donor.
    Ready(String),
    /// Either side: a stage of this many bytes begins.
    Total(u64),
    /// Either side: this many bytes of the stage are done.
    Complete(u64),
    /// Joiner, last line: the state now in the data directory.
    JoinerState {
        /// The state.
        state: StateId,
        /// Replication domain, used with `wsrep_gtid_mode=ON` only.
        domain: Option<u32>,
    },
    /// Donor: block writes (`FLUSH TABLES WITH READ LOCK` and more).
    FlushTables,
    /// Donor: resume.
    Continue,
    /// Donor, last line: the state was sent.
    Done {
        /// The state sent.
        state: StateId,
        /// Replication domain; 10.11 ignores it.
        domain: Option<u32>,
    },
}

/// Why a line cannot be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadLine {
    /// The server would split the line and treat the rest as another.
    #[error("the ready text has {bytes} bytes, the server reads at most {READY_MAX}")]
    TooLong {
        /// Bytes of the text.
        bytes: usize,
    },
    /// The server requires at least one byte after `ready `.
    #[error("the ready text is empty")]
    Empty,
    /// A newline would end the line early; no other byte outside printable ASCII is useful either.
    #[error("the ready text has a byte outside printable ASCII at {at}")]
    ControlCharacter {
        /// Offset of the byte.
        at: usize,
    },
}

/// Why a line cannot be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnknownLine {
    /// Not a line of the contract.
    #[error("not a line of the SST contract")]
    Unknown,
    /// A `total` or `complete` without a number.
    #[error("no number after the word")]
    Number,
    /// An invalid state.
    #[error("state: {0}")]
    State(#[from] BadStateId),
    /// A `ready` text that breaks the rules of [`BadLine`].
    #[error("ready: {0}")]
    Ready(#[from] BadLine),
}

impl ReportLine {
    /// The line with its newline, exactly as the server expects it.
    ///
    /// # Errors
    /// Only `Ready` can fail; every other line is short and consists of digits and fixed words.
    pub fn to_text(&self) -> Result<String, BadLine> {
        Ok(match self {
            ReportLine::Ready(text) => {
                check_ready(text)?;
                format!("ready {text}\n")
            }
            ReportLine::Total(bytes) => format!("total {bytes}\n"),
            ReportLine::Complete(bytes) => format!("complete {bytes}\n"),
            ReportLine::JoinerState { state, domain } => format!("{}\n", with_domain(state, *domain)),
            ReportLine::FlushTables => "flush tables\n".to_owned(),
            ReportLine::Continue => "continue\n".to_owned(),
            ReportLine::Done { state, domain } => format!("done {}\n", with_domain(state, *domain)),
        })
    }

    /// Parses a line without its newline: for tests, and for showing what another program printed.
    ///
    /// # Errors
    /// The line is not one of ours, or its operand is invalid.
    pub fn parse(line: &str) -> Result<ReportLine, UnknownLine> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let number = |text: &str| text.parse::<u64>().map_err(|_| UnknownLine::Number);
        if let Some(text) = line.strip_prefix("ready ") {
            check_ready(text)?;
            return Ok(ReportLine::Ready(text.to_owned()));
        }
        if let Some(text) = line.strip_prefix("total ") {
            return Ok(ReportLine::Total(number(text)?));
        }
        if let Some(text) = line.strip_prefix("complete ") {
            return Ok(ReportLine::Complete(number(text)?));
        }
        if let Some(text) = line.strip_prefix("done ") {
            let read = StateId::parse_annotated(text)?;
            return Ok(ReportLine::Done { state: read.state, domain: read.domain });
        }
        match line {
            "flush tables" => Ok(ReportLine::FlushTables),
            "continue" => Ok(ReportLine::Continue),
            _ if line.contains(':') => {
                let read = StateId::parse_annotated(line)?;
                Ok(ReportLine::JoinerState { state: read.state, domain: read.domain })
            }
            _ => Err(UnknownLine::Unknown),
        }
    }
}

fn with_domain(state: &StateId, domain: Option<u32>) -> String {
    match domain {
        Some(domain) => format!("{state} {domain}"),
        None => state.to_string(),
    }
}

/// The rules for the text of a `ready` line: 1..=504 bytes of printable ASCII.
pub(crate) fn check_ready(text: &str) -> Result<(), BadLine> {
    if text.is_empty() {
        return Err(BadLine::Empty);
    }
    if text.len() > READY_MAX {
        return Err(BadLine::TooLong { bytes: text.len() });
    }
    match text.bytes().position(|b| !(b' '..=b'~').contains(&b)) {
        Some(at) => Err(BadLine::ControlCharacter { at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Seqno, Uuid};
    use proptest::prelude::*;

    fn state(seqno: i64) -> StateId {
        StateId { uuid: Uuid([0xab; 16]), seqno: Seqno(seqno) }
    }

    #[test]
    fn the_exact_texts() {
        let u = "abababab-abab-abab-abab-abababababab";
        let text = |line: ReportLine| line.to_text().unwrap();
        assert_eq!(text(ReportLine::Ready("10.0.0.1:4444/rejoin".into())), "ready 10.0.0.1:4444/rejoin\n");
        assert_eq!(text(ReportLine::Total(7)), "total 7\n");
        assert_eq!(text(ReportLine::Complete(8)), "complete 8\n");
        assert_eq!(text(ReportLine::FlushTables), "flush tables\n");
        assert_eq!(text(ReportLine::Continue), "continue\n");
        assert_eq!(text(ReportLine::JoinerState { state: state(9), domain: Some(0) }), format!("{u}:9 0\n"));
        assert_eq!(text(ReportLine::Done { state: state(-1), domain: None }), format!("done {u}:-1\n"));
    }

    #[test]
    fn a_ready_text_that_would_become_two_lines_is_refused() {
        let ready = |text: &str| ReportLine::Ready(text.to_owned()).to_text();
        assert!(ready(&"x".repeat(READY_MAX)).is_ok());
        assert_eq!(ready(&"x".repeat(505)), Err(BadLine::TooLong { bytes: 505 }));
        assert_eq!(ready(""), Err(BadLine::Empty));
        assert_eq!(ready("a\nb"), Err(BadLine::ControlCharacter { at: 1 }));
        assert_eq!(ready("a\u{e9}"), Err(BadLine::ControlCharacter { at: 1 }));
    }

    fn any_line() -> impl Strategy<Value = ReportLine> {
        let id = (any::<[u8; 16]>(), any::<i64>())
            .prop_map(|(uuid, seqno)| StateId { uuid: Uuid(uuid), seqno: Seqno(seqno) });
        prop_oneof![
            "\\PC{1,600}".prop_map(ReportLine::Ready),
            "[ -~]{1,504}".prop_map(ReportLine::Ready),
            any::<u64>().prop_map(ReportLine::Total),
            any::<u64>().prop_map(ReportLine::Complete),
            Just(ReportLine::FlushTables),
            Just(ReportLine::Continue),
            (id.clone(), any::<Option<u32>>())
                .prop_map(|(state, domain)| ReportLine::JoinerState { state, domain }),
            (id, any::<Option<u32>>()).prop_map(|(state, domain)| ReportLine::Done { state, domain }),
        ]
    }

    proptest! {
        #[test]
        fn one_line_within_the_servers_buffer_and_back(line in any_line()) {
            let Ok(text) = line.to_text() else { return Ok(()) };
            let limit = if matches!(line, ReportLine::Ready(_)) { 511 } else { 127 };
            prop_assert!(text.len() <= limit);
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            prop_assert_eq!(ReportLine::parse(&text), Ok(line));
        }

        #[test]
        fn never_panics(text in "(?s).{0,80}") {
            let _ = ReportLine::parse(&text);
        }
    }
}
