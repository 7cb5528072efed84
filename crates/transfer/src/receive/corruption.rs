//! Counts corrupt pages in the joiner's files. They differ from the donor's and are replaced in any case, but the
//! operator should know that the disk damages data.
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use formats::PageNo;
use formats::innodb::doublewrite;
use formats::innodb::page::{PageState, verify};
use formats::innodb::tablespace::{PAGE0_BYTES, PageFormat, parse_page0};
use formats::innodb::wsrep_position::TRX_SYS_PAGE;
use protocol::inventory::{FileEntry, FileId, FileRole};
use protocol::limits::RANGE_BYTES;

use crate::threads::lock;

/// How the pages of a file are checked.
#[derive(Clone, Debug)]
pub struct Pages {
    format: PageFormat,
    /// The doublewrite area: its pages are never valid by themselves.
    left_out: Vec<Range<PageNo>>,
}

impl Pages {
    /// For a data file that begins with its first page; `None` for any other file.
    pub fn of(entry: &FileEntry, path: &Path) -> Option<Pages> {
        let system = match entry.role {
            FileRole::SystemTablespace { index: 0 } => true,
            FileRole::Undo => false,
            FileRole::Table | FileRole::TableElsewhere { .. } if entry.path.ends_with(".ibd") => false,
            _ => return None,
        };
        let file = File::open(path).ok()?;
        let mut head = [0; PAGE0_BYTES];
        file.read_exact_at(&mut head, 0).ok()?;
        let format = parse_page0(&head).ok()?.format;
        let left_out = if system { doublewrite_area(&file, &format) } else { Vec::new() };
        Some(Pages { format, left_out })
    }

    /// Damaged pages in `bytes`, which begin at `at`.
    fn damaged<'b>(&'b self, bytes: &'b [u8], at: u64) -> impl Iterator<Item = PageNo> + 'b {
        let size = self.format.physical_size;
        let first = (at / size as u64) as u32;
        let pages = (first..).map(PageNo).zip(bytes.chunks_exact(size));
        let counts = |number: &PageNo| !self.left_out.iter().any(|area| area.contains(number));
        let is_damaged = |page: &[u8]| matches!(verify(&self.format, page), PageState::Corrupt { .. });
        pages.filter(move |(number, page)| counts(number) && is_damaged(page)).map(|(number, _)| number)
    }
}

fn doublewrite_area(file: &File, format: &PageFormat) -> Vec<Range<PageNo>> {
    let size = format.physical_size;
    let mut page = vec![0; size];
    let read = file.read_exact_at(&mut page, u64::from(TRX_SYS_PAGE.0) * size as u64);
    read.ok().and_then(|()| doublewrite::extents(&page)).map(|areas| areas.to_vec()).unwrap_or_default()
}

/// The damaged pages that were found.
#[derive(Debug, Default)]
pub struct Corruption {
    /// For each range the number of damaged pages, and the first of them with its file.
    ranges: Mutex<BTreeMap<(FileId, u32), (usize, String)>>,
}

impl Corruption {
    /// Checks a range of a file. The same range may be checked again and counts once.
    pub fn look(&self, pages: &Pages, file: FileId, path: &Path, range: u32, bytes: &[u8]) {
        let at = u64::from(range) * u64::from(RANGE_BYTES);
        let mut damaged = pages.damaged(bytes, at);
        if let Some(PageNo(first)) = damaged.next() {
            let text = format!("page {first} of {}", path.display());
            lock(&self.ranges).insert((file, range), (1 + damaged.count(), text));
        }
    }

    /// How many damaged pages were found.
    pub fn pages(&self) -> u64 {
        lock(&self.ranges).values().map(|(count, _)| *count as u64).sum()
    }

    /// A line for the log; none when no page was damaged.
    pub fn line(&self) -> Option<String> {
        let ranges = lock(&self.ranges);
        let (_, first) = ranges.values().next()?;
        let first = first.clone();
        drop(ranges);
        let count = self.pages();
        Some(format!(
            "corrupt pages in the old files: {count}, the first is {first}; the donor's pages replace them"
        ))
    }
}

#[cfg(test)]
mod tests {
    use protocol::inventory::Place;

    use super::*;
    use crate::datadir::testing::{PAGE, page};

    /// Pages of a tablespace, all valid, with something in them.
    fn file(space: u32, pages: u32) -> Vec<u8> {
        let area = [536_853_855u32, 8, 100].map(u32::to_be_bytes).concat();
        let content = |number| match (space, number) {
            (0, 5) => (PAGE - 190, &area[..]),
            _ => (1000, &[7; 9][..]),
        };
        (0..pages).flat_map(|number| page(space, number, 0, &[content(number)])).collect()
    }

    fn line(path: &str, role: FileRole, content: &[u8]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("f");
        std::fs::write(&at, content).unwrap();
        let size = content.len() as u64;
        let entry = FileEntry {
            id: FileId(1),
            place: Place::Datadir,
            path: path.to_owned(),
            size,
            allocated: size,
            role,
        };
        let (pages, corruption) = (Pages::of(&entry, &at)?, Corruption::default());
        for _ in 0..2 {
            for (range, bytes) in (0..).zip(content.chunks(RANGE_BYTES as usize)) {
                corruption.look(&pages, FileId(1), Path::new(path), range, bytes);
            }
        }
        corruption.line()
    }

    #[test]
    fn damaged_pages_are_counted_once() {
        let whole = file(9, 130);
        assert_eq!(line("d/t.ibd", FileRole::Table, &whole), None);
        let mut rotten = whole;
        for at in [3 * PAGE + 500, 70 * PAGE + 1, 71 * PAGE + 9000] {
            rotten[at] ^= 0x20;
        }
        // Zeros and an incomplete page are no damage.
        rotten[129 * PAGE..].fill(0);
        rotten.extend([1; 5000]);
        let found = line("d/t.ibd", FileRole::Table, &rotten).unwrap();
        assert!(
            found.starts_with("corrupt pages in the old files: 3, the first is page 3 of d/t.ibd"),
            "{found}"
        );
        assert!(line("d/t.MYD", FileRole::Table, &rotten).is_none(), "no pages of InnoDB");
    }

    #[test]
    fn the_doublewrite_area_is_nobodys_data() {
        let mut content = file(0, 80);
        content[20 * PAGE + 100] ^= 1;
        let system = FileRole::SystemTablespace { index: 0 };
        assert_eq!(line("ibdata1", system.clone(), &content), None);
        content[6 * PAGE + 100] ^= 1;
        assert!(
            line("ibdata1", system, &content).unwrap().starts_with("corrupt pages in the old files: 1, ")
        );
    }
}
