//! Write-sets that came from a donor's archive, on the joiner's disk until its server has applied them: one file of IST
//! messages, one for each seqno, in order.
//!
//! Each was verified by its own checksums when it came, and is again when it is read. A torn end, of a crash, is cut off: what
//! is before it need not come again.
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use formats::galera::ist::{HEADER_LEN, Header};
use formats::{Seqno, Uuid};

use crate::disk::durable;
use crate::failure::{Failure, Kind};

/// What the name begins with, in the datadir; the history and an ending follow.
const PREFIX: &str = "rejoin-ist-";
const ENDING: &str = ".spool";
/// Bytes of a payload that are read at a time: a length that is wrong costs no more memory.
const STEP: u64 = 1 << 20;

/// Where the write-sets of a history wait.
pub fn path(datadir: &Path, history: Uuid) -> PathBuf {
    datadir.join(format!("{PREFIX}{history}{ENDING}"))
}

/// Every spool in this datadir.
///
/// # Errors
/// From the disk.
pub fn all(datadir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in datadir.read_dir().with_context(|| format!("cannot list {}", datadir.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && name.ends_with(ENDING) {
            all.push(datadir.join(name));
        }
    }
    Ok(all)
}

/// Removes every spool in this datadir.
///
/// # Errors
/// From the disk.
pub fn discard(datadir: &Path) -> Result<()> {
    all(datadir)?.iter().try_for_each(|path| durable::remove_if_there(path).map(drop))
}

/// A spool that is being filled.
#[derive(Debug)]
pub struct Spool {
    file: BufWriter<File>,
    path: PathBuf,
    /// The next seqno that is missing.
    next: Seqno,
    /// What has come of a message that is not complete.
    partial: Vec<u8>,
}

impl Spool {
    /// Opens the spool for what lies behind `position`; what is there of it already is kept.
    ///
    /// # Errors
    /// From the disk.
    pub fn open(datadir: &Path, history: Uuid, position: Seqno) -> Result<Spool> {
        let path = path(datadir, history);
        let failed = || format!("cannot write {}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(failed)?;
        let wanted = Seqno(position.0.saturating_add(1));
        let (next, end) = whole(&mut file, wanted)?;
        file.set_len(end).with_context(failed)?;
        file.seek(SeekFrom::Start(end)).with_context(failed)?;
        Ok(Spool { file: BufWriter::with_capacity(STEP as usize, file), path, next, partial: Vec::new() })
    }

    /// The next seqno that is missing.
    pub fn next(&self) -> Seqno {
        self.next
    }

    /// Takes bytes of IST messages as they come, cut anywhere. Every message is verified before it is written.
    ///
    /// # Errors
    /// A message that is not the one that is due, or damaged; the disk.
    pub fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.partial.get(at..).and_then(|rest| rest.first_chunk::<HEADER_LEN>()) {
            let header = Header::parse(head).map_err(|error| broke(&error.to_string()))?;
            let end = at + HEADER_LEN + header.len as usize;
            let Some(message) = self.partial.get(at..end) else { break };
            if !header.kind.is_ordered() || header.seqno != self.next {
                return Err(broke(&format!("write-set {} came, expected {}", header.seqno, self.next)).into());
            }
            let payload = message.get(HEADER_LEN..).unwrap_or_default();
            header.check_payload(payload).map_err(|why| broke(&format!("{}: {why}", header.seqno)))?;
            self.file.write_all(message).with_context(|| format!("cannot write {}", self.path.display()))?;
            self.next = Seqno(self.next.0.saturating_add(1));
            at = end;
        }
        self.partial.drain(..at);
        Ok(())
    }

    /// Everything up to `last` is on stable storage.
    ///
    /// # Errors
    /// It has not all come; the disk.
    pub fn finish(mut self, last: Seqno) -> Result<()> {
        if self.next.0 <= last.0 || !self.partial.is_empty() {
            return Err(broke(&format!("they end before {}, {last} was announced", self.next)).into());
        }
        self.store()
    }

    /// What is complete is on stable storage, for the next try.
    ///
    /// # Errors
    /// The disk.
    pub fn store(&mut self) -> Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        self.file.flush().with_context(failed)?;
        self.file.get_ref().sync_data().with_context(failed)
    }
}

fn broke(why: &str) -> Failure {
    Failure::new(Kind::Peer, format!("invalid write-sets from the donor's archive: {why}"))
}

/// How far the file is sound: the seqno after its last message, and where that ends. Nothing of it counts when what is
/// wanted would not follow from it.
fn whole(file: &mut File, wanted: Seqno) -> Result<(Seqno, u64)> {
    let mut reader = Reader { file: BufReader::with_capacity(STEP as usize, file), payload: Vec::new() };
    let (mut next, mut end) = (None, 0);
    while let Ok(Some(header)) = reader.read_next() {
        if next.is_some_and(|next| next != header.seqno) || (next.is_none() && header.seqno > wanted) {
            break;
        }
        next = Some(Seqno(header.seqno.0.saturating_add(1)));
        end += (HEADER_LEN + reader.payload.len()) as u64;
    }
    Ok(match next {
        Some(next) if next >= wanted => (next, end),
        _ => (wanted, 0),
    })
}

