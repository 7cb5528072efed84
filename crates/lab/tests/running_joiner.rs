//! `wsrep_sst_method=mysqldump` with rejoin in the place of the server's script: a server that runs already gets the donor's data.
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::outage::Certificates;
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Builder, Cluster, Installation, Node, compare, data, process, sample_schema};

/// Of the account with which the donor enters the joiner.
const PASSWORD: &str = "Open.Sesame-7";
const SOON: Duration = Duration::from_secs(20);

fn builder() -> Builder {
    Cluster::builder()
        .in_place_of("mysqldump")
        .mysqld(&format!("wsrep_sst_auth=copier:{PASSWORD}"))
        // The port for clients, not the one of other methods.
        .mysqld("wsrep_sst_receive_address=AUTO")
}

/// The account of `wsrep_sst_auth`, at each of the ways in which a program logs in.
fn let_in(node: &Node, password: &str, rights: &str) -> Result<()> {
    for host in ["localhost", "%"] {
        node.exec(&[
            &format!("CREATE USER copier@'{host}' IDENTIFIED BY '{password}'"),
            &format!("GRANT {rights} ON *.* TO copier@'{host}'"),
        ])?;
    }
    Ok(())
}

/// Starts a server that is a group by itself, with data of its own. (One that is in no group at all hangs in the statement that
/// tells it to join: 10.11.19 waits for its own disconnection then.)
fn stand_alone(node: &Node) -> Result<()> {
    node.bootstrap()?;
    node.exec(&[
        "CREATE DATABASE IF NOT EXISTS old_shop",
        "CREATE OR REPLACE TABLE old_shop.goods (a INT PRIMARY KEY, b TEXT)",
        "INSERT INTO old_shop.goods VALUES (1, 'old')",
        "CREATE OR REPLACE VIEW old_shop.seen AS SELECT * FROM old_shop.goods",
        "CREATE OR REPLACE TRIGGER old_shop.tr BEFORE INSERT ON old_shop.goods FOR EACH ROW SET NEW.b = 'x'",
        "CREATE OR REPLACE TABLE mysql.of_old (a INT)",
        "CREATE OR REPLACE USER gone_with_it@localhost",
    ])
}

/// Tells a running server to join.
fn told_to_join(node: &Node, donor: &Node) -> Result<()> {
    let address = format!("gcomm://127.0.0.1:{}", donor.ports().group());
    node.exec(&[&format!("SET GLOBAL wsrep_cluster_address='{address}'")])
}

/// The server is a group by itself once more: what its provider noted of the failed transfer forbids that.
fn starts_again(node: &Node) -> Result<()> {
    node.remove_grastate()?;
    node.bootstrap().map(drop)
}

