//! What the connections of a transfer have moved.
use std::fmt;
use std::sync::Mutex;

use crate::threads::lock;

/// What a connection has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes on the network.
    pub bytes: u64,
    /// Grows with each message or byte that belongs to the transfer. Signs of life do not count.
    pub steps: u64,
}

/// The connections of a transfer, also those that have ended.
#[derive(Default)]
pub(super) struct Connections(Mutex<Vec<Box<dyn Fn() -> Moved + Send>>>);

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connections").field(&self.moved()).finish()
    }
}

impl Connections {
    /// Adds a connection.
    pub fn add(&self, connection: impl Fn() -> Moved + Send + 'static) {
        lock(&self.0).push(Box::new(connection));
    }

    /// What all of them have moved.
    pub fn moved(&self) -> Moved {
        let all = lock(&self.0);
        all.iter().map(|moved| moved()).fold(Moved::default(), |sum, moved| Moved {
            bytes: sum.bytes + moved.bytes,
            steps: sum.steps + moved.steps,
        })
    }
}
