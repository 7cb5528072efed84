//! `wsrep_sst_method=mysqldump` with rejoin in the place of the server's script: a server that runs already gets the donor's data.
mod fails;
mod fixture;
mod followed;
mod names;
mod panics;

use std::time::Duration;

use anyhow::{Result, ensure};
use rejoin_lab::load::{Intensity, Load};
use rejoin_lab::outage::Certificates;
use rejoin_lab::{Cluster, Installation, compare, data, process};

use fixture::{PASSWORD, SOON, builder, fill, has_all, joined, let_in, stand_alone, told_to_join};

fn gets_everything_while_the_donor_writes(cluster: &Cluster) -> Result<()> {
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    let metrics = followed::metrics_dir(cluster)?;
    n1.bootstrap()?;
    fill(n1)?;
    data::sysbench_tables(n1, 2, 20000)?;
    stand_alone(n2)?;
    let_in(n2, PASSWORD, "ALL PRIVILEGES")?;
    let load =
        Load::start(n1, Intensity { threads: 2, tables: 2, rows: 20000, pause: Duration::from_millis(2) })?;
    told_to_join(n2, n1)?;
    let followed = followed::limit_is_changed(cluster, &metrics);
    let joined = joined(n2, n1);
    let load = load.stop()?;
    joined?;
    followed?;
    ensure!(load.commits > 0, "{load:?}");
    followed::is_recorded(n1, &metrics)?;
    has_all(n1, n2)
}

#[test]
fn a_running_server_gets_the_zoo_while_the_donor_writes() -> Result<()> {
    let cluster = builder().mysqld_of(2, "event_scheduler=ON").mysqld("log_bin=bin").build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    gets_everything_while_the_donor_writes(&cluster)?;
    assert_eq!(n2.value("SELECT @@event_scheduler")?, "ON");
    fixture::events_wait_for_their_time(n2)?;
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
    gets_everything_while_the_donor_writes(&builder().installation(newer).build()?)
}
