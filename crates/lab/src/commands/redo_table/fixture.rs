//! Two nodes, and redo that waits on the first of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::wire::Wire;
use rejoin_lab::{Builder, Cluster, Node, Snapshot, compare, data, sql};

use super::measured::{Counted, Measured, Progressed};
use super::writes::{Writes, rewrite};
use super::{Method, Options, Series};
use crate::commands::observed::Observed;

pub const TABLES: u32 = 4;
/// Megabytes of sysbench tables; what is more is random bytes, which a server makes in a fraction of the time.
const ROWS_MEGABYTES: u64 = 400;
/// Rows that one statement rewrites.
const STEP: u32 = 20_000;
/// How much longer than `max-time` the lab waits.
const OVER_PATIENCE: Duration = Duration::from_secs(60);
/// What the account needs in any case, and what mariabackup needs beside it.
const ACCOUNT: &str =
    "GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* TO sst@localhost IDENTIFIED BY 'x'";

/// Nodes, and how the donor's account logs in.
pub fn builder(options: &Options, series: Series, log: u64) -> Result<Builder> {
    let lines = [
        "innodb_buffer_pool_size=1G".to_owned(),
        format!("innodb_log_file_size={log}M"),
        "innodb_flush_log_at_trx_commit=2".to_owned(),
        "wsrep_sst_auth=sst:x".to_owned(),
    ];
    let builder = Cluster::builder().nodes(2).installation(series.installation()?);
    let builder = lines.iter().fold(builder, |builder, line| builder.mysqld(line));
    let builder = builder.sst("wsrep-sst-auth=sst:x").provider("gcache.size", "128M");
    Ok(options.sst.iter().fold(builder, |builder, line| builder.sst(line)))
}

pub struct Fixture<'a> {
    cluster: Cluster,
    options: &'a Options,
    series: Series,
    pub rows: u32,
    /// Where the next statement that makes redo begins.
    next: std::cell::Cell<u32>,
}