/// Reads a spool message by message.
#[derive(Debug)]
pub struct Reader<F: Read> {
    file: BufReader<F>,
    payload: Vec<u8>,
}

impl Reader<File> {
    /// Opens the spool of a history.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(datadir: &Path, history: Uuid) -> Result<Reader<File>> {
        let path = path(datadir, history);
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Reader { file: BufReader::with_capacity(STEP as usize, file), payload: Vec::new() })
    }
}

impl<F: Read> Reader<F> {
    /// The next message, verified; none at the end of the file.
    ///
    /// # Errors
    /// It is torn or damaged; the disk.
    pub fn read_next(&mut self) -> Result<Option<Header>> {
        let mut head = [0; HEADER_LEN];
        match self.file.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let damaged =
            |why: String| Failure::new(Kind::Disk, format!("a write-set that waits for the server: {why}"));
        let header = Header::parse(&head).map_err(|error| damaged(error.to_string()))?;
        self.payload.clear();
        let mut left = u64::from(header.len);
        while left > 0 {
            let step = left.min(STEP);
            let read = self.file.by_ref().take(step).read_to_end(&mut self.payload)? as u64;
            if read < step {
                return Err(damaged(format!("{} is cut short", header.seqno)).into());
            }
            left -= step;
        }
        if !header.kind.is_ordered() {
            return Err(damaged(format!("{:?} among them", header.kind)).into());
        }
        header.check_payload(&self.payload).map_err(|why| damaged(format!("{}: {why}", header.seqno)))?;
        Ok(Some(header))
    }

    /// The payload of the message that was read last.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::galera::gcache::Action;
    use proptest::prelude::*;

    const HISTORY: Uuid = Uuid([7; 16]);

    fn message(seqno: i64) -> Vec<u8> {
        Header::of_action(11, Seqno(seqno), Action::WriteSet, true, 0).unwrap().encode().to_vec()
    }

    fn messages(seqnos: std::ops::RangeInclusive<i64>) -> Vec<u8> {
        seqnos.flat_map(message).collect()
    }

    fn read(dir: &Path) -> Vec<i64> {
        let mut reader = Reader::open(dir, HISTORY).unwrap();
        std::iter::from_fn(|| reader.read_next().unwrap().map(|header| header.seqno.0)).collect()
    }

    fn open(dir: &Path, position: i64) -> Spool {
        Spool::open(dir, HISTORY, Seqno(position)).unwrap()
    }

    #[test]
    fn what_came_stays_and_the_rest_follows() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 4);
        // Cut anywhere.
        messages(5..=8).chunks(7).for_each(|bytes| spool.take(bytes).unwrap());
        spool.take(&message(9)[..10]).unwrap();
        spool.store().unwrap();
        drop(spool);
        // Half a message at the end, of a crash.
        let file = path(dir.path(), HISTORY);
        let torn = [std::fs::read(&file).unwrap(), message(9)[..11].to_vec()].concat();
        std::fs::write(&file, torn).unwrap();
        let mut spool = open(dir.path(), 4);
        assert_eq!(spool.next(), Seqno(9));
        spool.take(&messages(9..=10)).unwrap();
        spool.finish(Seqno(10)).unwrap();
        assert_eq!(read(dir.path()), [5, 6, 7, 8, 9, 10]);
        // The server has applied some meanwhile, or all, or something else is wanted.
        assert_eq!(open(dir.path(), 6).next(), Seqno(11));
        assert_eq!(open(dir.path(), 3).next(), Seqno(4), "4 was never here");
        let spool = open(dir.path(), 20);
        assert_eq!((spool.next(), read(dir.path()).len()), (Seqno(21), 0));
        discard(dir.path()).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn what_is_not_due_or_not_sound_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), 4);
        let error = spool.take(&messages(6..=6)).unwrap_err().to_string();
        assert!(error.contains("6 came, expected 5"), "{error}");
        let mut spool = open(dir.path(), 4);
        let mut flipped = message(5);
        flipped[1] = 4;
        assert!(spool.take(&flipped).is_err(), "a skipped write-set that was made one to apply");
        let set = Header::of_action(11, Seqno(5), Action::WriteSet, false, 64).unwrap();
        let error =
            open(dir.path(), 4).take(&[&set.encode()[..], &[0; 64]].concat()).unwrap_err().to_string();
        assert!(error.contains("5: not a write-set"), "{error}");
        let error = open(dir.path(), 4).finish(Seqno(5)).unwrap_err().to_string();
        assert!(error.contains("end before 5"), "{error}");
    }

    proptest! {
        /// What lies before the damage need not come again, and nothing that was not there counts.
        #[test]
        fn a_damaged_spool_counts_up_to_its_damage(count in 1usize..6, at: prop::sample::Index, bit in 0u8..8, cut: bool) {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = messages(5..=4 + count as i64);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            std::fs::write(path(dir.path(), HISTORY), &bytes).unwrap();
            let next = open(dir.path(), 4).next().0 as usize;
            prop_assert!((5 + at / HEADER_LEN..=5 + count).contains(&next));
            prop_assert_eq!(read(dir.path()).len(), next - 5);
        }
    }
}
