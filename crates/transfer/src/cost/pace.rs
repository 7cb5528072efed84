//! Processor time per byte for each kind of work of one host, and shares of bytes: what was assumed at first gives way to what is
//! measured.
use std::sync::Mutex;
use std::time::Duration;

use protocol::message::JoinerWork;

use crate::threads::lock;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Donor: reading a file and verifying its pages.
    Read,
    /// Both hosts: fingerprinting blocks; the joiner reads its file for that.
    Fingerprint,
    /// Both hosts: fingerprinting the pieces of a block that differs, and making or applying what differs of it.
    Pieces,
    /// Donor: compressing. Joiner: decompressing, per byte of the result.
    Pack,
    /// Both hosts: encrypting and sending, or receiving and decrypting.
    Carry,
    /// Joiner: writing, and reading back.
    Store,
}

/// Kinds of work.
const KINDS: usize = 6;

/// What a byte of each kind of work takes a donor, in nanoseconds, until it is measured: a processor of 2020 at some 3 GHz.
const DONOR: [f64; KINDS] = [0.4, 0.4, 1.0, 2.0, 0.7, 0.0];
/// The same of a joiner.
const JOINER: [f64; KINDS] = [0.0, 0.8, 1.5, 0.7, 0.7, 0.7];

/// What is assumed counts as much as so many bytes that were measured.
const ASSUMED_BYTES: f64 = (2 << 20) as f64;
/// What was measured before so many bytes counts half. Tables differ, and so does what else a host has to do.
const RECENT_BYTES: f64 = (64 << 20) as f64;

/// A ratio to a number of bytes, as measured lately.
#[derive(Clone, Copy, Debug)]
pub struct PerByte {
    amount: f64,
    bytes: f64,
}

impl PerByte {
    /// Until it is measured.
    pub fn assumed(value: f64) -> PerByte {
        PerByte { amount: value * ASSUMED_BYTES, bytes: ASSUMED_BYTES }
    }

    /// So much was measured for so many bytes.
    pub fn add(&mut self, amount: f64, bytes: u64) {
        self.amount += amount;
        self.bytes += bytes as f64;
        if self.bytes > RECENT_BYTES {
            self.amount /= 2.0;
            self.bytes /= 2.0;
        }
    }

    /// The ratio.
    pub fn value(&self) -> f64 {
        self.amount / self.bytes
    }
}

/// Nanoseconds of processor time per byte, of one host.
#[derive(Debug)]
pub struct Pace([Mutex<PerByte>; KINDS]);

impl Pace {
    /// Of a donor of which nothing was measured yet.
    pub fn of_donor() -> Pace {
        Pace(DONOR.map(|nanos| Mutex::new(PerByte::assumed(nanos))))
    }

    /// Of a joiner of which nothing was measured yet.
    pub fn of_joiner() -> Pace {
        Pace(JOINER.map(|nanos| Mutex::new(PerByte::assumed(nanos))))
    }

    /// So many bytes took so much processor time.
    pub fn add(&self, work: Work, bytes: u64, took: Duration) {
        lock(&self.0[work as usize]).add(took.as_nanos() as f64, bytes);
    }

    /// Nanoseconds per byte.
    pub fn nanos(&self) -> Nanos {
        Nanos(std::array::from_fn(|kind| lock(&self.0[kind]).value()))
    }
}

/// Nanoseconds of processor time per byte at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nanos([f64; KINDS]);

impl Nanos {
    /// What is assumed of a joiner that does not tell.
    pub const JOINER: Nanos = Nanos(JOINER);

    /// Of one kind of work.
    pub fn of(&self, work: Work) -> f64 {
        self.0[work as usize]
    }

    /// As a joiner tells its donor.
    pub fn to_message(self) -> JoinerWork {
        let picos = |work| (self.of(work) * 1e3) as u32;
        JoinerWork {
            fingerprint: picos(Work::Fingerprint),
            pieces: picos(Work::Pieces),
            unpack: picos(Work::Pack),
            carry: picos(Work::Carry),
            store: picos(Work::Store),
        }
    }

    /// As a joiner has told.
    pub fn from_message(work: JoinerWork) -> Nanos {
        let JoinerWork { fingerprint, pieces, unpack, carry, store } = work;
        Nanos([0, fingerprint, pieces, unpack, carry, store].map(|picos| f64::from(picos) / 1e3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_measured_replaces_what_was_assumed_and_what_was_measured_long_ago() {
        let mut ratio = PerByte::assumed(2.0);
        ratio.add(MIB as f64, MIB);
        assert!((1.6..1.7).contains(&ratio.value()), "{ratio:?}");
        (0..30).for_each(|_| ratio.add(MIB as f64, MIB));
        assert!(ratio.value() < 1.1, "{ratio:?}");
        (0..200).for_each(|_| ratio.add(5.0 * MIB as f64, MIB));
        assert!(ratio.value() > 4.5, "{ratio:?}");
    }

    #[test]
    fn a_joiner_tells_what_it_measured() {
        let pace = Pace::of_joiner();
        assert_eq!(pace.nanos(), Nanos::JOINER);
        for _ in 0..100 {
            pace.add(Work::Store, MIB, Duration::from_nanos(3 * MIB));
        }
        let told = Nanos::from_message(pace.nanos().to_message());
        assert!((2.8..3.0).contains(&told.of(Work::Store)), "{told:?}");
        assert_eq!(told.of(Work::Pieces), Nanos::JOINER.of(Work::Pieces));
    }
}
