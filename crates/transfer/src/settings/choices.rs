//! The options whose value is one of a few words, and what each word means.
use std::time::Duration;

use protocol::message::Logical;

use crate::compare::comparison::Parts;
use crate::send::packer::Compression;

/// What happens to the previous state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepPrevious {
    /// Kept until the node has been Synced once.
    UntilSynced,
    /// Kept until the operator removes it.
    Always,
    /// Not kept.
    Never,
}

pub(super) fn keep_previous(value: &str) -> Option<KeepPrevious> {
    match value {
        "until-synced" => Some(KeepPrevious::UntilSynced),
        "always" => Some(KeepPrevious::Always),
        "never" => Some(KeepPrevious::Never),
        _ => None,
    }
}

/// What to do if there is no room for the old and the new files together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPlace {
    /// Replace the files in place, with a warning.
    Auto,
    /// Refuse, and name the missing space.
    Never,
}

pub(super) fn in_place(value: &str) -> Option<InPlace> {
    match value {
        "auto" => Some(InPlace::Auto),
        "never" => Some(InPlace::Never),
        _ => None,
    }
}

/// The kind of snapshot that a donor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotChoice {
    /// Online, or blocking if that is not possible, and mariabackup before that where the redo log or the layout of the files is the
    /// reason.
    Auto,
    /// As [`SnapshotChoice::Auto`], without mariabackup.
    OnlineOrBlocking,
    /// Only the snapshot of a working server.
    Online,
    /// The snapshot of a server that blocks writes.
    Blocking,
    /// Definitions and rows.
    Logical,
    /// Only the snapshot that mariadb-backup takes.
    Mariabackup,
}

impl SnapshotChoice {
    /// Whether a donor sends definitions and rows.
    pub fn logical(self) -> Logical {
        match self {
            SnapshotChoice::Logical => Logical::Always,
            SnapshotChoice::Auto | SnapshotChoice::OnlineOrBlocking => Logical::IfNeeded,
            SnapshotChoice::Online | SnapshotChoice::Blocking | SnapshotChoice::Mariabackup => Logical::Never,
        }
    }
}

pub(super) fn snapshot(value: &str) -> Option<SnapshotChoice> {
    match value {
        "auto" => Some(SnapshotChoice::Auto),
        "online-or-blocking" => Some(SnapshotChoice::OnlineOrBlocking),
        "online" => Some(SnapshotChoice::Online),
        "blocking" => Some(SnapshotChoice::Blocking),
        "logical" => Some(SnapshotChoice::Logical),
        "mariabackup" => Some(SnapshotChoice::Mariabackup),
        _ => None,
    }
}

/// When a donor may block writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// If the online snapshot is not possible.
    Auto,
    /// Never: the transfer fails instead.
    Never,
    /// Like [`Blocking::Auto`], for at most this long.
    AtMost(Duration),
}

pub(super) fn blocking(value: &str) -> Option<Blocking> {
    match value {
        "auto" => Some(Blocking::Auto),
        "never" => Some(Blocking::Never),
        seconds => seconds.parse().ok().filter(|s| *s > 0).map(|s| Blocking::AtMost(Duration::from_secs(s))),
    }
}

/// When write-sets of an archive bring a joiner back instead of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IstChoice {
    /// Where they are estimated to cost less than a transfer of files.
    Auto,
    /// Whenever that is possible.
    Always,
    /// Never.
    Never,
}

pub(super) fn ist(value: &str) -> Option<IstChoice> {
    match value {
        "auto" => Some(IstChoice::Auto),
        "always" => Some(IstChoice::Always),
        "never" => Some(IstChoice::Never),
        _ => None,
    }
}

pub(super) fn compression(value: &str) -> Option<Compression> {
    match value {
        "auto" => Some(Compression::Auto),
        // `quicklz` is mariabackup's only compression: an operator who set it wants compression.
        "zstd" | "quicklz" | "1" | "on" => Some(Compression::Always),
        "none" | "0" | "off" => Some(Compression::Never),
        _ => None,
    }
}

pub(super) fn delta(value: &str) -> Option<Parts> {
    match value {
        "auto" => Some(Parts::Auto),
        "page" | "1" | "on" => Some(Parts::Always),
        "none" | "0" | "off" => Some(Parts::Never),
        _ => None,
    }
}
