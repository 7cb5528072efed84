//! `lab redo-table`: what redo costs a state transfer, on the wire and in the joiner's recovery, beside rsync and mariabackup:
//! few tables and a large redo log, very many tables, a link of 1 Gbit/s, and a donor that writes more than may be sent.
//!
//! Each method finds the same: redo of that many bytes since the donor's last checkpoint, a joiner with a copy of the data that
//! was made before, and then changes of the case.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use rejoin_lab::Installation;

mod cases;
mod fixture;
mod limits;
mod measured;
mod writes;

use super::bench::machine;
use measured::{Measured, table};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Three rows were changed while the joiner was away.
    Rows,
    /// An empty joiner, and a donor that is written to meanwhile.
    Full,
    /// Many tables: an empty joiner, then one that misses writes to one table in a hundred.
    Tables,
    /// A part of all pages differs, at 1 Gbit/s.
    Link,
    /// A donor that is written to, and limits below and above the rate of its redo: first `rlimit`, then a link of that rate, with
    /// the other methods too.
    Limit,
}

/// A method, and the rights of its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// With `SUPER`.
    Rejoin,
    /// Without `SUPER`.
    NoSuper,
    /// As shipped with the server.
    Rsync,
    /// As shipped with the server.
    Mariabackup,
}

impl Method {
    const ALL: [Method; 4] = [Method::Rejoin, Method::NoSuper, Method::Rsync, Method::Mariabackup];

    fn title(self) -> &'static str {
        match self {
            Method::Rejoin => "rejoin",
            Method::NoSuper => "rejoin without SUPER",
            Method::Rsync => "rsync",
            Method::Mariabackup => "mariabackup",
        }
    }

    /// `wsrep_sst_method`.
    fn name(self) -> &'static str {
        match self {
            Method::Rejoin | Method::NoSuper => "rejoin",
            Method::Rsync => "rsync",
            Method::Mariabackup => "mariabackup",
        }
    }

    fn is_rejoin(self) -> bool {
        self.name() == "rejoin"
    }
}

/// The servers that the lab has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// The machine's own.
    System,
    /// MariaDB 11.8, unpacked beside it with its own mariabackup.
    #[value(name = "11.8")]
    Newer,
}

impl Series {
    fn installation(self) -> Result<Installation> {
        match self {
            Series::System => Installation::system(),
            Series::Newer => Installation::mariadb_11_8(),
        }
    }
}

/// Which cases, at which sizes.
#[derive(Args)]
pub struct Options {
    /// The cases; may be given again, separated by commas. All when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Case>,
    /// The methods, separated by commas; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    method: Vec<Method>,
    /// Servers.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "system")]
    series: Vec<Series>,
    /// Megabytes of the cases `rows` and `full`.
    #[arg(long, value_delimiter = ',', default_value = "2400")]
    megabytes: Vec<u64>,
    /// Megabytes of the redo log there.
    #[arg(long, default_value_t = 1024)]
    log: u64,
    /// Megabytes of redo since the last checkpoint when a transfer begins, in the cases `rows`, `full` and `link`.
    #[arg(long, default_value_t = 600)]
    redo: u64,
    /// Tables of the case `tables`.
    #[arg(long, default_value_t = 20_000)]
    tables: u32,
    /// Seconds for which their files have not been written when the joiner that has them receives its copy: a running donor remembers
    /// what is older than two minutes.
    #[arg(long, default_value_t = 0)]
    age: u64,
    /// Megabytes of the case `link`.
    #[arg(long, default_value_t = 1240)]
    link_megabytes: u64,
    /// Percent of its pages that differ.
    #[arg(long, default_value_t = 40)]
    differing: u32,
    /// Megabytes of the case `limit`.
    #[arg(long, default_value_t = 218)]
    limit_megabytes: u64,
    /// Megabytes of redo a second that its donor writes there; as many as it can when not given.
    #[arg(long)]
    writes: Option<f64>,
    /// Limits there, as parts of the rate of the redo.
    #[arg(long, value_delimiter = ',', default_value = "0.1,0.5,1,2")]
    limit: Vec<f64>,
    /// `max-time` there: seconds after which the programs end a transfer. The lab ends the other methods' later.
    #[arg(long, default_value_t = 1800)]
    patience: u64,
    /// A line for `[sst]` of both nodes; may be given again.
    #[arg(long)]
    sst: Vec<String>,
    /// Writes what was measured to this file too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keeps the data of the few tables that was made in this directory, for the next run with the same sizes and server.
    #[arg(long)]
    template: Option<PathBuf>,
    /// Joiners are not compared with their donors, row by row.
    #[arg(long)]
    unequal: bool,
}

impl Options {
    fn cases(&self) -> Vec<Case> {
        let all = [Case::Rows, Case::Full, Case::Tables, Case::Link, Case::Limit];
        if self.case.is_empty() { all.to_vec() } else { self.case.clone() }
    }

    fn methods(&self) -> Vec<Method> {
        if self.method.is_empty() { Method::ALL.to_vec() } else { self.method.clone() }
    }
}

/// Runs it. What was measured before a failure is shown and written as well.
pub fn run(options: &Options) -> Result<()> {
    println!("{}.\n", machine::line()?);
    let mut all = Vec::new();
    let result = measure(options, &mut all);
    println!("\n{}", table(&all));
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&all).context("as JSON")?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    result
}

fn measure(options: &Options, all: &mut Vec<Measured>) -> Result<()> {
    ensure!(options.limit.iter().chain(&options.writes).all(|part| *part > 0.0), "a limit must be above 0");
    for &series in &options.series {
        let wanted = options.cases();
        if wanted.iter().any(|case| matches!(case, Case::Rows | Case::Full)) {
            cases::few(options, series, &wanted, all)?;
        }
        for case in wanted {
            match case {
                // Both on the same donor.
                Case::Rows | Case::Full => Ok(()),
                Case::Tables => cases::tables(options, series, all),
                Case::Link => cases::link(options, series, all),
                Case::Limit => limits::limits(options, series, all),
            }
            .with_context(|| format!("the case {case:?} on {series:?}"))?;
        }
    }
    Ok(())
}
