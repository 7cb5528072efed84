//! Options of a running transfer that an operator changes (`rejoin set`), and the file in the datadir by which they reach its
//! program. The program removes the file once it has read it, so `rejoin set` knows that it arrived.
//!
//! The file is written by the datadir's owner, but it is read like anything from elsewhere: no link is followed, its
//! owner and its length are checked, and its values go through the same parsers as those under `[sst]`.
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::options::{size, switch};
use crate::disk::durable::{remove_if_there, temporary};
use crate::disk::small_file;
use crate::failure::{Failure, Kind};
use crate::human;

/// Name of the file in the datadir.
pub const CHANGES_FILE: &str = "rejoin-set.json";

/// A longer file is none of ours.
const BYTES_MAX: u64 = 4096;
/// More changes at once than there are options are a mistake.
pub const CHANGES_MAX: usize = 16;

/// What can be changed.
const OPTIONS: &str = "rlimit and adaptive-throttle";
const RLIMIT: &str = "rlimit";
/// An option that not every transfer has.
pub const ADAPTIVE_THROTTLE: &str = "adaptive-throttle";

/// A new value of an option of `[sst]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `rlimit`; `None` = no limit.
    Rlimit(Option<u64>),
    /// `adaptive-throttle`.
    AdaptiveThrottle(bool),
}

impl Change {
    /// Reads `NAME=VALUE`.
    ///
    /// # Errors
    /// Another name, or a value that the option does not take.
    pub fn parse(text: &str) -> Result<Change> {
        let bad = |text: String| Failure::new(Kind::Configuration, text);
        let Some((name, value)) = text.split_once('=') else {
            let text = format!("{text:?} is no NAME=VALUE");
            return Err(bad(text).hint("for example: rejoin set rlimit=50M").into());
        };
        match name.replace('_', "-").as_str() {
            RLIMIT => Ok(Change::Rlimit(Some(size(RLIMIT, value)?).filter(|rate| *rate > 0))),
            ADAPTIVE_THROTTLE => Ok(Change::AdaptiveThrottle(switch(ADAPTIVE_THROTTLE, value)?)),
            _ => {
                let text = format!("{name:?} cannot be changed while a transfer runs");
                Err(bad(text).hint(format!("what can be changed: {OPTIONS}")).into())
            }
        }
    }

    /// The name of the option.
    pub fn name(self) -> &'static str {
        match self {
            Change::Rlimit(_) => RLIMIT,
            Change::AdaptiveThrottle(_) => ADAPTIVE_THROTTLE,
        }
    }

    /// As `NAME=VALUE`, in bytes.
    pub fn as_option(self) -> String {
        let value = match self {
            Change::Rlimit(rate) => rate.unwrap_or(0),
            Change::AdaptiveThrottle(on) => u64::from(on),
        };
        format!("{}={value}", self.name())
    }

    /// What is true now, in words.
    pub fn in_words(self) -> String {
        match self {
            Change::Rlimit(None) => "rlimit is none now".to_owned(),
            Change::Rlimit(Some(rate)) => format!("rlimit is {}/s now", human::size(rate)),
            Change::AdaptiveThrottle(on) => format!("adaptive-throttle is {} now", u8::from(on)),
        }
    }
}

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    /// The transfer's process: the changes are for no other one.
    pub pid: u32,
    /// The user who asked for them.
    pub uid: u32,
    /// `NAME=VALUE`, in order.
    pub set: Vec<String>,
}

/// Where the file is.
pub fn changes_file(datadir: &Path) -> PathBuf {
    datadir.join(CHANGES_FILE)
}

/// Writes the file. Must run as the datadir's owner.
///
/// # Errors
/// From the disk.
pub fn write(datadir: &Path, changes: &Changes) -> Result<()> {
    let path = changes_file(datadir);
    let temporary = temporary(&path)?;
    let put = || -> std::io::Result<()> {
        let text = serde_json::to_vec(changes)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        fs::rename(&temporary, &path)
    };
    put().inspect_err(|_| drop(fs::remove_file(&temporary))).with_context(|| path.display().to_string())
}

