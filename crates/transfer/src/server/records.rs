//! Finds and reads the records of transfers. They may be anyone's files: no link is followed, and no file is read that is longer
//! than a record can be.
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use report::Record;
use report::record::RECORD_BYTES_MAX;

use super::log::is_ours;
use super::recorder::RECORD;
use crate::disk::small_file;

/// Most files of one directory that are read.
const FILES_MAX: usize = 10_000;

/// What was found.
#[derive(Debug, Default)]
pub struct Records {
    /// The records.
    pub records: Vec<Record>,
    /// Files that could not be read, with the reasons.
    pub unread: Vec<(PathBuf, String)>,
}

impl Records {
    /// Reads one record, or all in a directory.
    ///
    /// # Errors
    /// The place does not exist, or its list cannot be read.
    pub fn add(&mut self, place: &Path) -> Result<()> {
        if !fs::metadata(place).with_context(|| place.display().to_string())?.is_dir() {
            self.read(place);
            return Ok(());
        }
        let listed = fs::read_dir(place).with_context(|| format!("cannot list {}", place.display()))?;
        let is_record =
            |name: &OsStr| name.to_str().is_some_and(|name| is_ours(name) && name.ends_with(RECORD));
        let names = listed.filter_map(|entry| Some(entry.ok()?.file_name())).filter(|name| is_record(name));
        let mut names: Vec<_> = names.take(FILES_MAX).collect();
        names.sort();
        names.iter().for_each(|name| self.read(&place.join(name)));
        Ok(())
    }

    fn read(&mut self, path: &Path) {
        let text = read(path).map_err(|error| format!("{error:#}"));
        match text.and_then(|text| Record::parse(&text)) {
            Ok(record) => self.records.push(record),
            Err(why) => self.unread.push((path.to_owned(), why)),
        }
    }
}

fn read(path: &Path) -> Result<String> {
    let file = small_file::open(path)?;
    if !file.metadata()?.is_file() {
        bail!("not a file");
    }
    let mut text = String::new();
    // One byte more, so that what is too long is noticed.
    file.take(RECORD_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_records_are_read_and_no_link_is_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("rejoin-joiner-20260101-000000-1.json"), r#"{"schema":1,"role":"joiner"}"#)
            .expect("written");
        fs::write(at("rejoin-donor-20260101-000000-1.json"), "torn").expect("written");
        fs::write(at("rejoin-lineage.json"), "other").expect("written");
        fs::write(at("secret"), r#"{"schema":1}"#).expect("written");
        symlink(at("secret"), at("rejoin-joiner-20260102-000000-1.json")).expect("linked");
        let long = fs::File::create(at("rejoin-joiner-20260103-000000-1.json")).expect("created");
        long.set_len(RECORD_BYTES_MAX * 9).expect("made long");
        let mut found = Records::default();
        found.add(dir.path()).expect("read");
        assert_eq!(found.records.len(), 1);
        let unread: Vec<String> = found.unread.iter().map(|(_, why)| why.clone()).collect();
        assert!(unread[0].contains("not the record"), "{unread:?}");
        assert!(unread[1].contains("symbolic links"), "{unread:?}");
        assert!(unread[2].contains("longer"), "{unread:?}");
        assert!(found.add(&at("none")).is_err());
        found.add(&at("secret")).expect("a file that is named is read");
        assert_eq!(found.records.len(), 2);
    }
}
