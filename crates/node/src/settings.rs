//! What the operator set under `[sst]`, with defaults. `docs/options.md` is the operator's view of this file.
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use protocol::limits::WORKERS_MAX;

use crate::failure::{Failure, Kind};
use crate::peer::OwnCertificates;
use crate::server::options::ServerOptions;
use crate::source::compare::Parts;
use crate::source::packer::Compression;

/// Workers unless `threads` says otherwise; also bounded by the processors there are.
const THREADS: usize = 4;

/// Bytes of redo that may wait on the donor's disk for a slow link.
const SPILL_MAX: u64 = 4 << 30;

/// What becomes of the files an install replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepOld {
    /// Kept until the node was once Synced.
    UntilSynced,
    /// Kept until the operator removes them.
    Always,
    /// Not kept.
    Never,
}

/// What to do when old and new files do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPlace {
    /// Replace file by file, and say so.
    Auto,
    /// Refuse, with the missing bytes.
    Never,
}

/// Where a donor's files are to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// Native; frozen when that does not serve.
    Auto,
    /// The snapshot of a server that goes on working, or nothing.
    Native,
    /// A server that holds its files still.
    Frozen,
}

/// Everything `[sst]` decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `threads`: connections beside the control connection.
    pub threads: u16,
    /// `rlimit`: bytes a second the donor may send.
    pub rlimit: Option<u64>,
    /// `compress`.
    pub compression: Compression,
    /// `sst-initial-timeout`: how long the joiner waits for its donor.
    pub first_contact: Duration,
    /// `sst-idle-timeout`: how long the peer may be silent.
    pub stall: Duration,
    /// `flush-timeout`: how long the donor's server may take to hold its files still.
    pub flush: Duration,
    /// `incremental`: what the joiner has is not sent.
    pub incremental: bool,
    /// `delta`: of a page that the joiner has in another version, the parts that differ are sent.
    pub delta: Parts,
    /// `base`: a prepared backup, in which files are looked for that the datadir has not.
    pub base: Option<PathBuf>,
    /// `source`.
    pub source: SourceChoice,
    /// `moment-timeout`: how long a settled moment may be tried for.
    pub moment: Duration,
    /// `checkpoint-first`.
    pub checkpoint_first: bool,
    /// `redo-round-after`: a copy that took longer has the joiner recover from a newer checkpoint.
    pub redo_round_after: Duration,
    /// `redo-spill-dir`: where redo waits for a slow link; the datadir unless set.
    pub spill_dir: Option<PathBuf>,
    /// `redo-spill-max`: bytes of it.
    pub spill_max: u64,
    /// `allow-corrupt-pages`.
    pub allow_corrupt_pages: bool,
    /// `in-place`.
    pub in_place: InPlace,
    /// `keep-old`.
    pub keep_old: KeepOld,
    /// `allow-upgrade`.
    pub allow_upgrade: bool,
    /// `ssl-ca`, `ssl-cert`, `ssl-key` (or `tca`, `tcert`, `tkey`).
    pub certificates: Option<OwnCertificates>,
}

impl Settings {
    /// Reads them; a value that cannot be is a named error.
    pub fn read(options: &ServerOptions) -> Result<Settings> {
        Ok(Settings {
            threads: threads(options)?,
            rlimit: options.sst_size("rlimit")?,
            compression: choice(options, "compress", compression)?.unwrap_or(Compression::Auto),
            first_contact: seconds(options, "sst-initial-timeout", 300)?,
            stall: seconds(options, "sst-idle-timeout", 120)?,
            flush: seconds(options, "flush-timeout", 600)?,
            incremental: options.sst_bool("incremental")?.unwrap_or(true),
            delta: choice(options, "delta", delta)?.unwrap_or(Parts::Auto),
            base: base(options),
            source: choice(options, "source", source)?.unwrap_or(SourceChoice::Auto),
            moment: seconds(options, "moment-timeout", 60)?,
            checkpoint_first: options.sst_bool("checkpoint-first")?.unwrap_or(false),
            redo_round_after: seconds(options, "redo-round-after", 30)?,
            spill_dir: options.sst("redo-spill-dir").filter(|dir| !dir.is_empty()).map(PathBuf::from),
            spill_max: options.sst_size("redo-spill-max")?.unwrap_or(SPILL_MAX),
            allow_corrupt_pages: options.sst_bool("allow-corrupt-pages")?.unwrap_or(false),
            in_place: choice(options, "in-place", in_place)?.unwrap_or(InPlace::Auto),
            keep_old: choice(options, "keep-old", keep_old)?.unwrap_or(KeepOld::UntilSynced),
            allow_upgrade: options.sst_bool("allow-upgrade")?.unwrap_or(false),
            certificates: certificates(options)?,
        })
    }
}

