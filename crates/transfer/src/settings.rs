//! The operator's options under `[sst]`, with defaults. `docs/options.md` documents them for operators.
mod base_command;
mod choices;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use protocol::limits::WORKERS_MAX;

pub use self::base_command::BaseCommand;
pub use self::choices::{Blocking, InPlace, IstChoice, KeepPrevious, SnapshotChoice};
use crate::compare::comparison::Parts;
use crate::failure::{Failure, Kind};
use crate::limits::TransferLimits;
use crate::peer::{OwnCertificates, Side};
use crate::send::packer::Compression;
use crate::server::options::ServerOptions;

/// The default of `threads`; also limited by the number of processors.
const THREADS: usize = 4;
/// Threads that read files if `threads` is not set. They mostly wait for the disk, above all where files are small: with
/// 20,000 tables on two processors eight compare in 0.65 of the time that two take.
const READERS: u16 = 8;
/// Each reader of a donor waits one round trip for the joiner's answer about what differs within a range. So many more of them
/// where the joiner is far away, so that ranges are compared at half a gigabyte a second.
const READERS_PER_MILLISECOND: f64 = 0.5;
/// Each of them holds a few megabytes.
const READERS_MAX: u16 = 24;

/// How many seconds we wait for the consistency point: longer than a nightly backup takes.
const CONSISTENCY_POINT_TIMEOUT_S: u64 = 12 * 3600;

/// The operator's certificates, as this node uses them in either role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleCertificates {
    /// As the joiner, which is the TLS server.
    pub joiner: Option<OwnCertificates>,
    /// As the donor, which is the TLS client.
    pub donor: Option<OwnCertificates>,
}

impl RoleCertificates {
    /// Those of a role.
    pub fn of(&self, side: Side) -> Option<&OwnCertificates> {
        match side {
            Side::Joiner => self.joiner.as_ref(),
            Side::Donor => self.donor.as_ref(),
        }
    }
}

/// All options of `[sst]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `threads`: connections besides the control connection.
    pub threads: u16,
    /// Threads that read data files, on either host. `threads` if that is set: an operator who lowers it spares the disk
    /// as well.
    pub readers: u16,
    /// `rlimit`: bytes per second that the donor may send.
    pub rlimit: Option<u64>,
    /// `adaptive-throttle`: the donor reads more slowly while its server is strained.
    pub adaptive_throttle: bool,
    /// `max-time`: how long a transfer may take.
    pub max_time: Option<Duration>,
    /// `ist-only`, `max-transfer`, `full-only-between`.
    pub limits: TransferLimits,
    /// `compress`.
    pub compression: Compression,
    /// `sst-initial-timeout`: how long the joiner waits for its donor.
    pub first_contact: Duration,
    /// `sst-idle-timeout`: how long the peer may be silent.
    pub stall: Duration,
    /// `flush-timeout`: how long the donor's server may take to block writes.
    pub flush: Duration,
    /// `incremental`: bytes that the joiner already has are not sent.
    pub incremental: bool,
    /// `remember-fingerprints`: what has not changed is not read in the next transfer.
    pub remember_fingerprints: bool,
    /// `delta`: if the joiner has another version of a page, only the parts that differ are sent.
    pub delta: Parts,
    /// `base`: a prepared backup, in which files missing from the datadir are searched for.
    pub base: Option<PathBuf>,
    /// `base-command`, `base-command-timeout`: a program that makes such a directory where the datadir has nothing to compare.
    pub base_command: Option<BaseCommand>,
    /// `ist`.
    pub ist: IstChoice,
    /// `archive`: the directory of this node's write-sets that its provider no longer has.
    pub archive: Option<PathBuf>,
    /// `snapshot`.
    pub snapshot: SnapshotChoice,
    /// `blocking`.
    pub blocking: Blocking,
    /// `consistency-point-timeout`: how long to wait for the consistency point.
    pub consistency_point: Duration,
    /// `redo-spill-dir`: where redo waits until the copy is complete; the datadir unless set.
    pub spill_dir: Option<PathBuf>,
    /// `redo-spill-max`: how many bytes of redo may wait there, if that is set.
    pub spill_max: Option<u64>,
    /// `allow-corrupt-pages`.
    pub allow_corrupt_pages: bool,
    /// `in-place`.
    pub in_place: InPlace,
    /// `keep-previous`.
    pub keep_previous: KeepPrevious,
    /// `allow-upgrade`.
    pub allow_upgrade: bool,
    /// `ssl-ca`, `ssl-capath`, `ssl-cert`, `ssl-key` (or `tca`, `tcapath`, `tcert`, `tkey`), and those of one role.
    pub certificates: RoleCertificates,
}

