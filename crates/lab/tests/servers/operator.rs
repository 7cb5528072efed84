//! What the documentation tells an operator to type, on real servers: without options of its own on a node whose option file
//! names no datadir, beside a server that waits for its group, and before a transfer begins.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::skipped::{skip, with_own_mounts};
use rejoin_lab::{Cluster, Node};
use serde_json::Value;
use transfer::server::compiled_in;
use transfer::server::options::ServerOptions;

/// A verb, for a node that its option file names.
fn rejoin(cluster: &Cluster, node: &Node, words: &[&str]) -> Command {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.args(words).arg("--defaults-file").arg(node.option_file());
    command
}

/// Exit code, and what was said on both.
fn run(cluster: &Cluster, node: &Node, words: &[&str]) -> Result<(Option<i32>, String)> {
    let output = rejoin(cluster, node, words).output().context("rejoin")?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// Takes the datadir out of a node's option file, as Debian's have none.
fn name_no_datadir(node: &Node) -> Result<()> {
    let options = fs::read_to_string(node.option_file())?;
    let without: Vec<&str> = options.lines().filter(|line| !line.starts_with("datadir=")).collect();
    Ok(fs::write(node.option_file(), without.join("\n") + "\n")?)
}

/// The server's own datadir is under its default for this process and its children alone.
fn put_under(datadir: &Path, default: &Path) -> Result<()> {
    rustix::mount::mount_bind(datadir, default).context("a mount over the server's default datadir")
}

fn default_datadir() -> Option<PathBuf> {
    compiled_in::datadir(&ServerOptions::default()).filter(|default| default.is_dir())
}

#[test]
fn a_node_whose_datadir_nobody_names() -> Result<()> {
    let Some(default) = default_datadir() else {
        return skip("the directory that the server takes for its datadir (/var/lib/mysql)");
    };
    with_own_mounts("a_node_whose_datadir_nobody_names", || {
        let cluster = Cluster::builder().nodes(1).build()?;
        let node = cluster.node(1);
        name_no_datadir(node)?;
        put_under(&node.datadir(), &default)?;
        node.bootstrap()?;
        let shown = default.display().to_string();

        let (_, said) = run(&cluster, node, &["check"])?;
        ensure!(said.contains(&format!("using the server's default {shown}")), "{said}");
        ensure!(said.contains("ok       server     running and Synced"), "{said}");
        ensure!(said.lines().all(|line| !line.starts_with("error")), "{said}");
        let (code, said) = run(&cluster, node, &["plan"])?;
        ensure!(code == Some(3) && said.contains(&format!("runs on {shown}")), "{code:?} {said}");
        let (code, said) = run(&cluster, node, &["finish"])?;
        ensure!(code == Some(16) && said.contains(&format!("runs on {shown}")), "{code:?} {said}");

        node.stop()?;
        let (_, said) = run(&cluster, node, &["check"])?;
        ensure!(said.contains("ok       server     stopped"), "{said}");
        ensure!(said.lines().all(|line| !line.starts_with("error")), "{said}");
        let (code, said) = run(&cluster, node, &["status"])?;
        ensure!(code == Some(0) && said.contains(&shown), "{code:?} {said}");
        Ok(())
    })
}

#[test]
fn a_server_that_waits_for_its_group_is_not_stopped() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (n1, n2) = (cluster.node(1), cluster.node(2));
    cluster.start_all()?;
    n2.stop()?;
    n1.stop()?;
    n2.begin(&[])?;
    // Its group port is its own, and it waits for others.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !n2.busy_ports().contains(&n2.ports().group()) {
        ensure!(Instant::now() < deadline && n2.is_alive(), "{}", n2.log_text());
        std::thread::sleep(Duration::from_millis(50));
    }
    let process = format!("(process {})", n2.pid().context("no server")?);
    let (_, said) = run(&cluster, n2, &["check"])?;
    let server = said.lines().find(|line| line.contains(" server ")).unwrap_or_default();
    ensure!(server.contains(&process) && server.contains("accepts no clients yet"), "{said}");
    ensure!(!said.contains("in use"), "{said}");
    let (code, said) = run(&cluster, n2, &["plan"])?;
    ensure!(code == Some(3) && said.contains(&process), "{code:?} {said}");
    Ok(())
}

/// Begun before the server is started, as the documentation says: not the transfer before.
#[test]
fn a_watch_waits_for_the_next_transfer() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let node = cluster.node(2);
    cluster.start_all()?;
    node.wait_tidy()?;
    let (_, before) = run(&cluster, node, &["status", "--json"])?;
    let pid = |text: &str| -> Result<Value> { Ok(serde_json::from_str::<Value>(text)?["pid"].clone()) };
    node.stop()?;
    node.remove_grastate()?;
    let mut watch = rejoin(&cluster, node, &["status", "--watch", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(watch.try_wait()?.is_none(), "it ended before a transfer began");
    node.join()?;
    let output = watch.wait_with_output()?;
    let after = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{after}");
    let json: Value = serde_json::from_str(&after)?;
    ensure!(pid(&before)? != json["pid"] && json["outcome"] == "ok", "{before}\n{after}");
    let (done, total) = (json["done_bytes"].as_u64(), json["total_bytes"].as_u64());
    ensure!(done == total && total > Some(0), "{after}");
    let (_, said) = run(&cluster, node, &["status"])?;
    ensure!(said.starts_with("joiner: finished in ") && said.contains("(100 %)"), "{said}");
    Ok(())
}
