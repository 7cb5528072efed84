//! The two roles of a transfer.

/// The two roles of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It has the data, and dials.
    Donor,
    /// It gets the data, and listens.
    Joiner,
}

impl Side {
    /// The word for logs.
    pub fn name(self) -> &'static str {
        match self {
            Side::Donor => "donor",
            Side::Joiner => "joiner",
        }
    }

    /// The side at the other end of a link.
    pub fn other(self) -> Side {
        match self {
            Side::Donor => Side::Joiner,
            Side::Joiner => Side::Donor,
        }
    }
}
