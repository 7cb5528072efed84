//! Two ways to do the same thing: what each costs is measured, and the cheaper one is taken.
use std::time::Duration;

/// One time in this many the other way is taken, so that the choice follows the link and the data.
const PROBE_EVERY: u32 = 32;
/// Weight of the newest measurement, one part in this many; the first ones count alike.
const SMOOTHING: u32 = 8;
/// Less than this says more about latency than about bytes.
const BYTES_MIN: usize = 65536;

/// What is known of both ways.
#[derive(Debug)]
pub struct CostModel {
    /// The second way is taken when it costs less than this part of the first.
    part: f64,
    /// Nanoseconds a byte, of the first and the second way, and how often that was measured; `None` until it was.
    cost: [Option<(f64, u32)>; 2],
    times: u32,
}

impl CostModel {
    /// Nothing measured yet. The second way must cost less than this `part` of the first to be taken: 1.0 where neither has
    /// costs that are not measured here.
    pub fn new(part: f64) -> CostModel {
        CostModel { part, cost: [None, None], times: 0 }
    }

    /// Whether the second way is to be taken.
    pub fn choose_second(&mut self) -> bool {
        self.times = self.times.wrapping_add(1);
        match self.cost {
            [Some((first, _)), Some((second, _))] => {
                (second < first * self.part) != self.times.is_multiple_of(PROBE_EVERY)
            }
            // The first few of each kind only fill the socket's buffers, so both are tried by turns.
            _ => self.times.is_multiple_of(2),
        }
    }

    /// So many bytes took so long.
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
