//! The parts of a logical snapshot that arrived.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::logical::{CONTENTS, CONTENTS_BYTES_MAX, Contents, Table};
use zstd::stream::read::Decoder;

use crate::failure::{Failure, Kind};

/// Where each part is staged, by its path.
#[derive(Debug, Default)]
pub struct Parts(BTreeMap<String, PathBuf>);

impl Parts {
    /// These parts.
    pub fn new(parts: impl IntoIterator<Item = (String, PathBuf)>) -> Parts {
        Parts(parts.into_iter().collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a part is staged.
    ///
    /// # Errors
    /// It did not arrive.
    pub fn staged(&self, path: &str) -> Result<&Path, Failure> {
        let missing =
            || Failure::new(Kind::Peer, format!("the part {path:?} of the logical snapshot never arrived"));
        self.0.get(path).map(PathBuf::as_path).ok_or_else(missing)
    }

    /// The description of all others.
    ///
    /// # Errors
    /// It did not arrive, or cannot be read.
    pub fn contents(&self) -> Result<Contents> {
        contents(self.staged(CONTENTS)?)
    }
}

/// The description of a snapshot in a staged part.
///
/// # Errors
/// It cannot be read.
pub fn contents(staged: &Path) -> Result<Contents> {
    let read = Contents::decode(&description(staged)?);
    read.map_err(|e| Failure::new(Kind::Peer, e.to_string()).into())
}

/// The description of a table in a staged part.
///
/// # Errors
/// It cannot be read.
pub fn table(staged: &Path) -> Result<Table> {
    let read = Table::decode(&description(staged)?);
    read.map_err(|e| Failure::new(Kind::Peer, e.to_string()).into())
}

fn description(staged: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(staged)?
        .take(CONTENTS_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .context("a description in the logical snapshot cannot be unpacked")?;
    Ok(bytes)
}

/// What is packed in a staged part.
///
/// # Errors
/// It cannot be opened.
pub fn open(staged: &Path) -> Result<impl Read + use<>> {
    let file = File::open(staged).with_context(|| format!("cannot open {}", staged.display()))?;
    Ok(Decoder::with_buffer(BufReader::with_capacity(1 << 17, file))?)
}
