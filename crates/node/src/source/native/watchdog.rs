//! Watches a settled moment from outside: pausing the provider has no timeout, and while it hangs our own session
//! cannot speak.
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::settle::holder;
use super::sql::Session;
use super::stage::Stage;

/// How often it looks, and says, who is in the way.
const EVERY: Duration = Duration::from_secs(2);

/// Ends its thread when dropped.
pub struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    /// Watches one try of `stage`. After `deadline` the stage's session is killed: a statement that waits for a lock
    /// ends then, and one that waits for the provider ends the stage as soon as it comes back.
    pub fn start(stage: &mut Stage, observer: &mut Session, deadline: Instant) -> Watchdog {
        let (alive, ended) = channel::<()>();
        let victim = stage.session().id();
        if let Ok(mut session) = observer.another() {
            std::thread::spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
                    let running = session.running().unwrap_or_default();
                    tracing::warn!("the settled moment takes long: {}", holder(&running));
                    if Instant::now() > deadline {
                        let killed = session.kill(victim);
                        tracing::warn!("the session with the backup locks is killed: {killed:?}");
                        return;
                    }
                }
            });
        }
        Watchdog { _alive: alive }
    }
}
