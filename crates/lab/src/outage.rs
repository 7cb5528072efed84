//! Nodes that are away until no provider's cache reaches back to them, and come back by the first node's archive.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::archiver::Archiver;
use crate::ddl::{Repertoire, Storm, create_shared, write_swapped};
use crate::errorlog::LogMark;
use crate::failed_ddl::{APPLIER_ERROR, FailedDdl};
use crate::load::{Intensity, Load};
use crate::repeated::Repeated;
use crate::{Builder, Cluster, Node, compare, data, process, sql};

/// So few rows that two writers cannot but meet.
pub const FEW: Intensity = Intensity { threads: 3, tables: 1, rows: 40, pause: Duration::ZERO };
/// So little that the small cache holds all of a slow machine's join.
pub const CALM: Intensity = Intensity { threads: 2, pause: Duration::from_millis(50), ..FEW };
/// So many write-sets are in no provider's cache, at least.
pub const FAR: i64 = 1000;

/// Time from one DDL statement of a node to its next.
const DDL_EVERY: Duration = Duration::from_millis(100);
/// Time between two of what a test does besides, while both nodes write.
const EACH_EVERY: Duration = Duration::from_secs(2);
/// How long it may take until no cache reaches back.
const BEYOND_WITHIN: Duration = Duration::from_secs(240);

/// Two nodes that write, and nodes that go away, all with small caches. The first has an archive and is the others' donor; their
/// IST can pass through our program.
pub fn builder(away: usize) -> Builder {
    let builder = Cluster::builder()
        .nodes(2 + away)
        .provider("gcache.size", "2M")
        // It stays primary when a joiner is killed.
        .provider_of(1, "pc.weight", "5")
        .sst_of(1, "ist=always");
    (3..=2 + away).fold(builder, |builder, n| {
        builder
            .provider_of(n, "ist.recv_addr", &format!("127.0.0.{}", n - 1))
            .provider_of(n, "ist.recv_bind", "127.0.0.1")
            .mysqld_of(n, "wsrep_sst_donor=n1")
    })
}

/// An authority, and a certificate that it signed for all nodes, made by `openssl` in a directory that every server may read.
#[derive(Debug)]
pub struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    /// `version` of X.509: 3, or 1 as old recipes make it.
    ///
    /// # Errors
    /// There is no `openssl`.
    pub fn make(version: u8) -> Result<Certificates> {
        let dir = tempfile::tempdir()?;
        let openssl = |args: &[&str]| -> Result<()> {
            let mut command = Command::new("openssl");
            command.current_dir(dir.path()).args(args);
            process::run(command, Duration::from_secs(60)).map(drop)
        };
        let new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj"];
        let ca = ["/CN=lab authority", "-x509", "-days", "9", "-keyout", "ca.key", "-out", "ca.pem"];
        openssl(&[&new[..], &ca].concat())?;
        openssl(&[&new[..], &["/CN=lab node", "-keyout", "key.pem", "-out", "node.csr"]].concat())?;
        std::fs::write(dir.path().join("v3.ext"), "basicConstraints=CA:FALSE\n")?;
        let sign = ["x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "9"];
        let extended: &[&str] = if version == 3 { &["-extfile", "v3.ext"] } else { &[] };
        openssl(&[&sign[..], &["-set_serial", "1", "-out", "cert.pem"], extended].concat())?;
        let readable = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
        };
        readable(dir.path(), 0o755)?;
        readable(&dir.path().join("key.pem"), 0o644)?;
        Ok(Certificates { dir })
    }

    /// One of `ca.pem`, `cert.pem`, `key.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The nodes encrypt their sockets with them.
    pub fn used_by(&self, builder: Builder) -> Builder {
        let file = |name: &str| self.file(name).display().to_string();
        builder
            .provider("socket.ssl_ca", &file("ca.pem"))
            .provider("socket.ssl_cert", &file("cert.pem"))
            .provider("socket.ssl_key", &file("key.pem"))
    }
}

/// A cluster some of whose nodes are away.
#[derive(Debug)]
pub struct Outage {
    /// Its first two nodes write.
    pub cluster: Cluster,
    /// Beside the first one.
    archiver: Option<Archiver>,
    /// Where the others are.
    pub position: i64,
    /// The end of each node's log when the others left.
    logs: Vec<LogMark>,
}

impl Outage {
    /// Starts all, and ends all but the first two.
    ///
    /// # Errors
    /// A node does not do as it is told.
    pub fn begin(cluster: Cluster) -> Result<Outage> {
        let n1 = cluster.node(1);
        n1.bootstrap()?;
        let archiver = Some(Archiver::start(n1)?);
        data::sysbench_tables(n1, FEW.tables, FEW.rows)?;
        create_shared(n1)?;
        cluster.nodes()[1..].iter().try_for_each(|node| node.join().map(drop))?;
        let mut outage = Outage { cluster, archiver, position: 0, logs: Vec::new() };
        outage.goes_on()?;
        Ok(outage)
    }

