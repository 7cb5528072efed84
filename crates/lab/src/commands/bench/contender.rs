//! What is compared.

use clap::ValueEnum;

/// A method, and how it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// As it is without any setting.
    Rejoin,
    /// With `source=frozen` under `[sst]`: the donor holds still.
    Frozen,
    /// With `checkpoint-first=1` under `[sst]`: the donor's server writes a checkpoint before the copy.
    Checkpoint,
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
            Self::Frozen => "rejoin, source=frozen",
            Self::Checkpoint => "rejoin, checkpoint-first=1",
            Self::Rsync => "rsync",
            Self::Mariabackup => "mariabackup",
        }
    }

    /// `wsrep_sst_method`.
    pub fn method(self) -> &'static str {
        match self {
            Self::Rejoin | Self::Frozen | Self::Checkpoint => "rejoin",
            Self::Rsync => "rsync",
            Self::Mariabackup => "mariabackup",
        }
    }

    /// Lines for `[sst]` of the donor.
    pub fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Rejoin => &["source=auto", "checkpoint-first=0"],
            Self::Frozen => &["source=frozen"],
            Self::Checkpoint => &["source=auto", "checkpoint-first=1"],
            Self::Rsync | Self::Mariabackup => &[],
        }
    }
}
