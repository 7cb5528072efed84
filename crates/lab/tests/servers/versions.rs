//! MariaDB 11.8: a pair of it, and beside 10.11 as docs/policy.md says.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::{Cluster, Installation, Node, compare, data, places, process, sample_schema, sst};

/// Wrong, so that nothing but what the server hands over lets the donor's program in.
const NO_ACCOUNT: &str = "wsrep-sst-auth=nobody:wrong";

#[test]
fn a_pair_of_11_8_joins_under_load_with_the_account_its_server_made() -> Result<()> {
    let newer = Installation::mariadb_11_8()?;
    let cluster = Cluster::builder()
        .installation(newer)
        .sst_of(1, NO_ACCOUNT)
        .mysqld_of(1, "general_log=ON")
        .mysqld_of(1, "general_log_file={dir}/general.log")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    ensure!(n1.value("SELECT VERSION()")?.starts_with("11.8."), "{}", n1.installation().version());
    sample_schema::create(n1)?;
    data::sysbench_tables(n1, 2, 5000)?;
    n2.wipe()?;
    let load =
        Load::start(n1, Intensity { threads: 2, tables: 2, rows: 5000, pause: Duration::from_millis(2) })?;
    let joined = n2.join();
    let load = load.stop()?;
    joined?;
    ensure!(load.commits > 0, "{load:?}");
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)?;
    sst::assert_not_behind(n1, n2)?;
    assert_eq!(n2.unexpected_errors(&[]), Vec::<String>::new());
    n2.wait_tidy()?;
    assert_eq!(n2.sst_processes(), []);
    // Each side learned what it runs on.
    for node in [n1, n2] {
        let log = node.log_since_start();
        ensure!(
            !log.contains("versions could not be compared"),
            "{} does not know its server's",
            node.name()
        );
    }
    n2.stop()?;
    ensure!(n2.innochecksum()? > 20, "tablespaces were checked");
    handed_over_account(n1, n2)?;
    compare::assert_equal(n1, n2)
}

/// The online snapshot logs in, and has nothing else to log in with.
fn handed_over_account(n1: &Node, n2: &Node) -> Result<()> {
    n2.wipe()?;
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    sst::assert_snapshot(n2, "online")?;
    let sessions = std::fs::read_to_string(n1.dir().join("general.log")).context("general log")?;
    let handed_over = |line: &str| line.contains("Connect") && line.contains("wsrep.sst.");
    ensure!(sessions.lines().any(handed_over), "the account on standard input was not used");
    let left = "SELECT COUNT(*) FROM mysql.global_priv WHERE User LIKE 'wsrep.sst.%'";
    assert_eq!((n1.value(left)?, n2.value(left)?), ("0".to_owned(), "0".to_owned()));
    Ok(())
}

/// An operator's settings may permit no method but the server's own: the program answers to that name too.
#[test]
fn under_the_name_of_rsync() -> Result<()> {
    named_rsync(Installation::system()?)
}

#[test]
fn under_the_name_of_rsync_with_11_8() -> Result<()> {
    named_rsync(Installation::mariadb_11_8()?)
}

fn named_rsync(installation: Installation) -> Result<()> {
    let cluster = Cluster::builder()
        .installation(installation)
        .method("rsync")
        .binary(places::rejoin_binary()?)
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    // Where the server looks first; the script of that name is behind it in PATH, or was here.
    let name = cluster.program_dir().join("wsrep_sst_rsync");
    let _ = std::fs::remove_file(&name);
    std::os::unix::fs::symlink("rejoin", &name)?;
    n1.bootstrap()?;
    data::sysbench_tables(n1, 2, 2000)?;
    n2.join()?;
    compare::wait_caught_up(n1, n2, Duration::from_secs(20))?;
    n2.stop()?;
    n1.exec(&["UPDATE sbtest.sbtest1 SET k=k+1 WHERE id < 10"])?;
    n2.remove_grastate()?;
    n2.join()?;
    n1.wait_synced_again(Duration::from_secs(20))?;
    compare::assert_equal(n1, n2)?;
    sst::assert_snapshot(n2, "online")?;
    let log = n2.log_since_start();
    ensure!(log.contains("wsrep_sst_rsync --role 'joiner'"), "{}", process::tail(&log, 40));
    ensure!(
        log.contains("plan: incremental"),
        "it was not ours, or sent everything:\n{}",
        process::tail(&log, 40)
    );
    assert_eq!(n2.unexpected_errors(&[]), Vec::<String>::new());
    n2.wait_tidy()?;
    assert_eq!(n2.sst_processes(), []);
    Ok(())
}

