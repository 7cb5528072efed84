//! A delay line between nodes: whole IP packets arrive half of a round trip after they were sent, at the rate at which they were
//! sent. The kernel's TCP runs at both ends of it, so connections feel it as they feel distance: a handshake takes a round trip,
//! slow start and windows count. How fast nodes send is for the token bucket in front of their interfaces to limit
//! ([`Wire::shape`]), not for this.
//!
//! Each node sends to a TUN device, and a thread for each node takes what it sends to the devices of the others. The room
//! for packets under way is limited ([`capacity`]); a packet for which there is none is lost, and counted.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::in_flight::InFlight;
use crate::network::{Wire, burst};
use crate::tun;

/// The room in each direction, at least.
const LEAST_CAPACITY: u64 = 1_000_000;
/// How long a thread sleeps at most before it looks whether it has to end.
const LOOK: Duration = Duration::from_millis(100);
/// Of the scheduler's niceness: a thread that waits for a processor delays packets by more than it should, and the programs
/// that are measured take all processors.
const PRIORITY: i32 = -20;

/// Threads that pass packets on. Dropping it ends them, and the nodes have no network for transfers then.
#[derive(Debug)]
pub struct DelayLine {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// What became of the packets so far.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Bytes for which there is room in each direction.
    pub capacity: u64,
    /// The most bytes that were under way in one direction.
    pub most_in_flight: u64,
    /// Packets that arrived.
    pub delivered: u64,
    /// Packets that were lost: for want of room, or because a device did not take them.
    pub lost: u64,
    /// By how much packets were later than they should be: on average, and at most.
    pub late: [Duration; 2],
}

#[derive(Debug)]
struct Shared {
    ends: Vec<End>,
    ended: AtomicBool,
    capacity: u64,
    most_in_flight: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
    /// Nanoseconds.
    late_together: AtomicU64,
    late_most: AtomicU64,
}

/// A node's device, and the address whose packets go there.
#[derive(Debug)]
struct End {
    device: OwnedFd,
    address: [u8; 4],
}

impl DelayLine {
    /// Puts the line between these nodes, whose connections of before it ends. They are to send at `rate` bytes a second
    /// at most.
    pub fn between(wires: &[Wire], rate: u64, round_trip: Duration) -> Result<Self> {
        let end = |wire: &Wire| Ok(End { device: wire.tunnel()?, address: wire.transfer_address().octets() });
        let shared = Arc::new(Shared {
            ends: wires.iter().map(end).collect::<Result<_>>()?,
            ended: AtomicBool::new(false),
            capacity: capacity(rate, round_trip),
            most_in_flight: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            late_together: AtomicU64::new(0),
            late_most: AtomicU64::new(0),
        });
        let mut line = Self { shared, threads: Vec::new() };
        for (from, wire) in wires.iter().enumerate() {
            let shared = Arc::clone(&line.shared);
            let name = format!("delay-{}", wire.transfer_address());
            let work = move || shared.pass_on(from, round_trip / 2);
            line.threads.push(std::thread::Builder::new().name(name).spawn(work)?);
        }
        Ok(line)
    }

    /// What became of the packets so far. Fails when a thread has ended: what was measured since is worth nothing.
    pub fn record(&self) -> Result<Record> {
        ensure!(!self.threads.iter().any(JoinHandle::is_finished), "a thread of the delay line has ended");
        let shared = &self.shared;
        let delivered = shared.delivered.load(Relaxed);
        let together = Duration::from_nanos(shared.late_together.load(Relaxed));
        Ok(Record {
            capacity: shared.capacity,
            most_in_flight: shared.most_in_flight.load(Relaxed),
            delivered,
            lost: shared.lost.load(Relaxed),
            late: [
                together.div_f64(delivered.max(1) as f64),
                Duration::from_nanos(shared.late_most.load(Relaxed)),
            ],
        })
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.shared.ended.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The bytes that may be under way in one direction: twice what `rate` sends in a round trip, at least 1 MB, and what a token
/// bucket lets pass at once. Half a round trip's worth and the bucket's are what a sender can have there: more is only there
/// when a thread was kept from delivering, for longer than one and a half round trips.
fn capacity(rate: u64, round_trip: Duration) -> u64 {
    let in_two_trips = (2.0 * rate as f64 * round_trip.as_secs_f64()) as u64;
    in_two_trips.max(LEAST_CAPACITY) + burst(rate)
}

impl Shared {
    /// Passes on what the end `from` sends, until the line ends or the device fails.
    fn pass_on(&self, from: usize, delay: Duration) -> io::Result<()> {
        // Neither is essential: without them packets are later, and the record says by how much.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), PRIORITY);
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let mut line = InFlight::new(delay, self.capacity);
        let mut room = vec![0; tun::LONGEST];
        while !self.ended.load(Relaxed) {
            self.wait(from, &line)?;
            self.take_in(from, &mut line, &mut room)?;
            self.deliver(&mut line);
        }
        Ok(())
    }

    /// Until the end `from` sends something, or a packet is due.
    fn wait(&self, from: usize, line: &InFlight) -> io::Result<()> {
        let due = line.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = due.unwrap_or(LOOK).min(LOOK);
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let mut device = [PollFd::new(&self.ends[from].device, PollFlags::IN)];
        match poll(&mut device, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Reads what the end `from` has sent. Not past the moment when a packet is due: a sender may always have more.
    fn take_in(&self, from: usize, line: &mut InFlight, room: &mut [u8]) -> io::Result<()> {
        loop {
            let length = match rustix::io::read(&self.ends[from].device, &mut *room) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            let now = Instant::now();
            // What is for nobody here is the kernel's own, by IPv6: it looks for routers.
            if let Some(to) = self.destination(&room[..length]) {
                let taken = line.enter(to, &room[..length], now);
                self.lost.fetch_add(u64::from(!taken), Relaxed);
                self.most_in_flight.fetch_max(line.bytes(), Relaxed);
            }
            if line.is_due(now) {
                return Ok(());
            }
        }
    }

    fn deliver(&self, line: &mut InFlight) {
        while let Some(packet) = line.leave(Instant::now()) {
            let late = packet.due.elapsed().as_nanos() as u64;
            if rustix::io::write(&self.ends[packet.to].device, &packet.bytes).is_err() {
                self.lost.fetch_add(1, Relaxed);
                continue;
            }
            self.delivered.fetch_add(1, Relaxed);
            self.late_together.fetch_add(late, Relaxed);
            self.late_most.fetch_max(late, Relaxed);
        }
    }

    /// The number of the end that an IPv4 packet is for.
    fn destination(&self, packet: &[u8]) -> Option<usize> {
        let ip = packet.get(tun::HEADER..)?;
        let is_v4 = ip.first()? >> 4 == 4;
        let address = ip.get(16..20).filter(|_| is_v4)?;
        self.ends.iter().position(|end| end.address == address)
    }
}