/// Takes the file away and returns what it asks of process `pid`; `None` if there is none, or it is for another process.
///
/// # Errors
/// It is not what `rejoin set` writes. It is gone anyway, unless the disk does not permit that.
pub fn take(datadir: &Path, pid: u32) -> Result<Option<(u32, Vec<Change>)>> {
    let path = changes_file(datadir);
    let Some(text) = read(&path).with_context(|| path.display().to_string()).transpose() else {
        return Ok(None);
    };
    remove_if_there(&path)?;
    let changes: Changes = serde_json::from_str(&text?).context("not what rejoin set writes")?;
    if changes.pid != pid {
        return Ok(None);
    }
    let parsed = changes.set.iter().take(CHANGES_MAX).map(|text| Change::parse(text));
    Ok(Some((changes.uid, parsed.collect::<Result<_>>()?)))
}

/// The text of the file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>> {
    let file = match small_file::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let meta = file.metadata()?;
    let owner = rustix::process::geteuid().as_raw();
    anyhow::ensure!(meta.is_file(), "it is no file");
    anyhow::ensure!(meta.uid() == owner, "it belongs to user {}, and not to user {owner}", meta.uid());
    anyhow::ensure!(meta.mode() & 0o022 == 0, "others may write to it");
    anyhow::ensure!(meta.len() <= BYTES_MAX, "it is longer than {BYTES_MAX} bytes");
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const PID: u32 = 77;

    fn asked(set: &[&str]) -> Changes {
        Changes { pid: PID, uid: 5, set: set.iter().map(|&text| text.to_owned()).collect() }
    }

    #[test]
    fn values_are_read_as_those_under_sst() {
        let parse = |text| Change::parse(text).unwrap();
        assert_eq!(parse("rlimit=50M"), Change::Rlimit(Some(50 << 20)));
        assert_eq!(parse("rlimit=0"), Change::Rlimit(None));
        assert_eq!(parse("adaptive_throttle=off"), Change::AdaptiveThrottle(false));
        assert_eq!(parse("rlimit=50M").in_words(), "rlimit is 50.0 MiB/s now");
        for text in ["rlimit=52428800", "rlimit=0", "adaptive-throttle=1"] {
            assert_eq!(parse(text).as_option(), text);
        }
        for (text, why) in [
            ("rlimit=fast", "is not a size"),
            ("rlimit=", "is not a size"),
            ("rlimit=-1", "is not a size"),
            ("rlimit=99999999999999999999", "is not a size"),
            ("adaptive-throttle=2", "is not a switch"),
            ("rlimit", "no NAME=VALUE"),
            ("threads=8", "cannot be changed while a transfer runs (hint: what can be changed: rlimit and"),
        ] {
            let error = Change::parse(text).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
            assert_eq!(crate::failure::kind_of(&error), Kind::Configuration, "{text}");
        }
    }

    #[test]
    fn what_was_asked_is_taken_once_and_only_by_its_transfer() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take(dir.path(), PID).unwrap(), None);
        write(dir.path(), &asked(&["rlimit=1k", "adaptive-throttle=0"])).unwrap();
        let changes = vec![Change::Rlimit(Some(1024)), Change::AdaptiveThrottle(false)];
        assert_eq!(take(dir.path(), PID).unwrap(), Some((5, changes)));
        assert_eq!(take(dir.path(), PID).unwrap(), None);
        write(dir.path(), &asked(&["rlimit=1k"])).unwrap();
        assert_eq!(take(dir.path(), PID + 1).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_rejoin_set_has_not_written_is_refused_and_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = changes_file(dir.path());
        let valid = serde_json::to_string(&asked(&["rlimit=1k"])).unwrap();
        let refused = |why: &str| {
            let error = format!("{:#}", take(dir.path(), PID).unwrap_err());
            assert!(error.contains(why), "{error}");
            assert!(!path.exists() && !path.is_symlink());
        };
        for text in ["", "{}", "[]", "{\"pid\":77,\"uid\":5,\"set\":[],\"x\":1}", "\u{0}"] {
            fs::write(&path, text).unwrap();
            refused("not what rejoin set writes");
        }
        fs::write(&path, serde_json::to_string(&asked(&["threads=8"])).unwrap()).unwrap();
        refused("cannot be changed");
        fs::write(&path, format!("{valid}{}", " ".repeat(5000))).unwrap();
        refused("longer than");
        fs::write(&path, &valid).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        refused("others may write");
        fs::write(dir.path().join("elsewhere"), &valid).unwrap();
        symlink(dir.path().join("elsewhere"), &path).unwrap();
        refused("rejoin-set.json");
        assert!(dir.path().join("elsewhere").exists());
        // A directory stays, and is refused as often as it is looked at.
        fs::create_dir(&path).unwrap();
        assert!(take(dir.path(), PID).is_err() && path.is_dir());
    }
}
