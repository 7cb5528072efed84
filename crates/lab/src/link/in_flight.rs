//! Packets on a delay line: each leaves it a fixed time after it came, in the order in which they came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A packet under way.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it has to leave.
    pub due: Instant,
    /// The number of the end where it leaves.
    pub to: usize,
    pub bytes: Vec<u8>,
}

/// The packets of one direction, and the room for them.
#[derive(Debug)]
pub struct InFlight {
    delay: Duration,
    capacity: u64,
    bytes: u64,
    packets: VecDeque<Packet>,
}

impl InFlight {
    /// Nothing is under way.
    pub fn new(delay: Duration, capacity: u64) -> Self {
        Self { delay, capacity, bytes: 0, packets: VecDeque::new() }
    }

    /// Takes in a packet that came at `now`, unless there is no room: then it is lost, which the answer says.
    #[must_use]
    pub fn enter(&mut self, to: usize, packet: &[u8], now: Instant) -> bool {
        let bytes = self.bytes + packet.len() as u64;
        if bytes > self.capacity {
            return false;
        }
        self.bytes = bytes;
        self.packets.push_back(Packet { due: now + self.delay, to, bytes: packet.to_vec() });
        true
    }

    /// When the next packet has to leave.
    pub fn next_due(&self) -> Option<Instant> {
        self.packets.front().map(|packet| packet.due)
    }

    /// Whether a packet has to leave at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_due().is_some_and(|due| due <= now)
    }

    /// The next packet, if it has to leave at `now`.
    pub fn leave(&mut self, now: Instant) -> Option<Packet> {
        let packet = self.packets.pop_front_if(|packet| packet.due <= now)?;
        self.bytes -= packet.bytes.len() as u64;
        Some(packet)
    }

    /// Bytes under way.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(20);
    const A_LITTLE: Duration = Duration::from_millis(1);

    #[test]
    fn packets_leave_after_the_delay_in_their_order() {
        let (mut line, began) = (InFlight::new(DELAY, 100), Instant::now());
        assert!(line.enter(1, b"first", began));
        assert!(line.enter(2, b"second", began + A_LITTLE));
        assert_eq!((line.next_due(), line.bytes()), (Some(began + DELAY), 11));
        assert!(!line.is_due(began + DELAY - A_LITTLE));
        assert_eq!(line.leave(began + DELAY - A_LITTLE), None);
        let first = line.leave(began + DELAY).unwrap();
        assert_eq!((first.to, first.bytes.as_slice()), (1, b"first".as_slice()));
        assert_eq!(line.leave(began + DELAY), None);
        let second = line.leave(began + DELAY * 2).unwrap();
        assert_eq!((second.to, second.due), (2, began + DELAY + A_LITTLE));
        assert_eq!((line.next_due(), line.bytes()), (None, 0));
    }

    #[test]
    fn a_packet_is_lost_only_when_there_is_no_room() {
        let (mut line, now) = (InFlight::new(DELAY, 10), Instant::now());
        assert!(line.enter(0, &[1; 6], now) && line.enter(0, &[2; 4], now));
        assert!(!line.enter(0, &[3; 1], now));
        assert_eq!(line.leave(now + DELAY).unwrap().bytes, [1; 6]);
        assert!(line.enter(0, &[4; 6], now));
        assert_eq!(line.bytes(), 10);
    }
}