fn threads(options: &ServerOptions) -> Result<u16, Failure> {
    let Some(text) = options.sst("threads") else {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        return Ok(THREADS.min(processors) as u16);
    };
    let number = text.parse().ok().filter(|n| (1..=WORKERS_MAX).contains(n));
    number.ok_or_else(|| {
        Failure::new(
            Kind::Configuration,
            format!("[sst] threads={text} is not a number from 1 to {WORKERS_MAX}"),
        )
    })
}

/// `base`, when it names one.
pub fn base(options: &ServerOptions) -> Option<PathBuf> {
    options.sst("base").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// 0 means no limit, as with the shell methods; a week is none.
fn seconds(options: &ServerOptions, name: &str, default: u64) -> Result<Duration> {
    let week = 7 * 24 * 3600;
    let value = options.sst_duration_s(name)?.unwrap_or(default);
    Ok(Duration::from_secs(if value == 0 { week } else { value.min(week) }))
}

fn choice<T>(options: &ServerOptions, name: &str, read: fn(&str) -> Option<T>) -> Result<Option<T>, Failure> {
    let Some(value) = options.sst(name) else { return Ok(None) };
    let known = read(&value.to_ascii_lowercase());
    known.map(Some).ok_or_else(|| {
        Failure::new(Kind::Configuration, format!("{name}={value} under [sst] is not a known value"))
    })
}

fn compression(value: &str) -> Option<Compression> {
    match value {
        "auto" => Some(Compression::Auto),
        // `quicklz` is mariabackup's only way to pack: who had it set wants packing.
        "zstd" | "quicklz" | "1" | "on" => Some(Compression::Always),
        "none" | "0" | "off" => Some(Compression::Never),
        _ => None,
    }
}

fn delta(value: &str) -> Option<Parts> {
    match value {
        "auto" => Some(Parts::Auto),
        "page" | "1" | "on" => Some(Parts::Always),
        "none" | "0" | "off" => Some(Parts::Never),
        _ => None,
    }
}

fn source(value: &str) -> Option<SourceChoice> {
    match value {
        "auto" => Some(SourceChoice::Auto),
        "native" => Some(SourceChoice::Native),
        "frozen" => Some(SourceChoice::Frozen),
        _ => None,
    }
}

fn in_place(value: &str) -> Option<InPlace> {
    match value {
        "auto" => Some(InPlace::Auto),
        "never" => Some(InPlace::Never),
        _ => None,
    }
}

fn keep_old(value: &str) -> Option<KeepOld> {
    match value {
        "until-synced" => Some(KeepOld::UntilSynced),
        "always" => Some(KeepOld::Always),
        "never" => Some(KeepOld::Never),
        _ => None,
    }
}

fn certificates(options: &ServerOptions) -> Result<Option<OwnCertificates>, Failure> {
    let get = |new: &str, old: &str| options.sst(new).or_else(|| options.sst(old)).map(PathBuf::from);
    match (get("ssl-ca", "tca"), get("ssl-cert", "tcert"), get("ssl-key", "tkey")) {
        (None, None, None) => Ok(None),
        (Some(ca), Some(cert), Some(key)) => Ok(Some(OwnCertificates { ca, cert, key })),
        _ => Err(Failure::new(
            Kind::Configuration,
            "ssl-ca, ssl-cert and ssl-key under [sst] must be given together",
        )
        .hint("with none of them the transfer is encrypted and authenticated by itself")),
    }
}
