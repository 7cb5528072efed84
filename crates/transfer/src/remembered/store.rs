//! The two files in the datadir: the key of the cluster, and the list, encrypted with it. Both are for the server's user
//! alone.
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use protocol::fingerprint::FingerprintKey;
use protocol::remembered::{REMEMBERED_BYTES_MAX, Remembered};
use ring::{aead, hmac};

use crate::datadir::FINGERPRINTS_FILE;
use crate::disk::durable;
use crate::disk::identity::{Look, look};
use crate::disk::small_file;
use crate::peer::secret::random_bytes;

/// The list.
pub const LIST: &str = FINGERPRINTS_FILE;
/// The key. Its name begins with that of the list.
pub const KEY: &str = "rejoin-fingerprints.key";

/// Separates the key of this file from the key of the fingerprints.
const DOMAIN: &[u8] = b"rejoin remembered fingerprints v1\0";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// The key of this node; `None` if it has none, or others may have read it.
///
/// # Errors
/// The file cannot be read.
pub fn key(datadir: &Path) -> Result<Option<FingerprintKey>> {
    let path = datadir.join(KEY);
    let Some(bytes) =
        small_file::read(&path, 4096).with_context(|| format!("cannot read {}", path.display()))?
    else {
        return Ok(None);
    };
    let mode = std::fs::metadata(&path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            "{} can be read by others (mode {:o}): it is not used any more",
            path.display(),
            mode & 0o777
        );
        return Ok(None);
    }
    Ok(bytes.try_into().ok())
}

/// The key of this node, a new one if it has none.
///
/// # Errors
/// It cannot be read or written.
pub fn key_or_new(datadir: &Path) -> Result<FingerprintKey> {
    match key(datadir)? {
        Some(key) => Ok(key),
        None => {
            let key = random_bytes()?;
            take_key(datadir, &key)?;
            Ok(key)
        }
    }
}

/// Makes this the node's key. What was remembered under another one is removed.
///
/// # Errors
/// From the disk.
pub fn take_key(datadir: &Path, new: &FingerprintKey) -> Result<()> {
    if key(datadir)?.as_ref() == Some(new) {
        return Ok(());
    }
    forget(datadir)?;
    durable::write_privately(&datadir.join(KEY), new)
}

/// The key of a node that remembers something.
///
/// # Errors
/// From the disk.
pub fn key_in_use(datadir: &Path) -> Result<Option<FingerprintKey>> {
    let remembers = look(&datadir.join(LIST))?.is_some();
    if remembers { key(datadir) } else { Ok(None) }
}

/// What a donor does with the key under which its joiner remembers: the smaller one of the two keys is that of both nodes. Whatever
/// donors the nodes of a cluster choose, all of them come to have the same key, and then nobody has to forget anything.
///
/// # Errors
/// From the disk.
pub fn agree_on_key(datadir: &Path, theirs: &FingerprintKey) -> Result<()> {
    match key(datadir)? {
        Some(own) if own <= *theirs => Ok(()),
        own => {
            if own.is_some() {
                tracing::info!(
                    "the joiner remembers fingerprints under another key, which is this node's from now on: what this node \
                     remembered is removed"
                );
            }
            take_key(datadir, theirs)
        }
    }
}

/// Removes the list.
///
/// # Errors
/// From the disk.
pub fn forget(datadir: &Path) -> Result<()> {
    durable::remove_if_there(&datadir.join(LIST)).map(drop)
}

/// The list, and the file that it was read from. `None` if there is none, or it was written with another key or by another
/// version: it is replaced then.
///
/// # Errors
/// The file cannot be read.
pub fn load(datadir: &Path, key: &FingerprintKey) -> Result<Option<(Remembered, Look)>> {
    let path = datadir.join(LIST);
    let max = (REMEMBERED_BYTES_MAX + NONCE_BYTES + TAG_BYTES) as u64;
    let cannot = || format!("cannot read {}", path.display());
    let Some(seen) = look(&path).with_context(cannot)? else { return Ok(None) };
    let Some(sealed) = small_file::read(&path, max).with_context(cannot)? else { return Ok(None) };
    let list = unseal(key, sealed).and_then(|bytes| match Remembered::parse(bytes) {
        Ok(list) => Some(list),
        Err(why) => {
            tracing::info!("the remembered fingerprints are not used: {why}");
            None
        }
    });
    Ok(list.map(|list| (list, seen)))
}

/// Whether the list is still in the file from which it was read.
pub fn is_as_loaded(datadir: &Path, loaded: Option<&Look>) -> bool {
    let now = look(&datadir.join(LIST)).ok().flatten();
    now.map(|now| (now.identity, now.signature)) == loaded.map(|then| (then.identity, then.signature))
}