    /// Where the archive is.
    pub fn archive(&self) -> PathBuf {
        self.cluster.node(1).dir().join("data-archive")
    }

    /// Waits until what is in no cache any more is in the archive.
    ///
    /// # Errors
    /// That takes too long, or nothing is archived.
    pub fn wait_archived(&mut self) -> Result<()> {
        self.archiver.as_mut().context("no archiver")?.wait_for(self.position + FAR)
    }

    /// Waits until all that was written is in the archive. Both nodes write meanwhile: the newest hundred are not final.
    ///
    /// # Errors
    /// That takes too long, or nothing is archived.
    pub fn archive_everything(&mut self) -> Result<()> {
        let newest = self.cluster.node(1).status("wsrep_last_committed")?.parse()?;
        let loads = self.loads(FEW)?;
        self.archiver.as_mut().context("no archiver")?.wait_for(newest)?;
        loads.into_iter().try_for_each(|load| load.stop().map(drop))
    }

    /// Archives from now on.
    ///
    /// # Errors
    /// The archiver does not start.
    pub fn start_archiver(&mut self) -> Result<()> {
        let mut archiver = Archiver::start(self.cluster.node(1))?;
        archiver.wait_until_it_follows()?;
        self.archiver = Some(archiver);
        Ok(())
    }

    /// Archives no more.
    ///
    /// # Errors
    /// The archiver does not end well.
    pub fn stop_archiver(&mut self) -> Result<()> {
        self.archiver.take().map_or(Ok(()), Archiver::stop)
    }

    /// Those that came back leave again. Nobody may write meanwhile.
    ///
    /// # Errors
    /// One does not end.
    pub fn goes_on(&mut self) -> Result<()> {
        let mut last = 0;
        for node in self.away() {
            if node.is_alive() {
                node.stop()?;
            }
            last = last.max(node.grastate()?.seqno);
        }
        self.position = last;
        self.logs = self.cluster.nodes().iter().map(Node::log_mark).collect();
        Ok(())
    }

    /// The nodes that are away.
    pub fn away(&self) -> &[Node] {
        self.cluster.nodes().get(2..).unwrap_or_default()
    }

    /// Both others write to the same rows, and change tables, until no cache reaches back to those that are away by far and
    /// write-sets have failed certification. `each` is done again and again meanwhile.
    ///
    /// # Errors
    /// That takes too long.
    pub fn write_beyond(&self, storm_seed: Option<u64>, mut each: impl FnMut() -> Result<()>) -> Result<()> {
        let storms = storm_seed.map(|seed| self.storms(seed)).transpose()?;
        let loads = self.loads(FEW)?;
        let (n1, n2) = (self.cluster.node(1), self.cluster.node(2));
        let failures =
            |node: &Node| Ok::<i64, anyhow::Error>(node.status("wsrep_local_cert_failures")?.parse()?);
        let (before, deadline) = (failures(n1)? + failures(n2)?, Instant::now() + BEYOND_WITHIN);
        let mut next = Instant::now();
        while n1.cached_downto()?.min(n2.cached_downto()?) <= self.position + FAR
            || failures(n1)? + failures(n2)? == before
        {
            let what = "the cache still reaches back, or nothing failed certification";
            ensure!(Instant::now() < deadline, "{what}");
            if Instant::now() >= next {
                each()?;
                next = Instant::now() + EACH_EVERY;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
        storms.into_iter().flatten().try_for_each(|storm| storm.stop().map(drop))
    }

    /// Both others write.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn loads(&self, intensity: Intensity) -> Result<[Load; 2]> {
        Ok([Load::start(self.cluster.node(1), intensity)?, Load::start(self.cluster.node(2), intensity)?])
    }

    /// Both others change tables, and write to those that swap their names.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn storms(&self, seed: u64) -> Result<Vec<Repeated>> {
        let mut all = Vec::new();
        for number in [1, 2] {
            let (node, seed) = (self.cluster.node(number), seed + number as u64);
            let repertoire = Repertoire::Shared { node: number };
            all.push(Storm { seed, every: DDL_EVERY, repertoire }.start(node)?);
            all.push(write_swapped(node, seed)?);
        }
        Ok(all)
    }

    /// A node came back by write-sets: both logs say so, and no file was sent.
    ///
    /// # Errors
    /// It did not.
    pub fn came_by_write_sets(&self, node: &Node, donor_since: LogMark) -> Result<()> {
        says(node, "plan: deep IST from")?;
        says(node, "deep IST: inserted the write-sets")?;
        ensure!(!node.log_since_start().contains("snapshot: "), "files were sent");
        let donor = self.cluster.node(1).log_since(donor_since);
        ensure!(donor.contains("and no file"), "{donor}");
        Ok(())
    }

