//! What a datadir holds, to the byte.
use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

use anyhow::{Context, Result};

/// Length and digest of every file by its path in the directory; directories and links are there by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest(BTreeMap<String, (u64, u64)>);

/// Top-level names that belong to the provider, to running programs or to the log, and not to the data.
const NOT_DATA: [&str; 11] = [
    ".rejoin",
    "#sql-rejoin",
    "grastate.dat",
    "gvwstate.dat",
    "galera.cache",
    "gcache.page",
    "rejoin-",
    "sst_in_progress",
    "sst_retry_",
    "wsrep_sst.pid",
    "tables_flushed",
];

impl Manifest {
    /// Of the data in a datadir.
    pub fn of(datadir: &Path) -> Result<Manifest> {
        let mut manifest = Manifest::default();
        manifest.add(datadir, "")?;
        Ok(manifest)
    }

    fn add(&mut self, directory: &Path, prefix: &str) -> Result<()> {
        for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if prefix.is_empty() && NOT_DATA.iter().any(|other| name.starts_with(other)) {
                continue;
            }
            let (name, kind) = (format!("{prefix}{name}"), entry.file_type()?);
            if kind.is_dir() {
                self.0.insert(name.clone(), (0, 0));
                self.add(&entry.path(), &format!("{name}/"))?;
            } else if kind.is_file() {
                let bytes = fs::read(entry.path())?;
                let mut hash = DefaultHasher::new();
                hash.write(&bytes);
                self.0.insert(name, (bytes.len() as u64, hash.finish()));
            } else {
                self.0.insert(name, (1, 0));
            }
        }
        Ok(())
    }

    /// Names that are not the same in both.
    pub fn differences(&self, other: &Manifest) -> Vec<String> {
        let mut names: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        names.sort();
        names.dedup();
        let differ = |name: &&&String| self.0.get(**name) != other.0.get(**name);
        names.iter().filter(differ).map(|name| (*name).clone()).collect()
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