/// Writes a list.
///
/// # Errors
/// From the disk.
pub fn save(datadir: &Path, key: &FingerprintKey, list: Vec<u8>) -> Result<()> {
    durable::write_privately(&datadir.join(LIST), &seal(key, list)?)
}

fn cipher(key: &FingerprintKey) -> Option<aead::LessSafeKey> {
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), DOMAIN);
    Some(aead::LessSafeKey::new(aead::UnboundKey::new(&aead::CHACHA20_POLY1305, derived.as_ref()).ok()?))
}

fn seal(key: &FingerprintKey, mut list: Vec<u8>) -> Result<Vec<u8>> {
    let failed = || anyhow!("the fingerprints cannot be encrypted");
    list.reserve_exact(NONCE_BYTES + TAG_BYTES);
    // Twelve random bytes: it is written once for each transfer, so no two of a key's lists have the same.
    let random: [u8; 32] = random_bytes()?;
    let nonce: [u8; NONCE_BYTES] = random.first_chunk().copied().ok_or_else(failed)?;
    let cipher = cipher(key).ok_or_else(failed)?;
    let sealed = cipher.seal_in_place_append_tag(
        aead::Nonce::assume_unique_for_key(nonce),
        aead::Aad::empty(),
        &mut list,
    );
    sealed.map_err(|_| failed())?;
    // In place: it can be long.
    drop(list.splice(..0, nonce));
    Ok(list)
}

fn unseal(key: &FingerprintKey, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let nonce: [u8; NONCE_BYTES] = sealed.first_chunk().copied()?;
    let (cipher, nonce) = (cipher(key)?, aead::Nonce::assume_unique_for_key(nonce));
    let opened = cipher.open_within(nonce, aead::Aad::empty(), &mut sealed, NONCE_BYTES..).ok()?.len();
    sealed.truncate(opened);
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use protocol::remembered::{Builder, FileRecord, FileState, Written};

    use super::*;

    fn list() -> Vec<u8> {
        let state = FileState { inode: 0x1122_3344, size: 5, ..FileState::default() };
        let mut builder = Builder::default();
        assert!(builder.push(&FileRecord { state, front: None, ranges: &[0xa7; 24] }));
        builder.finish(&Written::default())
    }

    #[test]
    fn a_list_is_for_its_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert!(load(at, &[1; 32]).unwrap().is_none());
        save(at, &[1; 32], list()).unwrap();
        let (read, seen) = load(at, &[1; 32]).unwrap().unwrap();
        assert_eq!((read.len(), is_as_loaded(at, Some(&seen))), (1, true));
        assert!(load(at, &[2; 32]).unwrap().is_none(), "another key");
        // Nothing of it is in the file in clear, and any change is noticed.
        let mut sealed = std::fs::read(at.join(LIST)).unwrap();
        assert!(!sealed.windows(4).any(|four| four == [0xa7; 4] || four == *b"rjfn"));
        let last = sealed.len() - 1;
        sealed[last] ^= 1;
        std::fs::write(at.join(LIST), &sealed).unwrap();
        assert!(load(at, &[1; 32]).unwrap().is_none());
        assert!(!is_as_loaded(at, Some(&seen)), "it is another file by now");
        std::fs::write(at.join(LIST), [0; 5]).unwrap();
        assert!(load(at, &[1; 32]).unwrap().is_none());
    }

    #[test]
    fn a_new_key_voids_the_list_and_the_files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        assert_eq!(key(at).unwrap(), None);
        let first = key_or_new(at).unwrap();
        assert_eq!(key_or_new(at).unwrap(), first);
        save(at, &first, list()).unwrap();
        for name in [KEY, LIST] {
            assert_eq!(
                std::fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o777,
                0o600,
                "{name}"
            );
        }
        take_key(at, &first).unwrap();
        assert!(at.join(LIST).exists(), "the same key");
        take_key(at, &[9; 32]).unwrap();
        assert!(!at.join(LIST).exists() && key(at).unwrap() == Some([9; 32]));
        // Two nodes with keys of their own.
        assert_eq!(key_in_use(at).unwrap(), None, "nothing is remembered under it");
        save(at, &[9; 32], list()).unwrap();
        assert_eq!(key_in_use(at).unwrap(), Some([9; 32]));
        agree_on_key(at, &[10; 32]).unwrap();
        assert!(at.join(LIST).exists() && key(at).unwrap() == Some([9; 32]), "the joiner takes this one");
        agree_on_key(at, &[8; 32]).unwrap();
        assert!(!at.join(LIST).exists() && key(at).unwrap() == Some([8; 32]));
        take_key(at, &[9; 32]).unwrap();
        // A key that others may have read is replaced.
        std::fs::set_permissions(at.join(KEY), std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(key(at).unwrap(), None);
        assert!(key_or_new(at).unwrap() != [9; 32] && key(at).unwrap().is_some());
    }
}
