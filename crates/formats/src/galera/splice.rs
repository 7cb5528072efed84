//! Write-sets put in front of a donor's own IST stream, as a state machine without I/O.
//!
//! A joiner's provider lets its donor begin at any seqno up to the joiner's position + 1. A process between
//! the two may therefore insert the write-sets between that position and the first seqno that the donor's provider sends.
//! Everything else passes unchanged.
//!
//! The caller feeds what the donor has sent and does what [`Splice::next`] says. It holds the stream at the first ordered
//! message until it knows the joiner's position, which it then gives with [`Splice::insert_from`] or
//! [`Splice::insert_nothing`].

use thiserror::Error;

use super::ist::{HEADER_LEN, Header, IstError, Kind, VERSION_OLDEST};
use crate::ids::Seqno;

/// What to do with the bytes that the donor has sent and that were not passed on yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Wait for more of them.
    Read,
    /// Pass on so many.
    Pass(usize),
    /// Hold them: the first ordered message begins here.
    Hold(Seqno),
    /// Insert the write-sets from the first to the last of these, each through [`Splice::inserted`].
    Insert(Seqno, Seqno),
    /// Pass on everything from here unread.
    Through,
}

/// Why a stream cannot be spliced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SpliceError {
    /// A message that cannot be read.
    #[error(transparent)]
    Message(#[from] IstError),
    /// A message where another one was due.
    #[error("{0:?} where the answer to the greeting was due")]
    Unexpected(Kind),
    /// The write-set to be inserted is not the next one.
    #[error("write-set {found} is to be inserted where {due} is due")]
    Order {
        /// The one that is due.
        due: Seqno,
        /// The one that was given.
        found: Seqno,
    },
    /// Nothing is to be inserted now.
    #[error("write-set {0} is to be inserted where none is due")]
    NotNow(Seqno),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The donor has not answered the greeting.
    Greeting,
    /// It has; what it sends now is ordered.
    Greeted,
    /// The first ordered message is held.
    Held {
        first: Seqno,
    },
    /// Write-sets are inserted: the next one, and the last.
    Inserting {
        next: Seqno,
        last: Seqno,
    },
    Through,
}

/// One connection of a donor's provider.
#[derive(Debug, Clone)]
pub struct Splice {
    state: State,
    version: u8,
}

impl Default for Splice {
    fn default() -> Splice {
        Splice::new()
    }
}

impl Splice {
    /// The donor has connected and not said anything.
    pub fn new() -> Splice {
        Splice { state: State::Greeting, version: 0 }
    }