    /// All nodes that run are equal, none has complained, and the same DDL has failed on all of them. Answers how many
    /// statements that were.
    ///
    /// # Errors
    /// They are not, one has, or a statement failed on some of them only.
    pub fn all_are_equal(&self) -> Result<usize> {
        self.every_object_is_equal()?;
        for node in self.running() {
            // Whether DDL failed on every node is looked at below.
            let errors = node.unexpected_errors(&[APPLIER_ERROR]);
            ensure!(errors.is_empty(), "{}: {errors:#?}", node.name());
            let inconsistent = node.log_since_start().contains("Inconsistency detected");
            ensure!(!inconsistent, "{} found one", node.name());
        }
        self.same_ddl_failed()
    }

    /// Every object is the same on all nodes that run.
    ///
    /// # Errors
    /// One is not.
    pub fn every_object_is_equal(&self) -> Result<()> {
        let running = self.running();
        let (first, others) = running.split_first().context("no node runs")?;
        others.iter().try_for_each(|node| compare::assert_equal(first, node))
    }

    fn running(&self) -> Vec<&Node> {
        self.cluster.nodes().iter().filter(|node| node.is_alive()).collect()
    }

    /// An error of an applier is right if the same statement failed on all nodes that executed it.
    fn same_ddl_failed(&self) -> Result<usize> {
        let first = FailedDdl::of(&self.cluster.node(1).log_since(self.log_when_they_left(0)));
        for (i, node) in self.cluster.nodes().iter().enumerate().filter(|(_, node)| node.is_alive()) {
            let is_member = i < 2;
            let log = match is_member {
                true => node.log_since(self.log_when_they_left(i)),
                false => node.log_since_start(),
            };
            let all = is_member || replayed_from(&log).is_some_and(|from| from <= self.position);
            let objection = first.objection(&FailedDdl::of(&log), all);
            ensure!(objection.is_none(), "n1 and {}: {}", node.name(), objection.unwrap_or_default());
        }
        Ok(first.count())
    }

    fn log_when_they_left(&self, node: usize) -> LogMark {
        self.logs.get(node).copied().unwrap_or_default()
    }
}

/// The position from which a node's server applied write-sets of an archive, by its log. None if files were sent.
pub fn replayed_from(log: &str) -> Option<i64> {
    let (_, plan) = log.rsplit_once("plan: deep IST from ").filter(|_| !log.contains("snapshot: "))?;
    plan.split_once(": ")?.0.rsplit_once(':')?.1.parse().ok()
}

/// A node's log since its start has this text.
///
/// # Errors
/// It has not.
pub fn says(node: &Node, text: &str) -> Result<()> {
    let log = node.log_since_start();
    ensure!(log.contains(text), "{} does not say {text:?}:\n{log}", node.name());
    Ok(())
}

/// What the cache of all nodes must be for [`large_transactions`]. A page that is deleted takes everything before it out of the
/// ring as well, before the archiver may take it; so pages are kept.
pub fn caches_for_large_transactions(builder: Builder) -> Builder {
    builder.provider("gcache.size", "4M").provider("gcache.keep_pages_size", "1G")
}

/// Transactions that are too large for the ring of the cache, so that they lie in pages, and one in fragments (streaming
/// replication). The fragments are small: the provider holds the newest hundred write-sets, and if these fill the ring, it
/// overwrites each as soon as it releases it, which no archiver is fast enough for.
///
/// # Errors
/// A statement fails for another reason than a conflict.
pub fn large_transactions(node: &Node) -> Result<()> {
    let mut conn = node.connect()?;
    let fill = |rows: u32| {
        format!("INSERT INTO sbtest.large (pad) SELECT REPEAT(MD5(RAND()), 3000) FROM sbtest.seq_1_to_{rows}")
    };
    for statement in [
        "CREATE TABLE IF NOT EXISTS sbtest.large (id INT AUTO_INCREMENT PRIMARY KEY, pad LONGTEXT)",
        &fill(25),
        "SET SESSION wsrep_trx_fragment_unit='bytes'",
        "SET SESSION wsrep_trx_fragment_size=20000",
        "BEGIN",
        &fill(1),
        &fill(1),
        "COMMIT",
        "SET SESSION wsrep_trx_fragment_size=0",
        "DELETE FROM sbtest.large ORDER BY id LIMIT 27",
    ] {
        if let Err(error) = sql::exec(&mut conn, statement) {
            let text = format!("{error:#}");
            // DDL of the storm, or another transaction, was first.
            ensure!(text.contains("1213") || text.contains("1205"), "{text}");
            let _ = sql::exec(&mut conn, "ROLLBACK");
        }
    }
    Ok(())
}