/// Waits until the node is Synced, and not with itself alone.
fn joined(node: &Node, donor: &Node) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(150);
    while !(node.is_synced() && node.status("wsrep_cluster_size")? == "2") {
        let logs = || [donor, node].map(|node| process::tail(&node.log_text(), 120)).join("\n----\n");
        ensure!(Instant::now() < until && node.is_alive(), "not joined:\n{}", logs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn old_data_is_there(node: &Node) -> Result<()> {
    let shown = node.rows("SET STATEMENT wsrep_sync_wait=0 FOR SHOW DATABASES")?.concat();
    ensure!(shown.iter().any(|name| name == "old_shop"), "{shown:?}");
    ensure!(!shown.iter().any(|name| name.starts_with("#rejoin")), "{shown:?}");
    Ok(())
}

/// What must be true of a joiner that has everything.
fn has_all(n1: &Node, n2: &Node) -> Result<()> {
    n1.wait_synced_again(SOON)?;
    compare::assert_equal_with_history(n1, n2)?;
    let shown = n2.rows("SHOW DATABASES")?.concat();
    ensure!(!shown.iter().any(|name| name == "old_shop" || name.starts_with("#rejoin")), "{shown:?}");
    assert_eq!(n2.value("SELECT COUNT(*) FROM mysql.global_priv WHERE user='gone_with_it'")?, "0");
    assert_eq!(n2.value("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_NAME='of_old'")?, "0");
    // Write-sets go both ways.
    n2.exec(&["INSERT INTO zoo.parent VALUES (200001)"])?;
    n1.exec(&["INSERT INTO zoo.parent VALUES (200002)"])?;
    compare::wait_caught_up(n1, n2, SOON)?;
    compare::assert_equal_with_history(n1, n2)?;
    for node in [n1, n2] {
        ensure!(!node.log_text().contains(PASSWORD), "the password is in the log of {}", node.name());
    }
    Ok(())
}

/// Everything that a donor may have, for a server that runs.
fn fill(n1: &Node) -> Result<()> {
    let_in(n1, PASSWORD, "ALL PRIVILEGES")?;
    sample_schema::create(n1)?;
    sample_schema::add_values(n1)?;
    n1.exec(&[
        "CREATE DATABASE zoo_far",
        "CREATE TABLE zoo_far.child (a INT PRIMARY KEY, b INT, CONSTRAINT far FOREIGN KEY (b) REFERENCES zoo.parent (a))",
        "INSERT INTO zoo_far.child VALUES (1, NULL)",
        "CREATE TABLE zoo.held (a INT PRIMARY KEY)",
        "ALTER TABLE zoo.held DISCARD TABLESPACE",
    ])
}

fn gets_everything_while_the_donor_writes(n1: &Node, n2: &Node) -> Result<()> {
    n1.bootstrap()?;
    fill(n1)?;
    data::sysbench_tables(n1, 2, 20000)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, "ALL PRIVILEGES")?;
    let load =
        Load::start(n1, Intensity { threads: 2, tables: 2, rows: 20000, pause: Duration::from_millis(2) })?;
    told_to_join(n2, n1)?;
    let joined = joined(n2, n1);
    let load = load.stop()?;
    joined?;
    ensure!(load.commits > 0, "{load:?}");
    has_all(n1, n2)
}

#[test]
fn a_running_server_gets_the_zoo_while_the_donor_writes() -> Result<()> {
    let cluster = builder().mysqld_of(2, "event_scheduler=ON").mysqld("log_bin=bin").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    gets_everything_while_the_donor_writes(n1, n2)?;
    assert_eq!(n2.value("SELECT @@event_scheduler")?, "ON");
    for node in [n1, n2] {
        assert_ne!(node.value("SELECT @@GLOBAL.gtid_binlog_state")?, "", "{}", node.name());
    }
    let log = n1.log_text();
    ensure!(log.contains("without TLS: it offers none"), "{}", process::tail(&log, 40));
    // What a server says of a table without its tablespace.
    assert_eq!(n1.unexpected_errors(&["Got error 194 when reading table"]), Vec::<String>::new());
    Ok(())
}

/// The method is configured, and the server starts as a member. What it is told goes through TLS.
#[test]
fn a_server_that_starts_with_the_method_joins_through_tls() -> Result<()> {
    let certificates = Certificates::make(3)?;
    let file = |name: &str| certificates.file(name).display().to_string();
    let cluster = builder()
        .mysqld_of(2, &format!("ssl_ca={}", file("ca.pem")))
        .mysqld_of(2, &format!("ssl_cert={}", file("cert.pem")))
        .mysqld_of(2, &format!("ssl_key={}", file("key.pem")))
        .sst_of(1, &format!("ssl-ca={}", file("ca.pem")))
        .sst_of(1, &format!("ssl-cert={}", file("cert.pem")))
        .sst_of(1, &format!("ssl-key={}", file("key.pem")))
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    fill(n1)?;
    // Its account is there before it knows a group.
    n2.bootstrap()?;
    let_in(n2, PASSWORD, "ALL PRIVILEGES")?;
    n2.stop()?;
    n2.join().map_err(|e| e.context(process::tail(&n1.log_text(), 40)))?;
    has_all(n1, n2)?;
    let log = n1.log_text();
    ensure!(log.contains("with TLS"), "{}", process::tail(&log, 40));
    // A short outage is over with IST: the program is told to give no data.
    n2.stop()?;
    n1.exec(&["INSERT INTO zoo.parent VALUES (200003)"])?;
    let mark = n1.log_mark();
    n2.join().map_err(|e| e.context(process::tail(&n1.log_text(), 40)))?;
    compare::wait_caught_up(n1, n2, SOON)?;
    ensure!(n1.log_since(mark).contains("no data is sent"), "{}", process::tail(&n1.log_since(mark), 40));
    compare::assert_equal_with_history(n1, n2)
}

#[test]
fn a_server_of_11_8_gets_the_zoo_from_its_like() -> Result<()> {
    let newer = Installation::mariadb_11_8()?;
    let cluster = builder().installation(newer).build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    gets_everything_while_the_donor_writes(n1, n2)
}

/// A joiner that cannot be given the state ends, because the group has none for it. Its old data is there when it starts again.
fn fails_and_keeps_its_data(n1: &Node, n2: &Node, why: &str) -> Result<()> {
    told_to_join(n2, n1)?;
    let ended = n2.wait_exit(Duration::from_secs(45)).is_some();
    let log = n1.log_text();
    ensure!(log.contains(why), "no {why:?}:\n{}", process::tail(&log, 40));
    ensure!(!log.contains(PASSWORD), "the password is in the log");
    n1.wait_synced_again(SOON)?;
    assert_eq!(n1.sst_processes(), []);
    n1.exec(&["CREATE OR REPLACE TABLE test.free (a INT PRIMARY KEY)", "INSERT INTO test.free VALUES (1)"])?;
    ensure!(ended, "the joiner goes on:\n{}", process::tail(&n2.log_since_start(), 30));
    starts_again(n2)?;
    old_data_is_there(n2)
}

#[test]
fn a_wrong_password_and_too_few_rights_are_named() -> Result<()> {
    let cluster = builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, "ALL PRIVILEGES")?;
    n1.exec(&["CREATE DATABASE IF NOT EXISTS test"])?;
    stand_alone(n2)?;
    let_in(n2, "Another-1", "SELECT")?;
    fails_and_keeps_its_data(n1, n2, "Access denied for user 'copier'@'127.0.0.1'")?;
    for host in ["localhost", "%"] {
        n2.exec(&[
            &format!("ALTER USER copier@'{host}' IDENTIFIED BY '{PASSWORD}'"),
            &format!("GRANT SUPER ON *.* TO copier@'{host}'"),
        ])?;
    }
    fails_and_keeps_its_data(
        n1,
        n2,
        "GRANT INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, RELOAD, FILE ON *.* TO `copier`@`%`;",
    )
}

