//! One join of the node that was away, measured.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use rejoin_lab::compare;
use rejoin_lab::link::{Link, TransferPath};
use rejoin_lab::wire::Wire;

use super::fixture::Fixture;
use crate::commands::median;
use crate::commands::observed::Observed;

/// A method, and how it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// As it is without any setting.
    Rejoin,
    /// With `delta=page`: parts of pages.
    Parts,
    /// With `delta=off`: whole pages.
    Pages,
    /// With `delta=off` and `compress=on`: whole pages, all of them compressed.
    Compressed,
    /// With `delta=off` and `compress=off`: whole pages as they are.
    Plain,
    /// With `incremental=0`: everything.
    Full,
    /// As shipped with the server.
    Rsync,
    /// As shipped with the server.
    RsyncWan,
    /// As shipped with the server.
    Mariabackup,
}

impl Contender {
    /// Those that are compared where none are named.
    pub const USUAL: [Self; 7] =
        [Self::Rejoin, Self::Parts, Self::Pages, Self::Full, Self::Rsync, Self::RsyncWan, Self::Mariabackup];
    /// The choices of ours that an operator can fix.
    const FIXED: [Self; 5] = [Self::Parts, Self::Pages, Self::Compressed, Self::Plain, Self::Full];

    pub fn name(self) -> &'static str {
        match self {
            Self::Rejoin => "rejoin",
            Self::Parts => "rejoin, delta=page",
            Self::Pages => "rejoin, delta=off",
            Self::Compressed => "rejoin, delta=off, compress=on",
            Self::Plain => "rejoin, delta=off, compress=off",
            Self::Full => "rejoin, incremental=0",
            Self::Rsync => "rsync",
            Self::RsyncWan => "rsync_wan",
            Self::Mariabackup => "mariabackup",
        }
    }

    /// `wsrep_sst_method`, and what is set under `[sst]` of the donor.
    fn settings(self) -> (&'static str, [&'static str; 3]) {
        let none = ["incremental=1", "delta=auto", "compress=auto"];
        let whole_pages = |compress| ("rejoin", ["incremental=1", "delta=off", compress]);
        match self {
            Self::Rejoin => ("rejoin", none),
            Self::Parts => ("rejoin", ["incremental=1", "delta=page", "compress=auto"]),
            Self::Pages => whole_pages("compress=auto"),
            Self::Compressed => whole_pages("compress=on"),
            Self::Plain => whole_pages("compress=off"),
            Self::Full => ("rejoin", ["incremental=0", "delta=auto", "compress=auto"]),
            Self::Rsync => ("rsync", none),
            Self::RsyncWan => ("rsync_wan", none),
            Self::Mariabackup => ("mariabackup", none),
        }
    }
}

/// The head of the table that [`Trials::row`] fills, for transfers over a link or over loopback.
pub fn head(link: bool) -> String {
    let (column, below) = if link { (" link used [3] |", "---|") } else { ("", "") };
    format!(
        "| rows changed | method | start to Synced, s | transfer (SST), s [1] | MB on the network [2] |{column}\n\
         |---|---|---|---|---|{below}"
    )
}

/// What the figures mean.
pub fn notes(link: bool) -> String {
    let mut notes = "\
Each figure is the median of the method's turns.
[1] From the start of the joiner's program to what it tells its server; of mariabackup without its fixed sleeps.
[2] Both directions, as the kernel counts the connections of the transfer."
        .to_owned();
    if link {
        notes += "
[3] The mean rate of [2] over [1], of the link's. Never full: no packet had to wait for it, so its rate was no limit.";
    }
    notes
}

/// What a join took.
pub struct Trial {
    pub contender: Contender,
    observed: Observed,
    wire: u64,
    used: Option<LinkUse>,
}

/// What a join used of the link that it passed.
struct LinkUse {
    link: Link,
    /// How many times a packet waited because the link was full.
    times_full: u64,
}

