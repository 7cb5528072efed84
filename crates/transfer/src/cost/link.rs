//! How fast the link is, as the threads notice that send on it.
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::threads::lock;

/// It is measured over so long at a time.
const WINDOW: Duration = Duration::from_millis(200);
/// Less than this, sent in a window without being blocked, fitted into the buffers of the sockets and tells nothing of the link.
const BYTES_MIN: u64 = 1 << 20;
/// Bytes per second of a link that was not measured yet: 1 Gbit/s. A slower one must not be flooded with what need not be sent
/// until it is, and a faster one is noticed after a window.
pub const ASSUMED: f64 = 117e6;
/// A joiner that waits for bytes so much of the time is not what the sender waits for.
const JOINER_WAITS: f64 = 0.5;
/// The least share of its time for which a joiner counts as waiting.
const WAITS_MIN: f64 = 0.05;
/// What a new measurement counts beside those before.
const NEW: f64 = 0.5;

/// Measures it.
#[derive(Debug)]
pub struct Link(Mutex<Measured>);

#[derive(Debug)]
struct Measured {
    began: Instant,
    bytes: u64,
    blocked: Duration,
    /// Bytes per second; `None` until it was measured.
    speed: Option<f64>,
}

impl Default for Link {
    fn default() -> Link {
        Link(Mutex::new(Measured { began: Instant::now(), bytes: 0, blocked: Duration::ZERO, speed: None }))
    }
}

impl Link {
    /// So many bytes were sent on one of the connections, which blocked for so long. `joiner_waits`: the share of its time for
    /// which the joiner has waited for bytes.
    pub fn sent(&self, bytes: u64, blocked: Duration, joiner_waits: f64) {
        let mut measured = lock(&self.0);
        measured.bytes += bytes;
        measured.blocked += blocked;
        let elapsed = measured.began.elapsed();
        if elapsed < WINDOW {
            return;
        }
        if measured.bytes >= BYTES_MIN || measured.blocked >= elapsed / 2 {
            let new = speed(measured.bytes, measured.blocked, elapsed, joiner_waits);
            let known = measured.speed.map_or(new, |speed| speed + (new - speed) * NEW);
            measured.speed = Some(known);
        }
        (measured.began, measured.bytes, measured.blocked) = (Instant::now(), 0, Duration::ZERO);
    }

    /// Bytes per second that it carries.
    pub fn speed(&self) -> f64 {
        lock(&self.0).speed.unwrap_or(ASSUMED)
    }
}

/// Connections that share a link are blocked at the same time, so the link was busy for at most as long as a clock shows. If the
/// joiner does not wait for bytes, the connections are blocked by the joiner, and the link could carry more.
fn speed(bytes: u64, blocked: Duration, elapsed: Duration, joiner_waits: f64) -> f64 {
    let busy = blocked.min(elapsed).as_secs_f64().max(elapsed.as_secs_f64() * WAITS_MIN);
    let by_link = (joiner_waits / JOINER_WAITS).clamp(WAITS_MIN, 1.0);
    bytes as f64 / busy / by_link
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_link_that_blocks_all_connections_carries_what_was_sent() {
        let sent = 100_000_000;
        assert_eq!(speed(sent, 2 * SECOND, SECOND, 0.9), 100e6);
        // Hardly blocked, so it could carry more.
        assert_eq!(speed(sent, SECOND / 10, SECOND, 0.9), 1e9);
        // Blocked by a joiner that is busy all the time.
        assert_eq!(speed(sent, 2 * SECOND, SECOND, 0.0), 2e9);
        assert_eq!(speed(sent, Duration::ZERO, SECOND, 1.0), 2e9);
    }

    #[test]
    fn little_that_was_sent_is_no_measurement() {
        let link = Link::default();
        link.sent(BYTES_MIN - 1, Duration::ZERO, 1.0);
        std::thread::sleep(WINDOW);
        link.sent(0, Duration::ZERO, 1.0);
        assert_eq!(link.speed(), ASSUMED);
        link.sent(5 * BYTES_MIN, Duration::ZERO, 1.0);
        std::thread::sleep(WINDOW);
        link.sent(0, WINDOW, 1.0);
        assert!(link.speed() < 6.0 * 5.0 * BYTES_MIN as f64);
    }

    #[test]
    fn a_link_that_carries_little_in_a_window_is_measured_if_it_blocks() {
        let link = Link::default();
        std::thread::sleep(WINDOW);
        link.sent(BYTES_MIN / 10, WINDOW, 1.0);
        assert!(link.speed() < BYTES_MIN as f64);
    }
}
