//! Measures the cost of two ways to do the same thing, and chooses the cheaper one.
use std::time::Duration;

/// One time in this many, the more expensive way is taken, so that the choice follows the link and the data.
const PROBE_EVERY: u32 = 32;
/// The newest measurement counts for one part in this many; the first ones count equally.
const SMOOTHING: u32 = 8;
/// Fewer bytes than this tell more about latency than about throughput.
const BYTES_MIN: usize = 65536;

/// The measured costs of both ways.
#[derive(Debug)]
pub struct CostModel {
    /// The second way is taken if it costs less than this part of the first.
    part: f64,
    /// Nanoseconds per byte, of the first and the second way, and how often that was measured; `None` before the first
    /// time.
    cost: [Option<(f64, u32)>; 2],
    times: u32,
}

impl CostModel {
    /// Nothing has been measured yet. The second way is taken if it costs less than this `part` of the first: 1.0 if
    /// neither has costs that are not measured here.
    pub fn new(part: f64) -> CostModel {
        CostModel { part, cost: [None, None], times: 0 }
    }

    /// True if the second way is to be taken.
    pub fn choose_second(&mut self) -> bool {
        self.times = self.times.wrapping_add(1);
        match self.cost {
            [Some((first, _)), Some((second, _))] => {
                (second < first * self.part) != self.times.is_multiple_of(PROBE_EVERY)
            }
            // The first few of each only fill the socket's buffers, so both ways are tried in turn.
            _ => self.times.is_multiple_of(2),
        }
    }

    /// Records that `bytes` bytes took `took`.
    pub fn learn(&mut self, second: bool, bytes: usize, took: Duration) {
        if bytes < BYTES_MIN {
            return;
        }
        let cost = took.as_nanos() as f64 / bytes as f64;
        if let Some(known) = self.cost.get_mut(usize::from(second)) {
            let (old, times) = known.unwrap_or_default();
            let times = (times + 1).min(SMOOTHING);
            *known = Some((old + (cost - old) / f64::from(times), times));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(cheaper: &mut CostModel, n: u32) -> usize {
        (0..n).filter(|_| cheaper.choose_second()).count()
    }

    #[test]
    fn takes_the_cheaper_way_and_goes_on_probing_the_other() {
        let mut cheaper = CostModel::new(1.0);
        cheaper.learn(false, 1 << 20, Duration::from_millis(10));
        cheaper.learn(true, 1 << 20, Duration::from_millis(3));
        cheaper.learn(false, 1000, Duration::ZERO);
        assert_eq!(choices(&mut cheaper, 320), 310, "the second way but for one probe in 32");
        for _ in 0..100 {
            cheaper.learn(false, 1 << 20, Duration::from_millis(1));
        }
        assert_eq!(choices(&mut cheaper, 320), 10, "the first became cheap");

        let mut choosy = CostModel::new(0.5);
        choosy.learn(false, 1 << 20, Duration::from_millis(10));
        choosy.learn(true, 1 << 20, Duration::from_millis(6));
        assert_eq!(choices(&mut choosy, 320), 10, "not cheap enough");
    }
}