#[test]
fn what_a_joiners_server_refuses_is_named() -> Result<()> {
    let cluster = builder().mysqld_of(2, "innodb_page_size=4k").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    let_in(n1, PASSWORD, "ALL PRIVILEGES")?;
    n1.exec(&[
        "CREATE DATABASE IF NOT EXISTS test",
        "CREATE DATABASE wide",
        "CREATE TABLE wide.early (a INT PRIMARY KEY)",
        "CREATE TABLE wide.rows (a INT PRIMARY KEY, b CHAR(255), c CHAR(255), d CHAR(255), e CHAR(255), f CHAR(255), g CHAR(255), \
         h CHAR(255), i CHAR(255), j CHAR(255), k CHAR(255), l CHAR(255)) CHARACTER SET latin1 ROW_FORMAT=REDUNDANT",
    ])?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, "ALL PRIVILEGES")?;
    fails_and_keeps_its_data(n1, n2, "does not take wide.rows: Row size too large")
}

/// The joiner's server is killed while rows arrive.
#[test]
fn a_joiner_that_dies_in_the_middle_is_no_harm() -> Result<()> {
    let cluster = builder().build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    fill(n1)?;
    data::sysbench_tables(n1, 2, 40_000)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, "ALL PRIVILEGES")?;
    told_to_join(n2, n1)?;
    let status = StatusReader::of(n1);
    let until = Instant::now() + Duration::from_secs(60);
    while !status.read().is_some_and(|status| status.phase == "loading rows" && status.done_bytes > 1 << 20) {
        ensure!(
            Instant::now() < until,
            "no rows: {:?}\n{}",
            status.read(),
            process::tail(&n1.log_text(), 40)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    n2.kill();
    n1.wait_synced_again(Duration::from_secs(30))?;
    let log = n1.log_text();
    ensure!(log.contains("was lost while it took"), "{}", process::tail(&log, 40));
    assert_eq!(n1.sst_processes(), []);
    n1.exec(&["INSERT INTO zoo.parent VALUES (200009)"])?;
    // Its old data is there, and the next try gets through.
    starts_again(n2)?;
    let shown = n2.rows("SHOW DATABASES")?.concat();
    ensure!(shown.iter().any(|name| name == "old_shop"), "{shown:?}");
    told_to_join(n2, n1)?;
    joined(n2, n1)?;
    has_all(n1, n2)
}
