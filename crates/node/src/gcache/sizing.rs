//! How large a ring must be for an outage of some length, and what takes history away though the ring is large.
use std::time::Duration;

use super::{Gcache, InUse, Rate, Report};

/// Rates change: what was measured may be the quiet hour. A recommended size has this much more, as a quarter.
const SPARE: u64 = 4;

/// `gcache.size` in bytes, a whole number of MiB, for a node that may be away this long at this rate.
///
/// The write-sets of that time, a quarter more, and twice the largest one: a larger one than half the ring would not
/// be kept in it.
pub fn size_for(outage: Duration, rate: &Rate, largest: u64) -> u64 {
    let written = (rate.bytes_per_second * outage.as_secs_f64()) as u64;
    let wanted = written.saturating_add(written / SPARE).max(largest.saturating_mul(2));
    wanted.div_ceil(1 << 20).max(1).saturating_mul(1 << 20)
}

/// The other way round: how long a node may be away with a ring of this size. The last write-set that fits may be as
/// large as the largest.
pub fn outage_for(size: u64, rate: &Rate, largest: u64) -> Duration {
    rate.lasts(size.saturating_sub(largest))
}

/// What destroys history silently, as sentences; none when nothing was found.
pub fn warnings(cache: &Gcache, report: &Report) -> Vec<String> {
    let mut all = Vec::new();
    let ring = cache.ring_bytes();
    if let Some((seqno, bytes)) = report.largest.filter(|(_, bytes)| *bytes > ring / 2) {
        all.push(format!(
            "write-set {seqno} has {bytes} bytes, more than half the ring ({ring}): it went to a page file, and all \
             history up to it is dropped when that file is deleted"
        ));
    }
    let (live, left): (Vec<_>, Vec<_>) = cache.pages().iter().partition(|page| page.live);
    if !live.is_empty() {
        let bytes: u64 = live.iter().map(|page| page.bytes).sum();
        all.push(format!(
            "{} page files ({bytes} bytes) are in use: deleting one drops all history up to its highest seqno, the \
             ring's too; gcache.keep_pages_size keeps them, a larger gcache.size avoids them",
            live.len()
        ));
    }
    if !left.is_empty() {
        let bytes: u64 = left.iter().map(|page| page.bytes).sum();
        all.push(format!(
            "{} page files ({bytes} bytes) belong to no running server that could be seen: what a crash left is \
             never read again nor deleted",
            left.len()
        ));
    }
    if cache.seqnos().runs() > 1 {
        all.push("the history has gaps: only what follows the last one can be served".to_owned());
    }
    if cache.range().is_none() && matches!(cache.in_use(), InUse::By(_)) {
        all.push(
            "the files are empty though a server uses them: with gcache.mem_size write-sets stay in its memory, \
             unseen here, and are lost when it ends"
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