#[test]
fn a_newer_joiner_is_refused_until_allowed() -> Result<()> {
    // With snapshot=auto it would get rows (tests/logical.rs).
    let builder = Cluster::builder().installation_of(2, Installation::mariadb_11_8()?);
    let cluster = builder.sst_of(1, "snapshot=blocking").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    let upgrade = "to upgrade this node by a state transfer set allow-upgrade=1 under [sst] on it and run mariadb-upgrade";
    refused(n1, n2, "the joiner's server is of a newer major version: donor 10.11.", upgrade)?;
    n2.add_options("sst", &["allow-upgrade=1"])?;
    n2.join()?;
    // No redo of the older series is left to a newer server.
    sst::assert_snapshot(n2, "blocking (snapshot=blocking is set on the donor")?;
    let log = n2.log_since_start();
    ensure!(
        log.contains("upgrade by state transfer: donor 10.11."),
        "no warning:\n{}",
        process::tail(&log, 40)
    );
    assert_eq!(n2.value("SELECT COUNT(*) FROM sbtest.sbtest1")?, "500");
    n1.exec(&["INSERT INTO sbtest.sbtest1 (k) VALUES (1)"])?;
    n2.exec(&["SET SESSION wsrep_sync_wait=1", "UPDATE sbtest.sbtest1 SET k=k+1"])?;
    assert_eq!(n2.value("SELECT COUNT(*) FROM sbtest.sbtest1")?, "501");
    Ok(())
}

#[test]
fn an_older_joiner_is_refused_always() -> Result<()> {
    let cluster = Cluster::builder()
        .installation_of(1, Installation::mariadb_11_8()?)
        .sst_of(1, "snapshot=online")
        .sst_of(2, "allow-upgrade=1")
        .build()?;
    let words = "the joiner's server is of an older major version: donor 11.8.";
    refused(cluster.node(1), cluster.node(2), words, "install 11.8 or newer on the joiner")
}

/// The joiner ends, both logs say why in the same words, its files are as they were, and the donor serves.
fn refused(donor: &Node, joiner: &Node, words: &str, hint: &str) -> Result<()> {
    donor.bootstrap()?;
    data::sysbench_tables(donor, 1, 500)?;
    let (before, mark) = (joiner.files()?, donor.log_mark());
    ensure!(before.len() > 50, "the joiner has a datadir");
    let log = joiner.fail_to_join()?;
    donor.wait_synced_again(Duration::from_secs(20))?;
    let said = |log: &str| {
        let line = log.lines().find(|l| l.contains("[ERROR]") && l.contains(words) && l.contains(hint));
        line.map(str::to_owned).with_context(|| process::tail(log, 30))
    };
    let (on_donor, on_joiner) = (said(&donor.log_since(mark))?, said(&log)?);
    let sentence =
        |line: &str| line.find(words).map(|at| line[at..].split(" (").next().unwrap_or("").to_owned());
    assert_eq!(sentence(&on_donor), sentence(&on_joiner), "the same words");
    assert_eq!(joiner.files()?, before, "something was touched");
    donor.exec(&["UPDATE sbtest.sbtest1 SET k=k+1"])
}