    /// Says what to do. `bytes` is what came and was not passed on, from a message's first byte.
    ///
    /// # Errors
    /// This is no IST stream.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Step, SpliceError> {
        match self.state {
            State::Through => return Ok(Step::Through),
            State::Held { first } => return Ok(Step::Hold(first)),
            State::Inserting { next, last } => return Ok(Step::Insert(next, last)),
            State::Greeting | State::Greeted => {}
        }
        // Another header, which has no place for what is inserted.
        if bytes.first().is_some_and(|version| (4..VERSION_OLDEST).contains(version)) {
            self.state = State::Through;
            return Ok(Step::Through);
        }
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else { return Ok(Step::Read) };
        let header = Header::parse(head)?;
        self.version = header.version;
        self.state = match (self.state, header.kind) {
            (State::Greeting, Kind::HandshakeResponse) => State::Greeted,
            // An error, or a provider that interrupts its own listener; and an IST that is empty.
            (_, Kind::Control) => State::Through,
            (State::Greeted, kind) if kind.is_ordered() => State::Held { first: header.seqno },
            (_, kind) => return Err(SpliceError::Unexpected(kind)),
        };
        Ok(match self.state {
            State::Held { first } => Step::Hold(first),
            _ => Step::Pass(HEADER_LEN),
        })
    }

    /// The first seqno that the donor sends by itself, once it is known.
    pub fn first(&self) -> Option<Seqno> {
        match self.state {
            State::Held { first } => Some(first),
            _ => None,
        }
    }

    /// The joiner is at `position`: what is missing behind it is to be inserted. Nothing is when the donor begins soon
    /// enough. Answers whether something is.
    pub fn insert_from(&mut self, position: Seqno) -> bool {
        let State::Held { first } = self.state else { return false };
        let next = Seqno(position.0.saturating_add(1));
        self.state = match next < first {
            true => State::Inserting { next, last: Seqno(first.0.saturating_sub(1)) },
            false => State::Through,
        };
        next < first
    }

    /// Nothing is to be inserted: this is the server's own business.
    pub fn insert_nothing(&mut self) {
        if matches!(self.state, State::Held { .. }) {
            self.state = State::Through;
        }
    }

    /// The next message to insert, as the joiner is to get its header: in the group's protocol, and not for the
    /// certification index.
    ///
    /// # Errors
    /// Another one is due, or none.
    pub fn inserted(&mut self, message: &Header) -> Result<[u8; HEADER_LEN], SpliceError> {
        let found = message.seqno;
        let State::Inserting { next, last } = self.state else { return Err(SpliceError::NotNow(found)) };
        if found != next || !message.kind.is_ordered() {
            return Err(SpliceError::Order { due: next, found });
        }
        self.state = match next == last {
            true => State::Through,
            false => State::Inserting { next: Seqno(next.0.saturating_add(1)), last },
        };
        Ok(Header { version: self.version, flags: 0, ..*message }.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::super::gcache::Action;
    use super::*;
    use proptest::prelude::*;

    const RESPONSE: Header =
        Header { version: 11, kind: Kind::HandshakeResponse, flags: 0, control: 0, len: 0, seqno: Seqno(-1) };

    fn skip(seqno: i64) -> Header {
        Header::of_action(10, Seqno(seqno), Action::WriteSet, true, 0).unwrap()
    }

    /// Up to the first ordered message.
    fn held(first: i64) -> Splice {
        let mut splice = Splice::new();
        assert_eq!(splice.next(&[]), Ok(Step::Read));
        assert_eq!(splice.next(&RESPONSE.encode()), Ok(Step::Pass(HEADER_LEN)));
        assert_eq!(splice.next(&[11, 4]), Ok(Step::Read));
        let ordered = Header { version: 11, flags: 1, ..skip(first) }.encode();
        assert_eq!(splice.next(&ordered), Ok(Step::Hold(Seqno(first))));
        assert_eq!(
            (splice.next(&ordered), splice.first()),
            (Ok(Step::Hold(Seqno(first))), Some(Seqno(first)))
        );
        splice
    }

    #[test]
    fn what_is_missing_is_inserted_in_order_and_only_that() {
        let mut splice = held(8);
        assert!(splice.insert_from(Seqno(5)));
        assert_eq!(splice.next(&[]), Ok(Step::Insert(Seqno(6), Seqno(7))));
        assert_eq!(splice.inserted(&skip(7)), Err(SpliceError::Order { due: Seqno(6), found: Seqno(7) }));
        let sent = Header::parse(&splice.inserted(&Header { flags: 1, ..skip(6) }).unwrap()).unwrap();
        assert_eq!((sent.version, sent.flags, sent.seqno), (11, 0, Seqno(6)));
        splice.inserted(&skip(7)).unwrap();
        assert_eq!(splice.next(&[]), Ok(Step::Through));
        assert_eq!(splice.inserted(&skip(8)), Err(SpliceError::NotNow(Seqno(8))));
    }

    #[test]
    fn an_ist_that_begins_soon_enough_passes() {
        for position in [7, 8, i64::MAX] {
            let mut splice = held(8);
            assert!(!splice.insert_from(Seqno(position)));
            assert_eq!(splice.next(&[]), Ok(Step::Through));
        }
        let mut splice = held(8);
        splice.insert_nothing();
        assert_eq!(splice.next(&[]), Ok(Step::Through));
    }

    #[test]
    fn other_conversations() {
        // A provider that wakes its own listener, and an IST without write-sets.
        let interrupt = Header::plain(11, Kind::Control, -4).encode();
        let mut splice = Splice::new();
        assert_eq!(splice.next(&interrupt), Ok(Step::Pass(HEADER_LEN)));
        assert_eq!(splice.next(&[]), Ok(Step::Through));
        let mut splice = Splice::new();
        splice.next(&RESPONSE.encode()).unwrap();
        assert_eq!(splice.next(&Header::plain(11, Kind::Control, 1).encode()), Ok(Step::Pass(HEADER_LEN)));
        // Galera 3.
        assert_eq!(Splice::new().next(&[9, 2, 0, 0]), Ok(Step::Through));
        // A stranger.
        assert_eq!(
            Splice::new().next(b"GET / HTTP/1.1\r\nHost: joiner\r\n"),
            Err(SpliceError::Message(IstError::Checksum))
        );
        assert_eq!(Splice::new().next(&skip(4).encode()), Err(SpliceError::Unexpected(Kind::Skip)));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_passes_what_is_not_there(bytes in proptest::collection::vec(any::<u8>(), 0..60), greeted: bool, at: i64) {
            let mut splice = if greeted { held(9) } else { Splice::new() };
            splice.insert_from(Seqno(at));
            if let Ok(Step::Pass(n)) = splice.next(&bytes) {
                prop_assert!(n <= bytes.len());
            }
            let _ = splice.inserted(&skip(9));
        }
    }
}
