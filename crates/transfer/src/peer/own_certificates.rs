//! The operator's certificates of one role, read from PEM files.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::failure::{Failure, Kind};

/// Files of a directory of authorities that are read.
const AUTHORITIES_MAX: usize = 4096;

/// The operator's certificates of one role, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificates {
    /// Where the certificates of the CA are that the peer's is checked with: files, or directories of files.
    pub ca: Vec<PathBuf>,
    /// This node's certificate, then its intermediates.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What was read.
pub(super) struct Loaded {
    pub roots: Arc<RootCertStore>,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl OwnCertificates {
    pub(super) fn load(&self) -> Result<Loaded> {
        let mut roots = RootCertStore::empty();
        for path in &self.ca {
            match path.is_dir() {
                true => add_directory(path, &mut roots)?,
                false => add_file(path, &mut roots)?,
            }
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|e| unusable(&self.key, "ssl-key", words(e)))?;
        Ok(Loaded { roots: Arc::new(roots), chain: certificates(&self.cert, "ssl-cert")?, key })
    }

    /// The file or directory that an error about the CA names.
    pub(super) fn first_authority(&self) -> &Path {
        self.ca.first().map_or(Path::new("ssl-ca"), PathBuf::as_path)
    }
}

fn add_file(path: &Path, roots: &mut RootCertStore) -> Result<()> {
    for certificate in certificates(path, "ssl-ca")? {
        roots.add(certificate).map_err(|e| unusable(path, "ssl-ca", e))?;
    }
    Ok(())
}

/// As `openssl rehash` prepares it, a directory has each certificate under two names, and other files beside them.
fn add_directory(path: &Path, roots: &mut RootCertStore) -> Result<()> {
    let entries = fs::read_dir(path).map_err(|e| unusable(path, "ssl-capath", e))?;
    let mut known = BTreeSet::new();
    for entry in entries.take(AUTHORITIES_MAX) {
        let file = entry.map_err(|e| unusable(path, "ssl-capath", e))?.path();
        if !file.is_file() {
            continue;
        }
        for certificate in certificates(&file, "ssl-capath").unwrap_or_default() {
            if known.insert(certificate.as_ref().to_vec()) {
                // One that the library cannot use is no reason against the others.
                let _ = roots.add(certificate);
            }
        }
    }
    if roots.is_empty() {
        return Err(unusable(path, "ssl-capath", "no file in it contains a PEM certificate of a CA").into());
    }
    Ok(())
}

pub(crate) fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all = all.map_err(|e| unusable(path, option, words(e)))?;
    if all.is_empty() {
        return Err(unusable(path, option, "it contains no PEM certificate").into());
    }
    Ok(all)
}

/// The library's texts for PEM problems address programmers.
pub(crate) fn words(error: rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(e) => e.to_string(),
        Error::NoItemsFound => {
            "it contains no PEM section of this kind (an encrypted key is not supported)".into()
        }
        e => format!("{e:?}"),
    }
}

pub(crate) fn unusable(path: &Path, option: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Configuration, format!("cannot use {} ({option}): {why}", path.display()))
}
