//! What is compared, and in which cases.

use clap::ValueEnum;
use serde::Serialize;

/// What a joiner finds, and its donor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// An empty joiner, and a donor that nobody writes to.
    Full,
    /// An empty joiner; clients write to the donor and to another node.
    Loaded,
    /// A joiner that has the same files.
    Same,
    /// A joiner that had the same files before 40 % of the pages changed.
    Changed,
}

impl Case {
    /// In the order of the table.
    pub const ALL: [Self; 4] = [Self::Full, Self::Loaded, Self::Same, Self::Changed];

    /// Whether all of the data is sent.
    pub fn is_full(self) -> bool {
        matches!(self, Self::Full | Self::Loaded)
    }

    /// As it is given on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Loaded => "loaded",
            Self::Same => "same",
            Self::Changed => "changed",
        }
    }

    /// In the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Full => "to an empty node, idle",
            Self::Loaded => "to an empty node, under write load",
            Self::Same => "nothing changed",
            Self::Changed => "40 % of the pages changed",
        }
    }
}

/// A method, and how it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// As it is without any setting.
    Rejoin,
    /// With `remember-fingerprints=0` under `[sst]`: every file is read.
    Unremembered,
    /// With `snapshot=blocking` under `[sst]`: the donor's server blocks writes.
    Frozen,
    /// As shipped with the server.
    Rsync,
    /// As shipped with the server.
    RsyncWan,
    /// As shipped with the server.
    Mariabackup,
}

impl Contender {
    /// Those that are compared when nothing else is said.
    pub const ALL: [Self; 6] =
        [Self::Rejoin, Self::Unremembered, Self::Frozen, Self::Rsync, Self::RsyncWan, Self::Mariabackup];

    /// In the head of the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejoin => "rejoin",
            Self::Unremembered => "rejoin, remember-fingerprints=0",
            Self::Frozen => "rejoin, snapshot=blocking",
            Self::Rsync => "rsync",
            Self::RsyncWan => "rsync_wan",
            Self::Mariabackup => "mariabackup",
        }
    }

    /// `wsrep_sst_method`.
    pub fn method(self) -> &'static str {
        match self {
            Self::Rejoin | Self::Unremembered | Self::Frozen => "rejoin",
            Self::Rsync => "rsync",
            Self::RsyncWan => "rsync_wan",
            Self::Mariabackup => "mariabackup",
        }
    }

    /// Whether this is our own program.
    pub fn is_rejoin(self) -> bool {
        self.method() == "rejoin"
    }

    /// Lines for `[sst]` of both nodes.
    pub fn settings(self) -> &'static [&'static str] {
        match self {
            Self::Rejoin => &["snapshot=auto", "remember-fingerprints=1"],
            Self::Unremembered => &["snapshot=auto", "remember-fingerprints=0"],
            Self::Frozen => &["snapshot=blocking", "remember-fingerprints=1"],
            Self::Rsync | Self::RsyncWan | Self::Mariabackup => &[],
        }
    }

    /// What is remembered of files is no matter to an empty node, and who blocks writes none where nothing is copied.
    pub fn takes_part(self, case: Case) -> bool {
        match self {
            Self::Unremembered => case == Case::Same,
            Self::Frozen => case.is_full(),
            Self::Rejoin | Self::Rsync | Self::RsyncWan | Self::Mariabackup => true,
        }
    }
}
