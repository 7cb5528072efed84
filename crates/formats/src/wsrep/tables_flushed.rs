//! The file `tables_flushed` that a donor's server writes into its data directory after `flush tables`:
//! `UUID:SEQNO DOMAIN\n` (sql/wsrep_sst.cc, MariaDB 10.11 and 11.8; older servers leave the domain out).

use super::state_id::{AnnotatedStateId, BadStateId, StateId};

/// Name of the file, in the data directory.
pub const FILE_NAME: &str = "tables_flushed";

/// Name of the empty file that replaces it if the server could not flush.
pub const ERROR_FILE_NAME: &str = "sst_error";

/// Parses the file's content; the position is the one at which the server blocks writes.
///
/// # Errors
/// The first invalid part; an empty file is `NoColon`.
pub fn parse(content: &str) -> Result<AnnotatedStateId, BadStateId> {
    StateId::parse_annotated(content.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seqno;
    use proptest::prelude::*;

    #[test]
    fn with_and_without_domain() {
        let u = "2f0eaefd-11aa-11f0-9b0e-0242ac110002";
        let with = parse(&format!("{u}:12 3\n")).unwrap();
        assert_eq!((with.state.seqno, with.domain), (Seqno(12), Some(3)));
        assert_eq!(parse(&format!("{u}:12\n")).unwrap().domain, None);
        assert_eq!(parse(""), Err(BadStateId::NoColon));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(?s).{0,80}") {
            let _ = parse(&text);
        }
    }
}
