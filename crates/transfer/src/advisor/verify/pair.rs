//! The differences between two files of one name.
use anyhow::Result;
use formats::innodb::page::{self, page_type};
use formats::innodb::tablespace::PageFormat;
use protocol::inventory::FileRole;

use super::difference::{Different, NAMED};
use super::reader::{Reader, has_pages};
use super::side::SideFile;

/// Bytes that are compared at once; pages of every size fit.
const STEP: usize = 1 << 20;
/// Bytes of a page that do not belong to its content: checksum and LSN at its head, and again in its trailer.
const HEADS: [(usize, usize); 2] = [(0, 4), (16, 24)];
const TRAILER: usize = 8;
/// `PAGE_INDEX_ID`, and the first id of the change buffer's index (`DICT_IBUF_ID_MIN`).
const INDEX_ID: usize = 66;
const CHANGE_BUFFER: [u8; 4] = [0xff; 4];

/// A name, and the file of each side.
pub(super) struct Pair {
    pub name: String,
    pub files: [Option<SideFile>; 2],
}

/// The result.
#[derive(Default)]
pub(super) struct Found {
    pub different: Option<Different>,
    pub damage: Vec<String>,
}

impl Pair {
    pub fn named(name: String) -> Pair {
        Pair { name, files: [None, None] }
    }

    fn any(&self) -> Option<&SideFile> {
        self.files.iter().flatten().next()
    }

    /// Whether it is the redo log.
    pub fn is_redo(&self) -> bool {
        self.any().is_some_and(|file| file.entry.role == FileRole::Redo)
    }

    fn is_system(&self) -> bool {
        self.any().is_some_and(|file| matches!(file.entry.role, FileRole::SystemTablespace { .. }))
    }

    /// Whether it is a table, except those that each server creates anew when it starts.
    fn is_of_a_table(&self) -> bool {
        if self.name.starts_with("mysql/wsrep_") {
            return false;
        }
        self.any()
            .is_some_and(|file| matches!(file.entry.role, FileRole::Table | FileRole::TableElsewhere { .. }))
    }
}

/// Buffers of one thread.
pub(super) fn buffers() -> [Vec<u8>; 2] {
    [vec![0; STEP], vec![0; STEP]]
}

/// Reads both to their ends.
pub(super) fn compare(pair: &Pair, buffers: &mut [Vec<u8>; 2]) -> Result<Found> {
    let open = |side: usize| pair.files[side].as_ref().map(Reader::open).transpose().map(Option::flatten);
    let mut readers = [open(0)?, open(1)?];
    let mut found = Found::default();
    let headers = [0, 1].map(|side: usize| readers[side].as_ref().and_then(Reader::header));
    for (side, reader) in readers.iter_mut().enumerate() {
        let Some(reader) = reader else { continue };
        reader.find_header(headers[1 - side])?;
        found.damage.extend(reader.faults(pair.files[side].as_ref().is_some_and(|file| file.clean))?);
    }
    let format = readers.iter().flatten().find_map(Reader::header).map(|(_, format)| format);
    let mut compared = Compared::new(pair, format);
    let mut at = 0;
    loop {
        let mut read = [0; 2];
        for (side, reader) in readers.iter().enumerate() {
            if let Some(reader) = reader {
                read[side] = reader.read(&mut buffers[side], at, &mut found.damage)?;
            }
        }
        if read == [0, 0] {
            break;
        }
        compared.step(at, [&buffers[0][..read[0]], &buffers[1][..read[1]]]);
        at += STEP as u64;
    }
    let size = |side: usize| readers[side].as_ref().map_or(Ok(0), Reader::size);
    let there = readers.each_ref().map(Option::is_some);
    found.different = compared.end((size(0)?, size(1)?), there);
    Ok(found)
}

/// Two files during the comparison.
struct Compared<'a> {
    pair: &'a Pair,
    format: Option<PageFormat>,
    unit: usize,
    different: Different,
    /// A page that differs has rows or belongs to the dictionary.
    content: bool,
}

