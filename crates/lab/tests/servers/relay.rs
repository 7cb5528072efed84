//! A node whose IST passes through our program, and whose server runs while it is cut off from its group: first one that was
//! started without a state transfer, beside which the archiver listens, then one with the relay of a state transfer.
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::archiver::Archiver;
use rejoin_lab::outage::says;
use rejoin_lab::{Cluster, Node, compare, data};
use serde_json::Value;

/// Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

fn wait(node: &Node, what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is().unwrap_or(false) {
        ensure!(node.is_alive(), "{} ended: {what}\n{}", node.name(), node.log_since_start());
        ensure!(began.elapsed() < SOON, "not within {SOON:?}: {what}\n{}", node.log_since_start());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The node is cut off while the other one writes, and comes back by IST, with the server that it has.
fn is_cut_off_and_comes_back(node: &Node, other: &Node) -> Result<()> {
    let (pid, mark) = (node.pid(), node.log_mark());
    let isolate = |on: u8| node.exec(&[&format!("SET GLOBAL wsrep_provider_options='gmcast.isolate={on}'")]);
    isolate(1)?;
    let alone = |node: &Node, status: &str| {
        let status = node.status("wsrep_cluster_status")? == status;
        Ok(status && node.status("wsrep_cluster_size")? == "1")
    };
    wait(other, "it goes on alone", || alone(other, "Primary"))?;
    wait(node, "it is cut off", || Ok(node.status("wsrep_cluster_status")? != "Primary"))?;
    for _ in 0..20 {
        other.exec(&["INSERT INTO sbtest.sbtest1 (k) VALUES (1), (2), (3)"])?;
    }
    isolate(0)?;
    wait(node, "it is back", || Ok(node.is_synced() && node.status("wsrep_cluster_size")? == "2"))?;
    let log = node.log_since(mark);
    ensure!(node.pid() == pid && log.contains("IST received"), "{log}");
    compare::assert_equal(other, node)
}

/// Level of what `rejoin check` says of the place where donors connect.
fn checked(cluster: &Cluster, node: &Node) -> Result<String> {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.args(["check", "--json", "--defaults-file"]).arg(node.option_file());
    let json: Value = serde_json::from_slice(&command.output()?.stdout)?;
    let findings = json["findings"].as_array().context("no findings")?;
    let relay = findings.iter().find(|finding| finding["subject"] == "relay");
    Ok(relay.and_then(|relay| relay["level"].as_str()).context("nothing about the relay")?.to_owned())
}

#[test]
fn a_running_server_takes_ist_whether_or_not_it_was_started_with_a_state_transfer() -> Result<()> {
    let cluster = Cluster::builder()
        .provider("evs.suspect_timeout", "PT2S")
        .provider("evs.keepalive_period", "PT0.5S")
        .provider_of(1, "ist.recv_addr", "127.0.0.2")
        .provider_of(1, "ist.recv_bind", "127.0.0.1")
        .provider_of(2, "pc.weight", "5")
        .build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    n1.bootstrap()?;
    data::sysbench_tables(n1, 1, 100)?;
    n2.join()?;
    assert_eq!(checked(&cluster, n1)?, "warning");
    let mut archiver = Archiver::start(n1)?;
    archiver.wait_until_ist(&format!("passes through at 127.0.0.2:{}", n1.ports().ist()))?;
    assert_eq!(checked(&cluster, n1)?, "ok");
    is_cut_off_and_comes_back(n1, n2).context("beside the archiver")?;

    // The joiner's program needs the port, and gets it.
    n1.stop()?;
    n2.exec(&["INSERT INTO sbtest.sbtest1 (k) VALUES (4)"])?;
    n1.join()?;
    says(n1, "IST follows from")?;
    archiver.wait_until_ist("is received by the relay that a state transfer started")?;
    assert_eq!(checked(&cluster, n1)?, "ok");
    is_cut_off_and_comes_back(n1, n2).context("with a relay of its own")?;

    n1.stop()?;
    archiver.wait_until_ist("passes through")?;
    archiver.stop()
}
