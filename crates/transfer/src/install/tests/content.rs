//! What a file of the simulated filesystem holds, and loses with the power.

/// What a file holds.
#[derive(Clone, Debug)]
pub struct Content {
    pub now: Vec<u8>,
    /// What is surely on the disk, while `now` is not.
    pub durable: Option<Vec<u8>>,
}

impl Content {
    pub fn durable(now: &[u8]) -> Content {
        Content { now: now.to_vec(), durable: None }
    }

    pub fn write(&mut self, now: &[u8]) {
        let before = std::mem::replace(&mut self.now, now.to_vec());
        self.durable.get_or_insert(before);
    }

    /// What was written and not synced may be there in any part, and anything may be where it is not.
    pub fn lose(&mut self, random: &mut impl FnMut() -> bool) {
        let Some(before) = self.durable.take() else { return };
        let (half, filler) = (self.now.len() / 2, if random() { b'#' } else { 0 });
        // Bytes that were the same before are on the disk.
        let mut fill = |from: usize| {
            let written = self.now.iter_mut().enumerate().skip(from);
            written.filter(|(at, byte)| before.get(*at) != Some(byte)).for_each(|(_, byte)| *byte = filler);
        };
        match (random(), random()) {
            (true, true) => {}
            (true, false) => self.now = before,
            (false, true) => fill(half),
            (false, false) if random() => fill(0),
            (false, false) => self.now.truncate(half.max(before.len())),
        }
    }
}
