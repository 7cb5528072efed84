//! What an operator sees of the transfer, and changes, while it runs and afterwards.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::places::User;
use rejoin_lab::{Cluster, Node, process};
use serde_json::Value;

use super::fixture::rows_arrive;

/// An answer of `rejoin set` that takes longer is no prompt one: the transfer looks once a second.
const PROMPT: Duration = Duration::from_secs(4);

/// The donor writes metrics there, and sends slowly.
pub fn metrics_dir(cluster: &Cluster) -> Result<PathBuf> {
    let dir = cluster.program_dir().join("metrics");
    fs::create_dir(&dir)?;
    User::for_servers()?.own(&dir)?;
    cluster.node(1).add_options("sst", &["rlimit=700k", &format!("metrics-dir={}", dir.display())])?;
    Ok(dir)
}

/// `rejoin set` on a node: its exit code, and what it said.
fn set(cluster: &Cluster, node: &Node, word: &str) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.args(["set", word, "--datadir"]).arg(node.datadir());
    let began = Instant::now();
    let output = command.arg("--defaults-file").arg(node.option_file()).output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(began.elapsed() < PROMPT, "{word} was answered after {:?}: {said}", began.elapsed());
    Ok((output.status.code(), said))
}

/// The value of a metric of the donor.
fn metric(dir: &Path, name: &str) -> Result<f64> {
    let text = fs::read_to_string(dir.join("rejoin_donor.prom"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    Ok(value.with_context(|| format!("no {name} in\n{text}"))?.parse()?)
}

/// Its metrics are there while it runs, and its limit is taken away.
pub fn limit_is_changed(cluster: &Cluster, metrics: &Path) -> Result<()> {
    let donor = cluster.node(1);
    rows_arrive(donor)?;
    for (name, least) in [
        ("rejoin_transfer_running{role=\"donor\"}", 1.0),
        ("rejoin_transfer_attempts{role=\"donor\"}", 1.0),
        ("rejoin_transfer_phase{role=\"donor\",phase=\"sending rows\"}", 1.0),
        ("rejoin_transfer_network_bytes_total{role=\"donor\"}", 1e6),
        ("rejoin_transfer_size_bytes{role=\"donor\"}", 1e6),
        ("rejoin_transfer_bytes_total{role=\"donor\",kind=\"sent\"}", 5e5),
    ] {
        let value = metric(metrics, name)?;
        ensure!(value >= least, "{name} is {value}");
    }
    let (code, said) = set(cluster, donor, "adaptive-throttle=1")?;
    ensure!(code == Some(71) && said.contains("adaptive-throttle cannot be changed"), "{code:?} {said}");
    let (code, said) = set(cluster, donor, "rlimit=0")?;
    ensure!(code == Some(0) && said.contains("rlimit is none now"), "{code:?} {said}");
    Ok(())
}

/// The record of the transfer and its metrics say what came of it.
pub fn is_recorded(donor: &Node, metrics: &Path) -> Result<()> {
    let success = metric(metrics, "rejoin_transfer_success{role=\"donor\"}")?;
    ensure!(success == 1.0, "{success}");
    let log = donor.log_text();
    let plan = log.lines().find(|line| line.contains("plan: full, the rows of ")).unwrap_or_default();
    let tail = || process::tail(&log, 40);
    ensure!(plan.contains(" without transactions ") && plan.contains("zoo."), "{plan}\n{}", tail());
    let names = fs::read_dir(donor.datadir())?.flatten().map(|entry| entry.path());
    let is_record = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("rejoin-donor-") && name.ends_with(".json")
    };
    let record: Value =
        serde_json::from_str(&fs::read_to_string(names.filter(is_record).max().context("no record")?)?)?;
    let change = &record["changes"][0];
    ensure!(
        change["set"] == "rlimit=0" && change["at_ms"].as_u64() > record["began_ms"].as_u64(),
        "{change}"
    );
    ensure!(
        record["settings"]["rlimit"] == 700 << 10 && record["settings"]["threads"].as_u64() > Some(0),
        "{record}"
    );
    Ok(())
}
