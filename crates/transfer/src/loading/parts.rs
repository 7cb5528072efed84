//! The parts of a logical snapshot that arrived.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context, Result};
use protocol::logical::{CONTENTS, CONTENTS_BYTES_MAX, Contents};
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

    /// Whether this part arrived.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The description of all others.
    ///
    /// # Errors
    /// It did not arrive, or cannot be read.
    pub fn contents(&self) -> Result<Contents> {
        let mut bytes = Vec::new();
        self.open(CONTENTS)?
            .take(CONTENTS_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .context("the description of the logical snapshot cannot be unpacked")?;
        Contents::decode(&bytes).map_err(|e| Failure::new(Kind::Peer, e.to_string()).into())
    }

    /// What is packed in a part.
    ///
    /// # Errors
    /// It did not arrive, or cannot be opened.
    pub fn open(&self, path: &str) -> Result<impl Read + use<>> {
        let missing =
            || Failure::new(Kind::Peer, format!("the part {path:?} of the logical snapshot never arrived"));
        let staged = self.0.get(path).ok_or_else(missing)?;
        let file = File::open(staged).with_context(|| format!("cannot open {}", staged.display()))?;
        Ok(Decoder::with_buffer(BufReader::with_capacity(1 << 17, file))?)
    }
}
