//! Packs what is read into parts, and passes parts on as files.
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context, Result};
use formats::mariadb::rows_text::{push_column, push_end};
use protocol::entries::Entries;
use protocol::inventory::{FileEntry, FileId, FileRole, Place};
use protocol::logical::{Contents, DEFINITIONS, Table, of_table};
use xxhash_rust::xxh3::xxh3_64;
use zstd::stream::write::Encoder;

use super::receiver::Receiver;
use crate::snapshot::sink::SnapshotSink;
use crate::threads::lock;

/// Bytes of rows in a part, about: each reader has a packed one in memory.
pub(super) const RAW_BYTES: u64 = 8 << 20;
/// The fastest level: the readers share the processors with the server.
const LEVEL: i32 = 1;
/// Bytes that are handed to the packer at once.
const STEP: usize = 64 << 10;

/// A part.
#[derive(Debug)]
pub struct Packed {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many there were before they were packed.
    pub raw: u64,
}

/// Packs bytes into one part.
///
/// # Errors
/// From the packer.
pub(super) fn pack_whole(path: &str, bytes: &[u8]) -> Result<Packed> {
    let packed = zstd::bulk::compress(bytes, LEVEL).context("cannot pack a part")?;
    Ok(Packed { path: path.to_owned(), bytes: packed, raw: bytes.len() as u64 })
}

/// The beginning of the paths of a table's parts.
pub fn prefix(database: &str, table: &str) -> String {
    format!("{:016x}", xxh3_64(format!("{database}\0{table}").as_bytes()))
}

/// Packs the rows of one range into parts of about [`RAW_BYTES`].
pub(super) struct RowPacker<'a> {
    /// The beginning of the parts' paths, which say where in the table they are.
    prefix: String,
    encoder: Option<Encoder<'static, Vec<u8>>>,
    waiting: Vec<u8>,
    raw: u64,
    /// Rows so far.
    pub rows: u64,
    /// Paths of the parts so far.
    pub parts: Vec<String>,
    take: &'a mut dyn FnMut(Packed) -> Result<()>,
}

impl<'a> RowPacker<'a> {
    /// Packs rows into parts that `take` gets.
    pub fn new(prefix: String, take: &'a mut dyn FnMut(Packed) -> Result<()>) -> RowPacker<'a> {
        RowPacker {
            prefix,
            encoder: None,
            waiting: Vec::with_capacity(STEP),
            raw: 0,
            rows: 0,
            parts: Vec::new(),
            take,
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// From the packer, or of the part that it completes.
    pub fn row(&mut self, columns: &[Option<&[u8]>]) -> Result<()> {
        for (number, column) in columns.iter().enumerate() {
            push_column(&mut self.waiting, *column, number == 0);
        }
        push_end(&mut self.waiting);
        self.rows += 1;
        if self.waiting.len() >= STEP {
            self.pack()?;
        }
        if self.raw >= RAW_BYTES { self.end() } else { Ok(()) }
    }

    fn pack(&mut self) -> Result<()> {
        if self.encoder.is_none() {
            self.encoder = Some(Encoder::new(Vec::new(), LEVEL).context("cannot pack rows")?);
        }
        if let Some(encoder) = &mut self.encoder {
            encoder.write_all(&self.waiting).context("cannot pack rows")?;
        }
        self.raw += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Ends the last part.
    ///
    /// # Errors
    /// As [`RowPacker::row`].
    pub fn end(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            self.pack()?;
        }
        let Some(encoder) = self.encoder.take() else { return Ok(()) };
        let bytes = encoder.finish().context("cannot pack rows")?;
        let path = format!("{}-{}", self.prefix, self.parts.len());
        let raw = std::mem::take(&mut self.raw);
        self.parts.push(path.clone());
        (self.take)(Packed { path, bytes, raw })
    }
}

/// Passes parts on. Shared by the threads that read.
pub(super) struct Shipper<'a> {
    sink: &'a dyn SnapshotSink,
    next: AtomicU32,
    shipped: Mutex<BTreeMap<FileId, FileEntry>>,
    bytes: AtomicU64,
}

impl<'a> Shipper<'a> {
    /// Nothing is shipped.
    pub fn new(sink: &'a dyn SnapshotSink) -> Shipper<'a> {
        Shipper { sink, next: AtomicU32::new(0), shipped: Mutex::default(), bytes: AtomicU64::new(0) }
    }

    /// Passes on one part.
    ///
    /// # Errors
    /// From the sink.
    pub fn ship(&self, packed: Packed) -> Result<()> {
        let Packed { path, bytes, .. } = packed;
        let (id, size) = (FileId(self.next.fetch_add(1, Ordering::Relaxed)), bytes.len() as u64);
        let entry = FileEntry { id, place: Place::Parts, path, size, allocated: size, role: FileRole::Part };
        self.sink.expect(&mut std::iter::once(&entry));
        self.sink.announce(&entry)?;
        self.sink.write(id, 0, &bytes)?;
        self.bytes.fetch_add(size, Ordering::Relaxed);
        lock(&self.shipped).insert(id, entry);
        Ok(())
    }

    /// Everything that counts, in the order of its numbers.
    pub fn entries(&self) -> Entries {
        let mut entries = Entries::default();
        lock(&self.shipped).values().for_each(|entry| entries.insert(entry));
        entries
    }

    /// Bytes of that.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Receiver for Shipper<'_> {
    fn begin(&self, contents: &Contents, early: Vec<Packed>) -> Result<()> {
        lock(&self.shipped).clear();
        self.bytes.store(0, Ordering::Relaxed);
        // With the smallest number of this snapshot: a joiner that has loaded rows of an earlier one knows by it that they are void.
        self.ship(pack_whole(DEFINITIONS, &contents.encode()?)?)?;
        early.into_iter().try_for_each(|part| self.ship(part))
    }

    fn part(&self, part: Packed) -> Result<()> {
        self.ship(part)
    }

    fn complete(&self, table: &Table) -> Result<()> {
        let path = of_table(&prefix(&table.database, &table.name));
        self.ship(pack_whole(&path, &table.encode()?)?)
    }
}

#[cfg(test)]
mod tests {
    use formats::mariadb::rows_text::columns;
    use protocol::logical::is_part;

    use super::*;

    #[test]
    fn rows_are_packed_into_parts() {
        let mut parts: Vec<Packed> = Vec::new();
        let mut take = |packed| {
            parts.push(packed);
            Ok(())
        };
        let big = vec![b'x'; 3 << 20];
        let mut packer = RowPacker::new(format!("{}/-5", prefix("d", "t")), &mut take);
        for _ in 0..7 {
            packer.row(&[Some(b"a\n"), None, Some(&big)]).unwrap();
        }
        packer.end().unwrap();
        packer.end().unwrap();
        let (rows, paths) = (packer.rows, packer.parts.clone());
        assert_eq!((rows, parts.len(), paths.len()), (7, 3, 3));
        assert!(paths.iter().all(|path| is_part(path)), "{paths:?}");
        let text: Vec<u8> =
            parts.iter().flat_map(|part| zstd::stream::decode_all(part.bytes.as_slice()).unwrap()).collect();
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 8);
        assert_eq!(columns(lines[6]), [Some(b"a\n".to_vec()), None, Some(big)]);
    }

    #[test]
    fn no_rows_make_no_part() {
        let mut take = |_| -> Result<()> { panic!("a part of nothing") };
        let mut packer = RowPacker::new("x".to_owned(), &mut take);
        packer.end().unwrap();
        assert!(packer.parts.is_empty());
    }
}