impl<'a> Fixture<'a> {
    /// A donor that runs, with so many megabytes: in [`TABLES`] tables, or `filled` up with random bytes in one more.
    pub fn make(
        options: &'a Options,
        series: Series,
        cluster: Cluster,
        megabytes: u64,
        filled: bool,
    ) -> Result<Fixture<'a>> {
        let began = Instant::now();
        let rows = data::rows_of(if filled { megabytes.min(ROWS_MEGABYTES) } else { megabytes }, TABLES)?;
        let fixture = Fixture { cluster, options, series, rows, next: std::cell::Cell::new(1) };
        fixture.load_tables(megabytes, filled)?;
        fixture.donor().exec(&[ACCOUNT])?;
        println!("{megabytes} MB after {:.0} s", began.elapsed().as_secs_f64());
        Ok(fixture)
    }

    /// Makes the tables, or takes them from an earlier run.
    fn load_tables(&self, megabytes: u64, filled: bool) -> Result<()> {
        let donor = self.donor();
        let kept = self
            .options
            .template
            .as_ref()
            .map(|dir| dir.join(format!("{megabytes}-{filled}-{:?}", self.series)));
        if let Some(snapshot) = kept.as_deref().and_then(Snapshot::at) {
            donor.restore(&snapshot)?;
            donor.bootstrap()?;
            return Ok(());
        }
        donor.bootstrap()?;
        data::sysbench_tables(donor, TABLES, self.rows)?;
        if filled {
            data::filler(donor, "filler", megabytes.saturating_sub(ROWS_MEGABYTES))?;
        }
        if let Some(dir) = kept {
            donor.stop()?;
            donor.snapshot_to(&dir)?;
            donor.bootstrap()?;
        }
        Ok(())
    }

    pub fn donor(&self) -> &Node {
        self.cluster.node(1)
    }

    pub fn joiner(&self) -> &Node {
        self.cluster.node(2)
    }

    /// Rewrites rows of the donor alone until there is so much redo since its last checkpoint, or as much as its log lets wait.
    pub fn make_redo(&self, megabytes: u64) -> Result<()> {
        let mut conn = self.donor().connect()?;
        sql::exec(&mut conn, "SET SESSION wsrep_on=OFF")?;
        let most = u64::from(self.rows * TABLES / STEP).max(1);
        for _ in 0..most {
            if self.waits()? >= megabytes * 1_000_000 {
                break;
            }
            let at = self.next.get();
            self.next.set(at + 1);
            sql::exec(&mut conn, &rewrite(at, STEP, self.rows))?;
        }
        Ok(())
    }

    /// Bytes of redo since the donor's last checkpoint.
    pub fn waits(&self) -> Result<u64> {
        let number = |name: &str| -> Result<u64> { Ok(self.donor().status(name)?.parse()?) };
        Ok(number("Innodb_lsn_current")?.saturating_sub(number("Innodb_lsn_last_checkpoint")?))
    }

    /// Gives the joiner a copy of what the donor has, without a checkpoint, and stops it.
    pub fn give_copy(&self) -> Result<()> {
        self.account(Method::NoSuper)?;
        self.stop_joiner()?;
        self.joiner().join()?;
        self.donor().wait_synced_again(Duration::from_secs(120))?;
        self.joiner().wait_tidy()?;
        self.stop_joiner()
    }

    /// The joiner is down afterwards, and asks for everything at its next start.
    pub fn stop_joiner(&self) -> Result<()> {
        if self.joiner().is_alive() {
            self.joiner().stop()?;
        }
        self.joiner().remove_grastate()
    }

    /// Threads that write to the donor.
    pub fn load(&self, threads: u32, pause: Duration) -> Result<Writes> {
        let intensity = Intensity { threads, tables: TABLES, rows: self.rows, pause };
        Load::start(self.donor(), intensity).map(Writes::Load)
    }

    /// The account's rights, and the donor's method.
    pub fn account(&self, method: Method) -> Result<()> {
        let right = match method {
            Method::NoSuper => "REVOKE SUPER ON *.* FROM sst@localhost",
            _ => "GRANT SUPER ON *.* TO sst@localhost",
        };
        self.donor().exec(&[right, &format!("SET GLOBAL wsrep_sst_method='{}'", method.name())])
    }

    /// One transfer, measured; what `writes` meanwhile is stopped. That the operator's limit of time has ended it is a result.
    pub fn measure(&self, case: &str, method: Method, writes: Option<Writes>) -> Result<Measured> {
        self.account(method)?;
        let (donor, joiner) = (self.donor(), self.joiner());
        let redo_waited = self.waits()?;
        let (wire, progressed) = (Wire::of_transfers_to(joiner)?, Progressed::watch(donor, joiner)?);
        let (mark, began) = (donor.log_mark(), Instant::now());
        let join = Observed::join_within(
            donor,
            joiner,
            &[&format!("--wsrep-sst-method={}", method.name())],
            Duration::from_secs(self.options.patience) + OVER_PATIENCE,
        );
        let took = began.elapsed();
        let written = writes.map(Writes::stop).transpose()?;
        ensure!(written != Some(0), "nothing was written meanwhile");
        let counted = Counted { redo_waited, wire: wire.stop()?, percent: progressed.stop()? };
        let version = donor.installation().version();
        let measured = match join {
            Ok(observed) => {
                observed.ran(method.name())?;
                Measured::of(case, method, version, &counted, &observed)?
            }
            Err(error) => {
                donor.wait_synced_again(Duration::from_secs(60))?;
                let given_up = took >= Duration::from_secs(self.options.patience);
                let log = donor.log_since(mark);
                Measured::broken(case, method, version, &counted, (took, given_up), &log)
                    .with_context(|| format!("{case}, {}: {error:#}", method.title()))?
            }
        };
        println!("{}", measured.line());
        if measured.ended && method.is_rejoin() && !self.options.unequal {
            compare::assert_equal(donor, joiner).with_context(|| case.to_owned())?;
        }
        self.stop_joiner()?;
        Ok(measured)
    }

    /// The methods to be measured here.
    pub fn methods(&self) -> Vec<Method> {
        self.options.methods()
    }
}
