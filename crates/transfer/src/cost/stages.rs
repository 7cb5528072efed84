//! How long each stage of a transfer has a byte, in each way in which bytes can travel.
use super::pace::{Nanos, Work};

/// How the bytes of a range travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The joiner's files are compared, and only what differs is sent.
    pub compare: bool,
    /// Of blocks that the joiner has in another version, only the differing pieces are sent.
    pub parts: bool,
    /// What is sent is compressed.
    pub zstd: bool,
}

/// Shares of the bytes that are not zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    /// Of all: what the joiner does not have, in whole blocks.
    pub differing: f64,
    /// Of those: what remains if only pieces are sent.
    pub pieces: f64,
    /// Of whole blocks: what remains after compression.
    pub packed_blocks: f64,
    /// Of pieces.
    pub packed_pieces: f64,
}

/// A host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host {
    /// What its work takes.
    pub nanos: Nanos,
    /// Processors that its program can have.
    pub processors: f64,
}

/// How long the donor's threads wait for the joiner's answers, in nanoseconds per byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Waits {
    /// Per byte that is compared.
    pub blocks: f64,
    /// Per byte that differs, for its pieces.
    pub pieces: f64,
}

/// Everything that decides how long a byte takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    /// The donor.
    pub donor: Host,
    /// The joiner.
    pub joiner: Host,
    /// Both run on the same processors, of which each host's `processors` has a part.
    pub one_host: bool,
    /// Bytes per second.
    pub link: f64,
    /// Threads of the donor that hand over bytes.
    pub threads: f64,
    /// What they wait for.
    pub waits: Waits,
    /// What there is to send.
    pub shares: Shares,
}

/// The work on a byte, of which a part must be sent.
#[derive(Clone, Copy, Debug)]
struct Load {
    /// Bytes on the link.
    sent: f64,
    /// Nanoseconds of processor time.
    donor: f64,
    joiner: f64,
    /// Nanoseconds of the donor's thread, if it has a processor.
    thread: f64,
}

impl Stages {
    /// Nanoseconds per byte that is not zero: those of the slowest stage.
    pub fn nanos(&self, way: Way) -> f64 {
        let Load { sent, donor, joiner, thread } = self.load(way);
        let processors = match self.one_host {
            true => (donor + joiner) / (self.donor.processors + self.joiner.processors),
            false => (donor / self.donor.processors).max(joiner / self.joiner.processors),
        };
        let link = sent * 1e9 / self.link;
        link.max(processors).max(thread / self.threads)
    }

    /// Bytes on the link for each byte that is not zero.
    pub fn sent(&self, way: Way) -> f64 {
        self.load(way).sent
    }

    fn load(&self, Way { compare, parts, zstd }: Way) -> Load {
        let Shares { differing, pieces, packed_blocks, packed_pieces } = self.shares;
        let (ours, theirs) = (|work| self.donor.nanos.of(work), |work| self.joiner.nanos.of(work));
        let only = |condition: bool, value: f64| if condition { value } else { 0.0 };
        let differing = if compare { differing } else { 1.0 };
        let parts = parts && compare;
        let unpacked = if parts { differing * pieces } else { differing };
        let packed = if parts { packed_pieces } else { packed_blocks };
        let sent = if zstd { unpacked * packed } else { unpacked };
        let thread = ours(Work::Read)
            + only(compare, ours(Work::Fingerprint))
            + only(parts, differing * ours(Work::Pieces))
            + only(zstd, unpacked * ours(Work::Pack));
        let joiner = only(compare, theirs(Work::Fingerprint))
            + only(parts, differing * theirs(Work::Pieces))
            + only(zstd, unpacked * theirs(Work::Pack))
            + sent * theirs(Work::Carry)
            + differing * theirs(Work::Store);
        let waits = only(compare, self.waits.blocks) + only(parts, differing * self.waits.pieces);
        Load { sent, donor: thread + sent * ours(Work::Carry), joiner, thread: thread + waits }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::Pace;
    use super::*;

    const PARTS: Way = Way { compare: true, parts: true, zstd: true };
    const PACKED: Way = Way { compare: true, parts: false, zstd: true };
    const PLAIN: Way = Way { compare: true, parts: false, zstd: false };
    const ALL: Way = Way { compare: false, parts: false, zstd: false };

    /// Two hosts of eight processors and a disk that nobody waits for; 40 % of the bytes differ, in a tenth of their pieces.
    fn stages(link: f64) -> Stages {
        let shares = Shares { differing: 0.4, pieces: 0.1, packed_blocks: 0.3, packed_pieces: 0.6 };
        let waits = Waits { blocks: 0.1, pieces: 0.2 };
        let donor = Host { nanos: Pace::of_donor().nanos(), processors: 8.0 };
        let joiner = Host { nanos: Nanos::JOINER, processors: 8.0 };
        Stages { donor, joiner, one_host: false, link, threads: 8.0, waits, shares }
    }

    #[test]
    fn a_slow_link_is_the_slowest_stage_and_parts_are_what_it_carries_soonest() {
        let slow = stages(12.5e6);
        assert!((slow.nanos(PARTS) - 0.4 * 0.1 * 0.6 * 80.0).abs() < 1e-9);
        assert!(slow.nanos(PARTS) < slow.nanos(PACKED) && slow.nanos(PACKED) < slow.nanos(PLAIN));
        assert!((slow.nanos(ALL) / slow.nanos(PLAIN) - 2.5).abs() < 1e-9);
        assert_eq!(slow.sent(PLAIN), 0.4);
    }

    #[test]
    fn where_the_processors_are_the_slowest_stage_plain_bytes_are_the_cheapest() {
        let stages = Stages { one_host: true, ..stages(1e12) };
        let one = |host: Host| Host { processors: 1.0, ..host };
        let busy = Stages { donor: one(stages.donor), joiner: one(stages.joiner), ..stages };
        assert!(busy.nanos(PLAIN) < busy.nanos(PACKED) && busy.nanos(PLAIN) < busy.nanos(PARTS));
        // On two hosts the slower one decides.
        let apart = Stages { one_host: false, ..busy };
        assert!(apart.nanos(PLAIN) >= busy.nanos(PLAIN));
        // Nearly everything differs: comparing only takes time.
        let shares = Shares { differing: 0.98, ..busy.shares };
        let new = Stages { shares, ..busy };
        assert!(new.nanos(ALL) < new.nanos(PLAIN));
    }

    #[test]
    fn few_threads_that_wait_for_answers_are_a_stage() {
        let far = Waits { blocks: 40.0, pieces: 100.0 };
        let stages = Stages { waits: far, ..stages(1e9) };
        assert!(stages.nanos(PARTS) > 10.0 && stages.nanos(PARTS) > 1.9 * stages.nanos(PACKED));
        assert!(stages.nanos(ALL) < 1.1);
    }
}
