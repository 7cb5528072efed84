//! Searches what the provider has logged since this program started. Our standard error is the server's error
//! log, if that is a file. The log of a server that logs to the journal or a pipe cannot be read.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// The provider logs this when a joiner leaves the primary component: the group no longer treats it as a
/// joiner.
const LOST: &[u8] = b"WSREP: Shifting JOINER -> OPEN";

/// The server's error log from a given offset on.
#[derive(Debug)]
pub struct ErrorLog {
    file: Option<File>,
    from: u64,
}

impl ErrorLog {
    /// Starts at the log's current end.
    pub fn from_now() -> ErrorLog {
        Self::of(File::open("/proc/self/fd/2").ok())
    }

    fn of(file: Option<File>) -> ErrorLog {
        let is_file = |file: &File| file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
        let from = file.as_ref().and_then(is_file);
        ErrorLog { file: file.filter(|_| from.is_some()), from: from.unwrap_or(0) }
    }

    /// Whether the node left the primary component as a joiner. False if the log cannot be read.
    pub fn joiner_was_expelled(&self) -> bool {
        self.file.as_ref().is_some_and(|file| holds(file, self.from, LOST).unwrap_or(false))
    }
}

fn holds(mut file: &File, from: u64, text: &[u8]) -> io::Result<bool> {
    file.seek(SeekFrom::Start(from))?;
    let (mut seen, mut block) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let n = file.read(&mut block)?;
        if n == 0 {
            return Ok(false);
        }
        seen.extend_from_slice(block.get(..n).unwrap_or_default());
        if seen.windows(text.len()).any(|window| window == text) {
            return Ok(true);
        }
        // The text may continue in the next block.
        seen.drain(..seen.len().saturating_sub(text.len() - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_what_is_logged_later_counts_and_blocks_do_not_hide_it() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        log.write_all(b"0 [Note] WSREP: Shifting JOINER -> OPEN (TO: 1)\n").unwrap();
        let reader = ErrorLog::of(Some(log.reopen().unwrap()));
        assert!(!reader.joiner_was_expelled());
        for before in [(64 << 10) - 10, 5, 70_000] {
            log.write_all(&vec![b'x'; before]).unwrap();
            assert!(!reader.joiner_was_expelled());
            let later = ErrorLog::of(Some(log.reopen().unwrap()));
            log.write_all(b"WSREP: Shifting JOINER -> OPE").unwrap();
            assert!(!later.joiner_was_expelled());
            log.write_all(b"N (TO: 31)\n").unwrap();
            assert!(later.joiner_was_expelled());
            log.as_file().set_len(48).unwrap();
            log.as_file_mut().seek(SeekFrom::End(0)).unwrap();
        }
    }

    #[test]
    fn a_pipe_says_nothing() {
        let (reader, _writer) = io::pipe().unwrap();
        let log = ErrorLog::of(Some(File::from(std::os::fd::OwnedFd::from(reader))));
        assert!(!log.joiner_was_expelled());
        assert!(!ErrorLog::of(None).joiner_was_expelled());
    }
}
