//! Directories by number. There can be very many files, and each of them is kept as a name in one of few directories.
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Directories, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directories {
    paths: Vec<PathBuf>,
    numbers: HashMap<PathBuf, u32>,
}

impl Directories {
    /// The number of a directory, a new one if it has none.
    pub(crate) fn number(&mut self, path: &Path) -> u32 {
        if let Some(known) = self.numbers.get(path) {
            return *known;
        }
        let number = self.paths.len() as u32;
        self.paths.push(path.to_owned());
        self.numbers.insert(path.to_owned(), number);
        number
    }

    /// The directory with this number.
    pub(crate) fn get(&self, number: u32) -> Option<&Path> {
        self.paths.get(number as usize).map(PathBuf::as_path)
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }
}