impl Settings {
    /// Reads the options. An invalid value is an error that names it.
    pub fn read(options: &ServerOptions) -> Result<Settings> {
        let snapshot = choice(options, "snapshot", choices::snapshot)?.unwrap_or(SnapshotChoice::Auto);
        let blocking = choice(options, "blocking", choices::blocking)?.unwrap_or(Blocking::Auto);
        if (snapshot, blocking) == (SnapshotChoice::Blocking, Blocking::Never) {
            let text = "snapshot=blocking and blocking=never under [sst] contradict each other";
            return Err(Failure::new(Kind::Configuration, text).hint("remove one of them").into());
        }
        Ok(Settings {
            threads: threads(options)?,
            readers: readers(options)?,
            rlimit: options.sst_size("rlimit")?,
            adaptive_throttle: options.sst_bool("adaptive-throttle")?.unwrap_or(true),
            max_time: options.sst_duration_s("max-time")?.filter(|s| *s > 0).map(Duration::from_secs),
            limits: TransferLimits::read(options)?,
            compression: choice(options, "compress", choices::compression)?.unwrap_or(Compression::Auto),
            first_contact: seconds(options, "sst-initial-timeout", 300)?,
            stall: seconds(options, "sst-idle-timeout", 120)?,
            flush: seconds(options, "flush-timeout", 600)?,
            incremental: options.sst_bool("incremental")?.unwrap_or(true),
            remember_fingerprints: options.sst_bool("remember-fingerprints")?.unwrap_or(true),
            delta: choice(options, "delta", choices::delta)?.unwrap_or(Parts::Auto),
            base: base(options),
            base_command: BaseCommand::read(options)?,
            ist: choice(options, "ist", choices::ist)?.unwrap_or(IstChoice::Auto),
            archive: archive(options),
            snapshot,
            blocking,
            consistency_point: seconds(options, "consistency-point-timeout", CONSISTENCY_POINT_TIMEOUT_S)?,
            spill_dir: options.sst("redo-spill-dir").filter(|dir| !dir.is_empty()).map(PathBuf::from),
            spill_max: options.sst_size("redo-spill-max")?,
            allow_corrupt_pages: options.sst_bool("allow-corrupt-pages")?.unwrap_or(false),
            in_place: choice(options, "in-place", choices::in_place)?.unwrap_or(InPlace::Auto),
            keep_previous: choice(options, "keep-previous", choices::keep_previous)?
                .unwrap_or(KeepPrevious::UntilSynced),
            allow_upgrade: options.sst_bool("allow-upgrade")?.unwrap_or(false),
            certificates: RoleCertificates {
                joiner: certificates(options, Side::Joiner)?,
                donor: certificates(options, Side::Donor)?,
            },
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

fn readers(options: &ServerOptions) -> Result<u16, Failure> {
    let threads = threads(options)?;
    Ok(if options.sst("threads").is_some() { threads } else { threads.max(READERS) })
}

impl Settings {
    /// Threads of a donor that read data files for a joiner with this round trip.
    pub fn readers_over(&self, round_trip: Duration) -> u16 {
        // If `threads` is set, it is the number of readers too; its default is below theirs.
        if self.readers <= self.threads {
            return self.readers;
        }
        let wanted = round_trip.as_secs_f64() * 1000.0 * READERS_PER_MILLISECOND;
        self.readers.max((wanted as u16).min(READERS_MAX))
    }
}

/// `base`, if it is set.
pub fn base(options: &ServerOptions) -> Option<PathBuf> {
    options.sst("base").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// `archive`, if it is set.
pub fn archive(options: &ServerOptions) -> Option<PathBuf> {
    options.sst("archive").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// `metrics-dir`, if it is set. A transfer that fails because of its other options is to be seen there too.
pub fn metrics_dir(options: &ServerOptions) -> Option<PathBuf> {
    options.sst("metrics-dir").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// 0 means no limit, as with the shell methods; we use a week.
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

/// A key of the role counts before the general one of the same name, as in the server's own scripts (MDEV-23744).
fn certificates(options: &ServerOptions, side: Side) -> Result<Option<OwnCertificates>, Failure> {
    let role = match side {
        Side::Joiner => "ssl-server",
        Side::Donor => "ssl-client",
    };
    let get = |what: &str, old: &str| {
        let names = [format!("{role}-{what}"), format!("ssl-{what}"), old.to_owned()];
        let set = names.iter().find_map(|name| options.sst(name).filter(|value| !value.is_empty()));
        set.map(PathBuf::from)
    };
    let ca: Vec<PathBuf> = [get("ca", "tca"), get("capath", "tcapath")].into_iter().flatten().collect();
    match (ca.is_empty(), get("cert", "tcert"), get("key", "tkey")) {
        (true, None, None) => Ok(None),
        (false, Some(cert), Some(key)) => Ok(Some(OwnCertificates { ca, cert, key })),
        _ => {
            let text = format!(
                "ssl-ca (or ssl-capath), ssl-cert and ssl-key under [sst] must be set together, also with what {role}-ca, \
                 {role}-capath, {role}-cert and {role}-key set for the {}",
                side.name()
            );
            Err(Failure::new(Kind::Configuration, text)
                .hint("without all three, the transfer is still encrypted and authenticated"))
        }
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
