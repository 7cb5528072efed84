//! What a node's error log says, and which of it is unexpected.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A place in an error log: what was written after it is of interest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogMark(pub(crate) u64);

/// Errors the server logs in joins that go well. None so far. If you add one, say when it is harmless, and make the
/// text narrow enough not to cover an error of the program under test.
const EXPECTED: [&str; 0] = [];

/// Reads the log from `mark` on; an absent log is an empty one.
pub fn read(path: &Path, mark: LogMark) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The end of the log as it is now.
pub fn end(path: &Path) -> LogMark {
    LogMark(path.metadata().map_or(0, |meta| meta.len()))
}

/// Lines that tell of an error and hold none of `allowed`, nor what is always allowed.
pub fn unexpected(text: &str, allowed: &[&str]) -> Vec<String> {
    let fine = |line: &str| EXPECTED.iter().chain(allowed).any(|known| line.contains(known));
    text.lines().filter(|line| is_error(line) && !fine(line)).map(str::to_owned).collect()
}

/// The lines that explain a failed start: errors and what the SST programs said, then how the log ends.
pub fn explain(text: &str) -> String {
    let telling = |line: &&str| is_error(line) || line.contains("WSREP_SST:");
    let reasons: Vec<&str> = text.lines().filter(telling).collect();
    let reasons = &reasons[reasons.len().saturating_sub(20)..];
    format!("{}\n--- end of the log:\n{}", reasons.join("\n"), crate::process::tail(text, 30))
}

fn is_error(line: &str) -> bool {
    line.contains("[ERROR]") || line.contains("got signal") || line.contains("Assertion")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_unexpected_unless_allowed() {
        let text = "1 [ERROR] InnoDB: bad page\n2 [Note] fine\n3 [ERROR] mine\n";
        assert_eq!(unexpected(text, &["mine"]), ["1 [ERROR] InnoDB: bad page"]);
    }
}
