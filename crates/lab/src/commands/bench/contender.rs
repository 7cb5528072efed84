//! What is compared.

use clap::ValueEnum;

/// A method, and how it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// As it is without any setting.
    Rejoin,
    /// With `snapshot=blocking` under `[sst]`: the donor's server blocks writes.
    Frozen,
    /// As shipped with the server.
    Rsync,
    /// As shipped with the server.
    Mariabackup,
}

impl Contender {
    /// Those that are compared when nothing else is said.
    pub const ALL: [Self; 4] = [Self::Rejoin, Self::Frozen, Self::Rsync, Self::Mariabackup];

    /// In the head of the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejoin => "rejoin",
            Self::Frozen => "rejoin, snapshot=blocking",
            Self::Rsync => "rsync",
            Self::Mariabackup => "mariabackup",
        }
    }

    /// `wsrep_sst_method`.
    pub fn method(self) -> &'static str {
        match self {
            Self::Rejoin | Self::Frozen => "rejoin",
            Self::Rsync => "rsync",
            Self::Mariabackup => "mariabackup",
        }
    }

    /// Lines for `[sst]` of the donor.
    pub fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Rejoin => &["snapshot=auto"],
            Self::Frozen => &["snapshot=blocking"],
            Self::Rsync | Self::Mariabackup => &[],
        }
    }
}