impl Trial {
    /// Puts the joiner back, lets it join, compares it if that is asked for, and stops it.
    pub fn run(fixture: &Fixture, contender: Contender, loaded: bool, compare: bool) -> Result<Self> {
        let (method, lines) = contender.settings();
        let (donor, joiner) = (fixture.donor(), fixture.joiner());
        donor.add_options("sst", &lines)?;
        fixture.prepare(method)?;
        let clients = if loaded { Some(fixture.clients()?) } else { None };
        let times_full = || fixture.path().map(TransferPath::times_full).transpose();
        let (wire, before) = (Wire::of_transfers_to(joiner)?, times_full()?);
        let observed = Observed::join(donor, joiner, &[&format!("--wsrep-sst-method={method}")])?;
        let (wire, after) = (wire.stop()?, times_full()?);
        let times_full = before.zip(after).map(|(before, after)| after - before);
        let used = fixture
            .path()
            .zip(times_full)
            .map(|(path, times_full)| LinkUse { link: path.link(), times_full });
        if let Some(clients) = clients {
            ensure!(clients.stop()?.commits > 0, "nothing was written meanwhile");
        }
        observed.ran(method)?;
        if compare {
            compare::assert_equal(donor, joiner)?;
        }
        joiner.stop()?;
        Ok(Self { contender, observed, wire, used })
    }

    /// Seconds from the joiner's start to Synced.
    pub fn to_synced(&self) -> f64 {
        self.observed.took.as_secs_f64()
    }

    /// Bytes on the network.
    pub fn wire(&self) -> f64 {
        self.wire as f64
    }

    /// Seconds of the state transfer.
    pub fn transfer(&self) -> f64 {
        let asleep = self.observed.asleep().unwrap_or_default();
        self.observed.sst().map_or(f64::NAN, |sst| sst.saturating_sub(asleep).as_secs_f64())
    }
}

/// The joins of one contender, which took turns with those of the others.
pub struct Trials(pub Vec<Trial>);

impl Trials {
    /// A place for the joins of each contender.
    pub fn none_of(contenders: &[Contender]) -> Vec<Self> {
        contenders.iter().map(|_| Self(Vec::new())).collect()
    }

    pub fn median(&self, of: impl Fn(&Trial) -> f64) -> f64 {
        median(self.0.iter().map(of))
    }

    /// A line of the table.
    pub fn row(&self) -> String {
        let Some(first) = self.0.first() else { return String::new() };
        let (transfer, wire) = (self.median(Trial::transfer), self.median(Trial::wire));
        let mut row = format!(
            "{} | {:.1} | {transfer:.1} | {:.3} |",
            first.contender.name(),
            self.median(Trial::to_synced),
            wire / 1e6
        );
        if let Some(used) = &first.used {
            row += &used.cell(wire / transfer);
        }
        row
    }
}

/// The program's own choice by the best of those that were fixed, in seconds to Synced and of the transfer; nothing where either
/// was not tried.
pub fn own_choice(all: &[Trials]) -> Option<[f64; 2]> {
    let of = |contender: Contender| {
        all.iter().find(|trials| trials.0.first().is_some_and(|trial| trial.contender == contender))
    };
    let own = of(Contender::Rejoin)?;
    let by_best = |value: fn(&Trial) -> f64| {
        let fixed = Contender::FIXED.into_iter().filter_map(|fixed| Some(of(fixed)?.median(value)));
        Some(own.median(value) / fixed.min_by(f64::total_cmp)?)
    };
    Some([by_best(Trial::to_synced)?, by_best(Trial::transfer)?])
}

impl LinkUse {
    /// Of a transfer with this mean rate, in bytes a second.
    fn cell(&self, rate: f64) -> String {
        let percent = rate / self.link.rate as f64 * 100.0;
        let full = if self.times_full == 0 { ", never full" } else { "" };
        format!(" {percent:.0} %{full} |")
    }
}
