//! How large a ring must be for an outage of a given length, and what removes history from a large ring.
use std::time::Duration;

use super::{Gcache, InUse, Rate, Report};
use crate::human::{size, span};

/// The measured rate may be that of a quiet hour, so a recommended size is larger by one in this many parts:
/// a quarter.
const SPARE: u64 = 4;
/// A write rate is estimated from at least this many write-sets, written over at least [`SPAN_MIN`].
const WRITE_SETS_MIN: u64 = 10;
const SPAN_MIN: Duration = Duration::from_secs(1);

/// The write rate.
///
/// # Errors
/// Why the cache holds too little to estimate it.
pub fn measured_rate(report: &Report) -> Result<Rate, String> {
    let rate = report.rate.ok_or("no node wrote two write-sets of those in the cache")?;
    if report.write_sets < WRITE_SETS_MIN {
        return Err(format!(
            "only {} write-sets in the cache: too few to estimate a rate",
            report.write_sets
        ));
    }
    if rate.span < SPAN_MIN {
        let spanned = span(rate.span);
        return Err(format!("the write-sets in the cache span only {spanned}: too short to estimate a rate"));
    }
    Ok(rate)
}

/// `gcache.size` in bytes, a whole number of MiB, for a node that may be away this long at this rate.
///
/// It has room for the write-sets of that time, a quarter more, and twice the largest one, because the ring
/// does not hold a write-set larger than half of it.
pub fn size_for(outage: Duration, rate: &Rate, largest: u64) -> u64 {
    let written = (rate.bytes_per_second * outage.as_secs_f64()) as u64;
    let wanted = written.saturating_add(written / SPARE).max(largest.saturating_mul(2));
    wanted.div_ceil(1 << 20).max(1).saturating_mul(1 << 20)
}

/// How long a node may be away with a ring of this size. The last write-set that fits may be as large as the
/// largest.
pub fn outage_for(size: u64, rate: &Rate, largest: u64) -> Duration {
    rate.lasts(size.saturating_sub(largest))
}

/// Returns warnings about whatever destroys history silently.
pub fn warnings(cache: &Gcache, report: &Report) -> Vec<String> {
    let mut all = Vec::new();
    let ring = cache.ring_bytes();
    if let Some((seqno, bytes)) = report.largest.filter(|(_, bytes)| *bytes > ring / 2) {
        all.push(format!(
            "write-set {seqno} has {}, more than half the ring ({}): it went to a page file, and all history up to it \
             is dropped when that file is deleted",
            size(bytes),
            size(ring)
        ));
    }
    let (live, left): (Vec<_>, Vec<_>) = cache.pages().iter().partition(|page| page.live);
    if !live.is_empty() {
        let bytes: u64 = live.iter().map(|page| page.bytes).sum();
        all.push(format!(
            "{} page files ({}) are in use: deleting one drops all history up to its highest seqno, in the ring \
             too; gcache.keep_pages_size keeps page files, a larger gcache.size avoids them",
            live.len(),
            size(bytes)
        ));
    }
    if !left.is_empty() {
        let bytes: u64 = left.iter().map(|page| page.bytes).sum();
        all.push(format!(
            "{} page files ({}) are mapped by no visible server: after a crash the server neither reads nor deletes \
             them",
            left.len(),
            size(bytes)
        ));
    }
    if cache.seqnos().runs() > 1 {
        all.push("the history has gaps: only write-sets after the last gap can be served".to_owned());
    }
    if cache.range().is_none() && matches!(cache.in_use(), InUse::By(_)) {
        all.push(
            "the files are empty although a server uses them: with gcache.mem_size write-sets stay in the server's \
             memory, where rejoin cannot see them, and are lost when it ends"
                .to_owned(),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB_PER_S: Rate = Rate {
        bytes_per_second: 1_048_576.0,
        actions_per_second: 500.0,
        span: Duration::from_secs(60),
        writer: formats::Uuid::NIL,
    };

    #[test]
    fn the_size_covers_the_outage_and_the_largest_transaction() {
        assert_eq!(size_for(Duration::from_secs(3600), &MB_PER_S, 0), 4500 << 20);
        assert_eq!(size_for(Duration::from_secs(1), &MB_PER_S, (10 << 20) + 1), 21 << 20);
        assert_eq!(size_for(Duration::ZERO, &MB_PER_S, 0), 1 << 20);
        let size = size_for(Duration::from_secs(7200), &MB_PER_S, 1 << 20);
        assert!(outage_for(size, &MB_PER_S, 1 << 20) >= Duration::from_secs(7200));
    }

    #[test]
    fn no_rate_lasts_for_ever() {
        let idle = Rate { bytes_per_second: 0.0, ..MB_PER_S };
        assert_eq!(idle.lasts(1 << 30), Duration::MAX);
        assert_eq!(outage_for(10, &MB_PER_S, 20), Duration::ZERO);
    }
}
