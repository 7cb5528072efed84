//! Small files of the datadir that others could have put there: no link is followed, and a bounded part is read.
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Opens a file for reading, but no link, and without waiting if it is a FIFO.
///
/// # Errors
/// It does not exist, is a link, or cannot be read.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(openat(CWD, path, flags, Mode::empty())?))
}

/// Reads a regular file of at most `max` bytes. `None` if there is no file of this name.
///
/// # Errors
/// It is a link, no regular file, longer, or cannot be read.
pub fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is not a regular file"));
    }
    let mut content = Vec::with_capacity(metadata.len().min(max) as usize);
    file.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it is longer than {max} bytes")));
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_small_regular_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(read(&at("none"), 4).unwrap().is_none());
        std::fs::write(at("file"), "1234").unwrap();
        assert_eq!(read(&at("file"), 4).unwrap().unwrap(), b"1234");
        assert!(read(&at("file"), 3).is_err());
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        assert!(read(&at("link"), 4).is_err() && read(dir.path(), 4).is_err());
    }
}
