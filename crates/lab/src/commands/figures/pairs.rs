//! Pairs of pages: one as the joiner had it, one as it has it now. How many differ, and what each way to send one of those
//! would take on the network.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rejoin_lab::data::DATABASE;

mod sketch;

const PAGE: usize = 16384;
/// Pages that are looked at closely.
const SAMPLE: usize = 2000;
/// zstd as the transfer uses it.
const LEVEL: i32 = 1;
/// Pieces of aligned blocks that are weighed.
const PIECES: [usize; 4] = [16, 32, 64, 128];
/// Bytes of a fingerprint of a piece.
const MARK: usize = 2;

/// What it takes to make a new page of an old one.
type Way<'a> = &'a dyn Fn(&[u8], &[u8]) -> Result<f64>;

/// Pages of the tables.
#[derive(Debug, Default)]
pub struct Count {
    all: u64,
    same: u64,
}

impl Count {
    /// Of 1, how much differs.
    pub fn differing(&self) -> f64 {
        (self.all - self.same) as f64 / self.all.max(1) as f64
    }

    /// A line of the table of figures.
    pub fn row(&self) -> String {
        let differ = self.all - self.same;
        let megabytes = differ as f64 * PAGE as f64 / 1e6;
        format!("(pages that differ: {differ} of {}) | | | {megabytes:.3} |", self.all)
    }
}

/// Counts the pages of tables in `new` that are in `old` as well, at the same place.
pub fn count(old: &Path, new: &Path) -> Result<Count> {
    let mut count = Count::default();
    each(old, new, |pair| {
        count.all += 1;
        count.same += u64::from(pair.is_none());
        Ok(())
    })?;
    Ok(count)
}

/// Calls with the old and the new version of each page that has something in it, or with nothing when both are the same.
fn each(old: &Path, new: &Path, mut call: impl FnMut(Option<(&[u8], &[u8])>) -> Result<()>) -> Result<()> {
    let mut tables: Vec<PathBuf> =
        fs::read_dir(new.join(DATABASE))?.flatten().map(|entry| entry.path()).collect();
    tables.retain(|path| path.extension().is_some_and(|extension| extension == "ibd"));
    tables.sort();
    for path in tables {
        let before = fs::read(old.join(path.strip_prefix(new)?)).unwrap_or_default();
        let after = fs::read(&path)?;
        for (number, page) in after.chunks_exact(PAGE).enumerate() {
            let was = before.get(number * PAGE..(number + 1) * PAGE).unwrap_or(&[0; PAGE]);
            if page.iter().any(|byte| *byte != 0) {
                call((was != page).then_some((was, page)))?;
            }
        }
    }
    Ok(())
}

/// What pages that differ would take, in bytes a page: from the donor, and from the joiner before that.
#[derive(Debug)]
pub struct Weight {
    count: Count,
    looked_at: usize,
    /// Bytes that differ, in percent.
    bytes: f64,
    ways: Vec<(String, f64, f64)>,
    /// Of all pages that were looked at, and what it takes to make its syndromes.
    sketch: Duration,
}

