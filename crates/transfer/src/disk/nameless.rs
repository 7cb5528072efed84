//! Files without a name: they go with the program, however that ends.
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

/// Makes one in this directory, for reading and writing, that only its owner may read.
///
/// # Errors
/// The filesystem has no room, or no such files.
pub fn nameless(directory: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(File::from(open(directory, flags, Mode::RUSR | Mode::WUSR)?))
}
