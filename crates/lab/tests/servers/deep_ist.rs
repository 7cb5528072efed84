//! Deep IST on real servers: a node that was away longer than every provider's cache reaches comes back by archived
//! write-sets, and no file is sent. `lab outages` has the same under more kinds of outages, as often as one likes.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::outage::{CALM, FAR, Outage, builder, says};
use rejoin_lab::{Cluster, Node, compare, process};
use report::Record;
use report::record::{Bytes, Method};
use serde_json::Value;
use transfer::server::records::Records;
use transfer::writesets::archive::Archive;

/// The first node's archive must not be used: the third node gets files, and both say why.
fn gets_files(cluster: &Cluster, says_why: &str) -> Result<()> {
    let (n1, n3) = (cluster.node(1), cluster.node(3));
    let mark = n1.log_mark();
    n3.join()?;
    says(n3, says_why)?;
    says(n3, "plan: incremental")?;
    ensure!(n1.log_since(mark).contains(says_why), "{}", n1.log_since(mark));
    compare::assert_equal(n1, n3)
}

#[test]
fn an_archive_that_does_not_reach_back_or_is_damaged_is_not_used() -> Result<()> {
    let mut outage = Outage::begin(builder(1).build()?)?;
    let dir = outage.archive();
    outage.stop_archiver()?;
    fs::remove_dir_all(&dir)?;
    outage.write_beyond(None, || Ok(()))?;
    outage.start_archiver()?;
    outage.position += FAR;
    outage.write_beyond(None, || Ok(()))?;
    gets_files(&outage.cluster, "are needed; the donor's archive")?;
    outage.goes_on()?;

    is_noted_before_ist(&outage.cluster)?;
    outage.goes_on()?;
    outage.write_beyond(None, || Ok(()))?;
    outage.wait_archived()?;
    outage.stop_archiver()?;
    is_noted(&outage.cluster, &dir)?;
    for segment in Archive::open(&dir)?.segments() {
        let mut bytes = fs::read(&segment.path)?;
        // All over its second half: what the third node wants is at the end.
        let every = bytes.len() / 64;
        (32..64).for_each(|part| bytes[part * every] ^= 1);
        fs::write(&segment.path, bytes)?;
    }
    gets_files(&outage.cluster, "no deep IST")
}

/// What `rejoin plan` says for the third node: write-sets of the first one's archive.
fn planned(cluster: &Cluster) -> Result<Value> {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.args(["plan", "--json", "--defaults-file"]).arg(cluster.node(3).option_file());
    command.arg("--donor").arg(cluster.node(1).socket());
    let out = command.output()?;
    let json: Value = serde_json::from_slice(&out.stdout).with_context(|| format!("{out:?}"))?;
    let deep = &json["deep_ist"];
    ensure!(json["way"] == "sst" && json["donor"] == "n1", "{json:#}");
    ensure!(deep["write_sets"].as_i64() > Some(FAR) && deep["closed"].is_null(), "{json:#}");
    Ok(json)
}

/// `rejoin plan` names the archive of the first node.
fn is_predicted(cluster: &Cluster) -> Result<()> {
    let json = planned(cluster)?;
    ensure!(json["deep_ist"]["reaches"] == "yes", "{json:#}");
    Ok(())
}

/// `rejoin plan` knows of an archive that it cannot read, as on another host, because the first node reported it when it sent files.
fn is_noted(cluster: &Cluster, archive: &Path) -> Result<()> {
    let elsewhere = archive.with_extension("elsewhere");
    fs::rename(archive, &elsewhere)?;
    let json = planned(cluster)?;
    let (reported, reaches) = (&json["archives"][0], json["deep_ist"]["reaches"].as_str());
    ensure!(reported["member"] == "n1" && reported["reported_s"].as_u64() > Some(0), "{json:#}");
    ensure!(reported["first"].as_i64() <= reported["last"].as_i64(), "{json:#}");
    ensure!(reaches.is_some_and(|reaches| reaches.starts_with("if-it-")), "{json:#}");
    Ok(fs::rename(elsewhere, archive)?)
}

/// A node to which IST follows learns how far the first one's archive reaches.
fn is_noted_before_ist(cluster: &Cluster) -> Result<()> {
    let (n1, n3) = (cluster.node(1), cluster.node(3));
    n1.exec(&["UPDATE sbtest.sbtest1 SET k = k + 1"])?;
    n3.join()?;
    says(n3, "IST follows from")?;
    let record = newest_record(n3)?;
    let (method, donor, archive) = (record.method, record.peer.and_then(|peer| peer.name), record.archive);
    ensure!(method == Some(Method::Ist) && donor.as_deref() == Some("n1"), "{method:?} {donor:?}");
    ensure!(archive.as_ref().is_some_and(|archive| archive.last > archive.first), "{archive:?}");
    Ok(())
}

/// The record of a node's last transfer.
fn newest_record(node: &Node) -> Result<Record> {
    let mut found = Records::default();
    found.add(&node.datadir())?;
    found.records.into_iter().max_by_key(|record| record.began_ms).context("no record")
}

/// Stopped, and left behind by two nodes that write and change tables; `try_first` may break a first try.
fn comes_back(try_first: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
    let mut outage = Outage::begin(builder(1).build()?)?;
    outage.write_beyond(Some(1), || Ok(()))?;
    outage.wait_archived()?;
    let loads = outage.loads(CALM)?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    is_predicted(&outage.cluster)?;
    try_first(n3)?;
    let basis = match n3.datadir().join("rejoin-replay.json").exists() {
        true => "s (last time 12345 write-sets, 6.0 MiB a second)",
        false => "s (assuming 5000 write-sets or 20.0 MiB a second)",
    };
    let mark = n1.log_mark();
    n3.join().context("the deep IST")?;
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    outage.came_by_write_sets(n3, mark)?;
    says(n3, basis)?;
    // The joiner knew how much would come.
    let Bytes { total, write_sets, .. } = newest_record(n3)?.bytes;
    ensure!(
        (write_sets..=4 * write_sets).contains(&total),
        "{write_sets} bytes of write-sets, {total} in all"
    );
    ensure!(n1.log_since(mark).contains(basis), "{}", n1.log_since(mark));
    outage.all_are_equal()?;
    outage.stop_archiver()
}

/// It remembers from an earlier time how fast its server is, and the donor counts with that.
#[test]
fn a_node_comes_back_by_archived_write_sets() -> Result<()> {
    comes_back(|n3| {
        let last = r#"{"write_sets":12345,"bytes":6291456}"#;
        Ok(fs::write(n3.datadir().join("rejoin-replay.json"), last)?)
    })
}

#[test]
fn a_joiner_that_was_killed_before_its_server_got_a_write_set_comes_back_by_them() -> Result<()> {
    comes_back(|n3| {
        n3.begin(&[])?;
        n3.wait_log("its write-sets to", Duration::from_secs(120)).context("the first try")?;
        n3.kill();
        Ok(())
    })
}

/// All at once on another version: pages of the cache in use, a donor that was restarted, two nodes one after the other, and
/// encrypted sockets.
#[test]
fn nodes_come_back_under_a_storm() -> Result<()> {
    // Told to end when we end, it removes its cluster.
    let mut outages = Command::new("setpriv");
    outages.args(["--pdeathsig", "TERM", "--", env!("CARGO_BIN_EXE_lab"), "outages"]);
    outages.args(["--rounds", "1", "--case", "everything", "--seed", "7"]);
    let told = process::run(outages, Duration::from_secs(400))?;
    ensure!(told.contains("1 rounds, 1 equal, 0 wrong"), "{told}");
    Ok(())
}
