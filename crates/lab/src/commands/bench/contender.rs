//! What is compared.

use clap::ValueEnum;

/// A method, and how it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// As it is without any setting.
    Rejoin,
    /// With `source=frozen` under `[sst]`: the donor holds still.
    Frozen,
    /// As shipped with the server.
    Rsync,
    /// As shipped with the server.
    Mariabackup,
}

impl Contender {
    pub const ALL: [Self; 4] = [Self::Rejoin, Self::Frozen, Self::Rsync, Self::Mariabackup];

    /// In the head of the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejoin => "rejoin",
            Self::Frozen => "rejoin, source=frozen",
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

    /// `source` under `[sst]`, where there is such a thing.
    pub fn source(self) -> Option<&'static str> {
        match self {
            Self::Rejoin => Some("auto"),
            Self::Frozen => Some("frozen"),
            Self::Rsync | Self::Mariabackup => None,
        }
    }
}
