//! `grastate.dat`, where the provider records the position at which it stopped.
//!
//! Established from galera/src/saved_state.cpp (Galera 26.4.23) and from files of running, stopped and failed
//! nodes. The provider rewrites it in place and pads it, so blanks and empty lines may follow.

use std::fmt::Write;

use thiserror::Error;

use crate::ids::{Seqno, Uuid};
use crate::wsrep::state_id::StateId;

/// Name of the file, in the data directory.
pub const FILE_NAME: &str = "grastate.dat";

/// Content of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraState {
    /// Format, `2.1` today.
    pub version: String,
    /// The history; nil after a failed transfer and during one.
    pub uuid: Uuid,
    /// The last write-set; -1 while the node runs and after a crash.
    pub seqno: Seqno,
    /// Whether this was the last node to leave the cluster, so that it may bootstrap a new one.
    pub safe_to_bootstrap: bool,
}

/// Why the file cannot be parsed. The named line is the first invalid one, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GraStateError {
    /// A required key is missing.
    #[error("no line '{0}:'")]
    Missing(&'static str),
    /// A value cannot be parsed.
    #[error("line {line}: bad value of '{key}'")]
    Value {
        /// The line's number.
        line: usize,
        /// The key.
        key: &'static str,
    },
}

impl GraState {
    /// Parses the file. Unknown keys, comments and blank lines are skipped. `version` and `safe_to_bootstrap`
    /// may be absent (older providers); like the provider, we then assume an empty text and true.
    ///
    /// # Errors
    /// No `uuid` or no `seqno`, or a value that cannot be parsed.
    pub fn parse(content: &str) -> Result<GraState, GraStateError> {
        let (mut version, mut uuid, mut seqno, mut safe) = (String::new(), None, None, true);
        for (at, line) in content.lines().enumerate() {
            let line_no = at + 1;
            let line = line.trim();
            if line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let bad = |key| GraStateError::Value { line: line_no, key };
            match key.trim() {
                "version" => version = value.to_owned(),
                "uuid" => uuid = Some(value.parse().map_err(|_| bad("uuid"))?),
                "seqno" => seqno = Some(value.parse().map(Seqno).map_err(|_| bad("seqno"))?),
                "safe_to_bootstrap" => {
                    safe = match value {
                        "0" => false,
                        "1" => true,
                        _ => return Err(bad("safe_to_bootstrap")),
                    }
                }
                _ => {}
            }
        }
        Ok(GraState {
            version,
            uuid: uuid.ok_or(GraStateError::Missing("uuid"))?,
            seqno: seqno.ok_or(GraStateError::Missing("seqno"))?,
            safe_to_bootstrap: safe,
        })
    }

    /// The file's content as the provider writes it, without the padding.
    pub fn emit(&self) -> String {
        let mut text = String::from("# GALERA saved state\n");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "version: {}", self.version);
        let _ = writeln!(text, "uuid:    {}", self.uuid);
        let _ = writeln!(text, "seqno:   {}", self.seqno);
        let _ = writeln!(text, "safe_to_bootstrap: {}", u8::from(self.safe_to_bootstrap));
        text
    }

    /// The position as a state.
    pub fn state(&self) -> StateId {
        StateId { uuid: self.uuid, seqno: self.seqno }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tolerant_where_the_provider_is() {
        let text = "# x\n\nuuid: 2f0eaefd-11aa-11f0-9b0e-0242ac110002\r\nseqno: -1\ncert_index:\n   \n";
        let read = GraState::parse(text).unwrap();
        assert_eq!((read.seqno, read.safe_to_bootstrap, read.version.as_str()), (Seqno(-1), true, ""));
    }

    #[test]
    fn errors_name_line_and_key() {
        assert_eq!(GraState::parse(""), Err(GraStateError::Missing("uuid")));
        assert_eq!(GraState::parse("\nuuid: x\n"), Err(GraStateError::Value { line: 2, key: "uuid" }));
        let text = "uuid: 2f0eaefd-11aa-11f0-9b0e-0242ac110002\nseqno: x";
        assert_eq!(GraState::parse(text), Err(GraStateError::Value { line: 2, key: "seqno" }));
        let text = "safe_to_bootstrap: 2";
        assert_eq!(GraState::parse(text), Err(GraStateError::Value { line: 1, key: "safe_to_bootstrap" }));
    }

    proptest! {
        #[test]
        fn round_trip(version in "[0-9.]{0,5}", uuid: [u8; 16], seqno: i64, safe_to_bootstrap: bool) {
            let state = GraState { version, uuid: Uuid(uuid), seqno: Seqno(seqno), safe_to_bootstrap };
            prop_assert_eq!(GraState::parse(&state.emit()), Ok(state));
        }

        #[test]
        fn never_panics(text in "(?s).{0,120}") {
            let _ = GraState::parse(&text);
        }
    }
}
