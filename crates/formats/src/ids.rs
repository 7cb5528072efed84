//! Numbers that must not be confused: log positions, tablespaces, pages, write-sets, histories.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// An InnoDB log sequence number: a byte count since the instance was created. Local to one node.
    Lsn(u64)
}
number! {
    /// An InnoDB tablespace identifier; 0 is the system tablespace. Local to one node.
    SpaceId(u32)
}
number! {
    /// A page's number in its tablespace, counted in pages from 0.
    PageNo(u32)
}
number! {
    /// A write-set's number in the cluster's history; -1 means undefined.
    Seqno(i64)
}

impl Seqno {
    /// "No position" (Galera's `WSREP_SEQNO_UNDEFINED`).
    pub const UNDEFINED: Seqno = Seqno(-1);
}

impl PageNo {
    /// "No page": what InnoDB writes into an unused link (`FIL_NULL`, MariaDB 10.11
    /// storage/innobase/include/fil0fil.h).
    pub const NULL: PageNo = PageNo(u32::MAX);
}

/// A 128-bit identifier: of a cluster's history, of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

/// The text is not 32 hexadecimal digits in groups of 8-4-4-4-12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a UUID (8-4-4-4-12 hexadecimal digits)")]
pub struct BadUuid;

impl Uuid {
    /// All zero: "no history", what grastate.dat holds after a failed transfer.
    pub const NIL: Uuid = Uuid([0; 16]);

    /// Bytes of the text form.
    pub const TEXT_LEN: usize = 36;

    /// True for [`Uuid::NIL`].
    pub fn is_nil(&self) -> bool {
        *self == Self::NIL
    }
}

impl FromStr for Uuid {
    type Err = BadUuid;

    fn from_str(text: &str) -> Result<Self, BadUuid> {
        if text.len() != Self::TEXT_LEN {
            return Err(BadUuid);
        }
        let mut bytes = [0u8; 16];
        let mut digits = 0usize;
        for (at, byte) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(BadUuid);
                }
                continue;
            }
            let value = char::from(byte).to_digit(16).ok_or(BadUuid)? as u8;
            let slot = bytes.get_mut(digits / 2).ok_or(BadUuid)?;
            *slot = (*slot << 4) | value;
            digits += 1;
        }
        Ok(Uuid(bytes))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uuid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_real_uuid_reads_and_prints() {
        let text = "2f0eaefd-11aa-11f0-9b0e-0242ac110002";
        assert_eq!(text.parse::<Uuid>().unwrap().to_string(), text);
        assert_eq!(text.to_uppercase().parse::<Uuid>().unwrap().to_string(), text);
        assert!("00000000-0000-0000-0000-000000000000".parse::<Uuid>().unwrap().is_nil());
    }

    #[test]
    fn near_misses_are_refused() {
        for bad in [
            "",
            "2f0eaefd11aa11f09b0e0242ac110002",
            "2f0eaefd-11aa-11f0-9b0e-0242ac11000",
            "2f0eaefd-11aa-11f0-9b0e-0242ac1100021",
            "2f0eaefd-11aa-11f0-9b0e-0242ac11000g",
            "2f0eaefd-11aa-11f0-9b0e0-242ac110002",
        ] {
            assert_eq!(bad.parse::<Uuid>(), Err(BadUuid), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 16]) {
            prop_assert_eq!(Uuid(bytes).to_string().parse::<Uuid>(), Ok(Uuid(bytes)));
        }

        #[test]
        fn never_panics(text in ".{0,60}") {
            let _ = text.parse::<Uuid>();
        }
    }
}
