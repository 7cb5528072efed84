//! What a dry run found.
use std::path::PathBuf;

use crate::failure::{Failure, Kind};
use crate::install::plan::Purpose;

/// At most this many refusals are in one error, because a log line must hold them.
const REFUSALS_SHOWN: usize = 5;

/// The result of a dry run.
#[derive(Debug, Default)]
pub struct Findings {
    /// Problems that would stop the install in the middle.
    pub refusals: Vec<Failure>,
    /// The install succeeds, but leaves something behind.
    pub warnings: Vec<String>,
    /// Where a new file belongs that is not staged: the first one.
    pub missing: Option<PathBuf>,
}

impl Findings {
    /// Combines all refusals into one error.
    ///
    /// # Errors
    /// There is at least one refusal.
    pub fn refused(&self, purpose: Purpose) -> Result<(), Failure> {
        let more = self.refusals.len().saturating_sub(REFUSALS_SHOWN);
        let mut texts: Vec<String> =
            self.refusals.iter().take(REFUSALS_SHOWN).map(Failure::to_string).collect();
        if more > 0 {
            texts.push(format!("and {more} more"));
        }
        if texts.is_empty() {
            return Ok(());
        }
        let what = match purpose {
            Purpose::Install => "the joiner cannot install the new files",
            Purpose::Rollback => "the previous state cannot be restored",
        };
        Err(Failure::new(Kind::Refused, format!("{what} (nothing was changed): {}", texts.join("; "))))
    }
}