/// Weighs the ways.
pub fn weigh(old: &Path, new: &Path) -> Result<Weight> {
    let count = count(old, new)?;
    let step = ((count.all - count.same) as usize / SAMPLE).max(1);
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut number = 0;
    each(old, new, |pair| {
        if let Some((was, page)) = pair {
            if number % step == 0 {
                pairs.push((was.to_vec(), page.to_vec()));
            }
            number += 1;
        }
        Ok(())
    })?;
    let looked_at = pairs.len();
    let mean = |of: Way<'_>| -> Result<f64> {
        let all: Result<Vec<f64>> = pairs.iter().map(|(was, page)| of(was, page)).collect();
        Ok(all?.iter().sum::<f64>() / looked_at.max(1) as f64)
    };
    let mut ways = vec![("the page, zstd".to_owned(), mean(&|_, page| packed(page))?, 0.0)];
    for piece in PIECES {
        let down = mean(&|was, page| Ok(packed(&aligned(was, page, piece))? + (PAGE / piece / 8) as f64))?;
        ways.push((format!("aligned pieces of {piece}"), down, (PAGE / piece * MARK) as f64));
    }
    for block in [32, 64] {
        let down = mean(&|was, page| packed(&rolling(was, page, block)))?;
        ways.push((format!("rolling match, blocks of {block}"), down, (PAGE / block * (MARK + 2)) as f64));
    }
    ways.push(("error-correcting sketch".to_owned(), mean(&|was, page| Ok(sketch::bytes(was, page)))?, 0.0));
    ways.push(("zstd with the old page (needs both: the bound)".to_owned(), mean(&with_dictionary)?, 0.0));
    let differ = |was: &[u8], page: &[u8]| was.iter().zip(page).filter(|(a, b)| a != b).count() as f64;
    let bytes = mean(&|was, page| Ok(differ(was, page) * 100.0 / PAGE as f64))?;
    let began = Instant::now();
    let some = pairs.iter().take(20);
    let made = some.len() as u32;
    some.for_each(|(was, page)| sketch::make(page, sketch::symbols(was, page)));
    let sketch = began.elapsed() / made.max(1);
    Ok(Weight { count, looked_at, bytes, ways, sketch })
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { all, same } = self.count;
        writeln!(
            f,
            "{} of {all} pages differ; {} looked at, of whose bytes {:.1} % differ\n",
            all - same,
            self.looked_at,
            self.bytes
        )?;
        writeln!(f, "| way | from the donor, bytes a page | from the joiner, bytes a page |\n|---|---|---|")?;
        for (name, down, up) in &self.ways {
            writeln!(f, "| {name} | {down:.0} | {up:.0} |")?;
        }
        writeln!(
            f,
            "\nMaking the syndromes of a page that its joiner could repair takes {:.1} ms.",
            self.sketch.as_secs_f64() * 1e3
        )
    }
}

fn packed(bytes: &[u8]) -> Result<f64> {
    let packed = zstd::bulk::compress(bytes, LEVEL).context("zstd")?;
    Ok(packed.len().min(bytes.len()) as f64)
}

fn with_dictionary(was: &[u8], page: &[u8]) -> Result<f64> {
    let mut compressor = zstd::bulk::Compressor::with_dictionary(LEVEL, was).context("zstd")?;
    Ok(compressor.compress(page).context("zstd")?.len() as f64)
}

/// The pieces of a page that are others than at the same place of the old one.
fn aligned(was: &[u8], page: &[u8], piece: usize) -> Vec<u8> {
    let pairs = was.chunks(piece).zip(page.chunks(piece));
    pairs.filter(|(was, page)| was != page).flat_map(|(_, page)| page.to_vec()).collect()
}

/// What rsync sends: bytes that are in no block of the old page, and four bytes for each run of blocks.
fn rolling(was: &[u8], page: &[u8], block: usize) -> Vec<u8> {
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    for (number, bytes) in was.chunks_exact(block).enumerate() {
        known.entry(bytes).or_insert(number);
    }
    let (mut sent, mut at, mut next) = (Vec::new(), 0, None);
    while at < page.len() {
        let found = page.get(at..at + block).and_then(|bytes| known.get(bytes)).copied();
        // The block after the last one goes on its run.
        let goes_on =
            next.filter(|number| was.get(number * block..(number + 1) * block) == page.get(at..at + block));
        match goes_on.or(found) {
            Some(number) => {
                if goes_on.is_none() {
                    sent.extend_from_slice(&[number as u8, at as u8, (at >> 8) as u8, 0xff]);
                }
                next = Some(number + 1);
                at += block;
            }
            None => {
                sent.push(page[at]);
                next = None;
                at += 1;
            }
        }
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_moved_is_found_by_the_rolling_match_only() {
        let was: Vec<u8> = (0..PAGE).map(|n| (n * n / 97) as u8).collect();
        let mut page = was.clone();
        page.copy_within(1000..9000, 1003);
        assert!(rolling(&was, &page, 32).len() < 200);
        assert!(aligned(&was, &page, 32).len() > 7000);
        assert_eq!((rolling(&was, &was, 64).len(), aligned(&was, &was, 64).len()), (4, 0));
        page.copy_from_slice(&was);
        page[70] ^= 1;
        assert_eq!(aligned(&was, &page, 64), page[64..128]);
    }
}