impl<'a> Compared<'a> {
    fn new(pair: &'a Pair, format: Option<PageFormat>) -> Compared<'a> {
        let format = format.filter(|_| pair.any().is_some_and(has_pages));
        let unit = format.map_or(STEP, |format| format.physical_size);
        let different = Different { file: pair.name.clone(), ..Different::default() };
        Compared { pair, format, unit, different, content: false }
    }

    fn step(&mut self, at: u64, read: [&[u8]; 2]) {
        let longest = read[0].len().max(read[1].len());
        for from in (0..longest).step_by(self.unit) {
            let [a, b] = read.map(|bytes| &bytes[from.min(bytes.len())..(from + self.unit).min(bytes.len())]);
            if a != b {
                self.differs((at + from as u64) / self.unit as u64, a, b);
            }
        }
    }

    fn differs(&mut self, number: u64, a: &[u8], b: &[u8]) {
        self.different.pages += 1;
        if let Some(format) = &self.format {
            let (x, y) = (without_heads(format, a), without_heads(format, b));
            self.different.headers_only += u64::from(x == y);
        }
        self.content |= holds_rows(a) || holds_rows(b);
        if self.different.first.len() < NAMED {
            self.different.first.push(number);
        }
    }

    fn end(self, sizes: (u64, u64), there: [bool; 2]) -> Option<Different> {
        let own_life = match self.pair.is_system() {
            // The server's own part always differs; tables and the dictionary count.
            true => !self.content,
            false => !self.pair.is_of_a_table(),
        };
        let differs = self.different.pages > 0 || sizes.0 != sizes.1 || there[0] != there[1];
        differs.then_some(Different { own_life, sizes, ..self.different })
    }
}

/// Whether a page of the system tablespace belongs to a table or the dictionary.
fn holds_rows(bytes: &[u8]) -> bool {
    match page::page_type(bytes) {
        Some(page_type::INDEX) => bytes.get(INDEX_ID..INDEX_ID + 4) != Some(&CHANGE_BUFFER),
        kind => matches!(kind, Some(page_type::INSTANT | page_type::BLOB | page_type::RTREE)),
    }
}

/// A page without its checksum and LSN. A compressed page has no trailer: its last bytes are content.
fn without_heads(format: &PageFormat, page: &[u8]) -> Vec<u8> {
    let mut page = page.to_vec();
    let end = page.len();
    let trailer = (!format.zip).then_some((end.saturating_sub(TRAILER), end));
    for (from, to) in HEADS.into_iter().chain(trailer) {
        if let Some(bytes) = page.get_mut(from..to) {
            bytes.fill(0);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_and_lsn_have_no_meaning() {
        let plain = PageFormat::plain(16384, true);
        let mut page = vec![7; 16384];
        let other = page.clone();
        page[1] ^= 1;
        page[20] ^= 1;
        assert!(without_heads(&plain, &page) == without_heads(&plain, &other));
        page[16380] ^= 1;
        assert!(page != other && without_heads(&plain, &page) == without_heads(&plain, &other));
        let zip = PageFormat { zip: true, ..plain };
        assert!(without_heads(&zip, &page) != without_heads(&zip, &other), "content");
        page[100] ^= 1;
        assert!(without_heads(&plain, &page) != without_heads(&plain, &other));
        assert!(without_heads(&plain, &[1, 2]) == without_heads(&plain, &[1, 2]));
    }

    #[test]
    fn rows_and_the_dictionary_are_told_from_what_a_server_keeps_for_itself() {
        let of = |kind: u16, index: u32| {
            let mut page = vec![0; 16384];
            page[24..26].copy_from_slice(&kind.to_be_bytes());
            page[66..70].copy_from_slice(&index.to_be_bytes());
            page
        };
        assert!(holds_rows(&of(17855, 0)) && holds_rows(&of(10, 0)));
        assert!(!holds_rows(&of(17855, u32::MAX)), "the change buffer");
        assert!(!holds_rows(&of(2, 0)) && !holds_rows(&of(7, 0)) && !holds_rows(&[]));
    }
}
