//! `lab outages`: nodes that were away until no provider's cache reached back to them return by an archive of write-sets, while
//! two others write and change tables. Are they equal?

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use fastrand::Rng;
use rejoin_lab::outage::{
    CALM, Certificates, Outage, builder, caches_for_large_transactions, large_transactions,
};
use rejoin_lab::{Builder, Installation};

/// What is particular about a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Case {
    /// One node is away.
    Plain,
    /// Sockets are encrypted, and a node that returns has the authority's certificate too.
    Tls,
    /// Sockets are encrypted where both ends can (`socket.dynamic`).
    Dynamic,
    /// Transactions that are too large for the ring, and others in fragments.
    Large,
    /// The donor is restarted meanwhile.
    Restart,
    /// Two nodes are away, and return one after the other.
    Two,
    /// All of it on MariaDB 11.8.
    Everything,
}

impl Case {
    const ALL: [Self; 7] =
        [Self::Plain, Self::Tls, Self::Dynamic, Self::Large, Self::Restart, Self::Two, Self::Everything];

    fn has(self, what: Self) -> bool {
        self == what || self == Self::Everything && !matches!(what, Self::Plain | Self::Dynamic)
    }
}

/// What to run.
#[derive(Args)]
pub struct Options {
    /// How many outages; the cases take turns.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// What is particular about them; may be given again, separated by commas. All when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Case>,
    /// Decides what DDL runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let cases = if options.case.is_empty() { Case::ALL.to_vec() } else { options.case.clone() };
    let mut rng = Rng::with_seed(options.seed);
    let (mut equal, mut wrong) = (0, Vec::new());
    for (i, case) in cases.iter().copied().enumerate() {
        let share = options.rounds / cases.len() + usize::from(i < options.rounds % cases.len());
        let mut fixture: Option<Fixture> = None;
        for _ in 0..share {
            let began = Instant::now();
            let round = equal + wrong.len() + 1;
            let outcome = match fixture.take().map_or_else(|| Fixture::make(case), Ok) {
                Ok(mut made) => made.round(rng.u64(..)).map(|told| (made, told)),
                Err(error) => Err(error.context("a cluster")),
            };
            let seconds = began.elapsed().as_secs_f64();
            match outcome {
                Ok((made, told)) => {
                    say(&format!("{round:3} {case:?}: {told}; equal, {seconds:.0} s"))?;
                    fixture = Some(made);
                    equal += 1;
                }
                Err(error) => {
                    say(&format!("{round:3} {case:?}: WRONG after {seconds:.0} s: {error:#}"))?;
                    wrong.push(round);
                }
            }
        }
    }
    say(&format!("{} rounds, {equal} equal, {} wrong", options.rounds, wrong.len()))?;
    match wrong.is_empty() {
        true => Ok(()),
        false => bail!("wrong rounds: {wrong:?}"),
    }
}

/// At once, so that a run can be followed in a file.
fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush().context("stdout")
}

/// A cluster for the rounds of a case.
struct Fixture {
    case: Case,
    outage: Outage,
    _certificates: Option<Certificates>,
}

impl Fixture {
    fn make(case: Case) -> Result<Fixture> {
        let mut cluster: Builder = builder(if case.has(Case::Two) { 2 } else { 1 });
        let certificates = (case.has(Case::Tls) || case == Case::Dynamic).then(|| Certificates::make(3));
        let certificates = certificates.transpose()?;
        if let Some(certificates) = &certificates {
            cluster = certificates.used_by(cluster);
        }
        if case == Case::Dynamic {
            cluster = cluster.provider("socket.dynamic", "yes");
        }
        if case.has(Case::Large) {
            cluster = caches_for_large_transactions(cluster);
        }
        if case == Case::Everything {
            cluster = cluster.installation(Installation::mariadb_11_8()?);
        }
        let outage = Outage::begin(cluster.build()?)?;
        Ok(Fixture { case, outage, _certificates: certificates })
    }

    /// One outage, from the end of those that are away to their return.
    fn round(&mut self, seed: u64) -> Result<String> {
        let (case, seed) = (self.case, seed % 1_000_000);
        self.outage.goes_on()?;
        let n1 = self.outage.cluster.node(1);
        let large = || if case.has(Case::Large) { large_transactions(n1) } else { Ok(()) };
        self.outage.write_beyond(Some(seed), large)?;
        if case.has(Case::Restart) {
            // A server that ends deletes its pages, and what is in them and not yet final is lost to the archive.
            self.outage.archive_everything()?;
            let n1 = self.outage.cluster.node(1);
            n1.stop()?;
            n1.join().context("the donor comes back")?;
            let large = || if case.has(Case::Large) { large_transactions(n1) } else { Ok(()) };
            self.outage.write_beyond(None, large).context("after the donor came back")?;
        }
        let position = self.outage.position;
        self.outage.wait_archived()?;
        let (loads, storms) = (self.outage.loads(CALM)?, self.outage.storms(seed + 10)?);
        let mut took = Duration::ZERO;
        let n1 = self.outage.cluster.node(1);
        for node in self.outage.away() {
            let mark = n1.log_mark();
            took += node.join().with_context(|| format!("{} comes back", node.name()))?;
            self.outage.came_by_write_sets(node, mark)?;
        }
        storms.into_iter().try_for_each(|storm| storm.stop().map(drop))?;
        loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
        let missed = n1.status("wsrep_last_committed")?.parse::<i64>()? - position;
        let failed = self.outage.all_are_equal()?;
        let seconds = took.as_secs_f64();
        Ok(format!(
            "{missed} write-sets missed, {seconds:.1} s to Synced, {failed} DDL statements failed alike"
        ))
    }
}
