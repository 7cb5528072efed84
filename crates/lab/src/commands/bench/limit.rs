//! Which of disk, link and processors a join was limited by, and how near it came.

use std::fmt;

use serde::Serialize;

use super::ceilings::Ceilings;
use super::samples::Used;

/// What a join can be limited by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    Disk,
    Link,
    Processor,
}

/// How close a join, or a part of it, was to each of the machine's ceilings: 1 is the ceiling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearness {
    /// `None` where the disk below the nodes is not known.
    pub disk: Option<f64>,
    /// `None` on loopback, whose only limit is the processors'.
    pub link: Option<f64>,
    pub processor: f64,
}

impl Nearness {
    /// Of what was used, and the bytes that went over the network meanwhile.
    pub fn of(used: &Used, wire: u64, ceilings: &Ceilings) -> Self {
        let seconds = used.seconds.max(1e-3);
        // A disk that both reads and writes has less of either.
        let disk = used.disk.zip(ceilings.disk).map(|((read, written), ceiling)| {
            (read / ceiling.read.max(1.0) + written / ceiling.write.max(1.0)) / seconds
        });
        Self {
            disk,
            link: ceilings.link.map(|link| wire as f64 / link.rate as f64 / seconds),
            processor: used.busy / ceilings.processors as f64 / seconds,
        }
    }

    /// The ceiling that it came nearest to.
    pub fn nearest(&self) -> (Limit, f64) {
        let known = [(Limit::Disk, self.disk), (Limit::Link, self.link)];
        let known = known.into_iter().filter_map(|(limit, near)| Some((limit, near?)));
        let most = |a: (Limit, f64), b: (Limit, f64)| if b.1 > a.1 { b } else { a };
        known.fold((Limit::Processor, self.processor), most)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Link => "link",
            Self::Processor => "processors",
        })
    }
}

/// The limit first, then the others.
impl fmt::Display for Nearness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            [(Limit::Disk, self.disk), (Limit::Link, self.link), (Limit::Processor, Some(self.processor))];
        let mut known: Vec<(Limit, f64)> = all.into_iter().filter_map(|(l, near)| Some((l, near?))).collect();
        known.sort_by(|a, b| b.1.total_cmp(&a.1));
        let known: Vec<String> =
            known.iter().map(|(limit, near)| format!("{limit} {:.0} %", near * 100.0)).collect();
        f.write_str(&known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::ceilings::Disk;
    use rejoin_lab::link::Link;

    const DISK: Disk = Disk { read: 2e9, write: 1e9 };

    fn ceilings(link: Option<Link>) -> Ceilings {
        Ceilings { disk: Some(DISK), link, processors: 2 }
    }

    #[test]
    fn reading_and_writing_share_one_disk() {
        let used = Used { seconds: 2.0, disk: Some((2e9, 0.8e9)), busy: 3.0 };
        let near = Nearness::of(&used, 0, &ceilings(None));
        assert!((near.disk.unwrap() - 0.9).abs() < 1e-9 && (near.processor - 0.75).abs() < 1e-9, "{near:?}");
        assert_eq!(near.nearest().0, Limit::Disk);
        assert_eq!(near.to_string(), "disk 90 %, processors 75 %");
    }

    #[test]
    fn a_shaped_link_counts_and_loopback_does_not() {
        let used = Used { seconds: 4.0, disk: Some((1e9, 0.0)), busy: 1.0 };
        let gigabit = Link { rate: 125_000_000, round_trip: None };
        let near = Nearness::of(&used, 480_000_000, &ceilings(Some(gigabit)));
        assert_eq!(
            (near.nearest().0, near.link.map(|near| (near * 100.0).round())),
            (Limit::Link, Some(96.0))
        );
        assert_eq!(Nearness::of(&used, 480_000_000, &ceilings(None)).link, None);
    }

    #[test]
    fn without_a_known_disk_the_processors_are_left() {
        let used = Used { seconds: 1.0, disk: None, busy: 0.1 };
        let near = Nearness::of(&used, 0, &Ceilings { disk: None, link: None, processors: 1 });
        assert_eq!(near.nearest(), (Limit::Processor, 0.1));
        assert_eq!(near.disk, None);
        // A disk that was not measured says nothing, however much it read.
        let used = Used { disk: Some((1e12, 0.0)), ..used };
        assert_eq!(Nearness::of(&used, 0, &Ceilings { disk: None, link: None, processors: 1 }).disk, None);
    }
}
