//! The option for a filesystem that nodes are on, of another kind than the temporary directory's.

use anyhow::{Context, Result};
use clap::ValueEnum;
use rejoin_lab::mounted::ClusterFilesystem;

/// A kind of filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Filesystem {
    Ext4,
    /// With reflinks, as mkfs.xfs makes it.
    Xfs,
    /// Without reflinks: no file shares its bytes with another one.
    XfsNoReflink,
    Btrfs,
}

impl Filesystem {
    /// Has all clusters of this program on one of this kind, as long as what is returned lives.
    pub fn make(self) -> Result<ClusterFilesystem> {
        let (kind, options): (_, &[&str]) = match self {
            Self::Ext4 => ("ext4", &[]),
            Self::Xfs => ("xfs", &["-m", "reflink=1"]),
            Self::XfsNoReflink => ("xfs", &["-m", "reflink=0"]),
            Self::Btrfs => ("btrfs", &[]),
        };
        ClusterFilesystem::make(kind, options).with_context(|| format!("--filesystem {}", self.name()))
    }

    /// As it is given.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::XfsNoReflink => "xfs-no-reflink",
            Self::Btrfs => "btrfs",
        }
    }
}
