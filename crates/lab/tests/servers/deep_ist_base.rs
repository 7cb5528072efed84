//! A new node from a backup and the donor's archive: the donor sends no page.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::outage::{CALM, FAR, Outage, builder, says};
use rejoin_lab::places::User;
use rejoin_lab::{copy_tree, process};
use serde_json::Value;

/// A backup of the second node by mariabackup, prepared.
fn backup(outage: &Outage, to: &Path) -> Result<()> {
    let n2 = outage.cluster.node(2);
    let user = User::for_servers()?;
    let run = |args: &[&str]| {
        let mut command = user.command(Path::new("mariabackup"));
        command.arg(format!("--defaults-file={}", n2.option_file().display())).args(args);
        command.arg(format!("--target-dir={}", to.display()));
        process::run(command, Duration::from_secs(120)).context("mariabackup")
    };
    let socket = format!("--socket={}", n2.socket().display());
    run(&["--backup", "--galera-info", "--user=root", &socket])?;
    run(&["--prepare"]).map(drop)
}

/// What `rejoin plan` says before the third node is started.
fn planned(outage: &Outage) -> Result<Value> {
    let mut command = Command::new(outage.cluster.program_dir().join("rejoin"));
    command.args(["plan", "--json", "--defaults-file"]).arg(outage.cluster.node(3).option_file());
    command.arg("--donor").arg(outage.cluster.node(1).socket());
    let out = command.output()?;
    serde_json::from_slice(&out.stdout).with_context(|| format!("{out:?}"))
}

#[test]
fn an_empty_node_starts_from_a_backup_and_gets_write_sets_only() -> Result<()> {
    let mut outage = Outage::begin(builder(1).build()?)?;
    let to = outage.cluster.node(2).dir().join("backup");
    backup(&outage, &to)?;
    outage.write_beyond(Some(3), || Ok(()))?;
    outage.wait_archived()?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));

    // The backup does not say that it is prepared, so files are sent.
    let kind = ["xtrabackup_checkpoints", "mariadb_backup_checkpoints"].map(|name| to.join(name));
    let kind = kind.into_iter().find(|path| path.exists()).context("no checkpoints file")?;
    let text = fs::read_to_string(&kind)?;
    n3.wipe()?;
    n3.add_options("sst", &[&format!("base={}", to.display())])?;
    fs::write(&kind, text.replace("log-applied", "full-backuped"))?;
    let plan = planned(&outage)?;
    let why = plan["no_base"].as_str().unwrap_or_default();
    ensure!(why.contains("it is not prepared") && plan["deep_ist"].is_null(), "{plan:#}");
    n3.join()?;
    says(n3, "it is not prepared")?;
    n3.stop()?;
    fs::write(&kind, text)?;

    n3.wipe()?;
    let plan = planned(&outage)?;
    let (deep, costs) = (&plan["deep_ist"], plan["costs"].as_array().context("no costs")?);
    ensure!(deep["base"]["dir"] == *to.to_string_lossy() && deep["closed"].is_null(), "{plan:#}");
    ensure!(deep["write_sets"].as_i64() > Some(FAR) && plan["no_base"].is_null(), "{plan:#}");
    ensure!(costs.iter().any(|cost| cost["way"] == "base and deep IST"), "{plan:#}");
    ensure!(costs.iter().any(|cost| cost["way"] == "full"), "{plan:#}");
    let loads = outage.loads(CALM)?;
    let mark = n1.log_mark();
    n3.join()?;
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    says(n3, "from which deep IST can start")?;
    outage.came_by_write_sets(n3, mark)?;
    ensure!(!n1.log_since(mark).contains("snapshot: "), "the donor read files");
    outage.all_are_equal()?;

    // The datadir of a node that was stopped, which a program of the operator's brings.
    let stopped = n3.dir().join("stopped");
    outage.goes_on()?;
    let n3 = outage.cluster.node(3);
    copy_tree(&n3.datadir(), &stopped)?;
    outage.write_beyond(None, || Ok(()))?;
    outage.wait_archived()?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    n3.wipe()?;
    n3.add_options("sst", &["base=", &format!("base-command=/bin/cp -a {}/.", stopped.display())])?;
    let mark = n1.log_mark();
    n3.join()?;
    says(n3, "running base-command")?;
    outage.came_by_write_sets(n3, mark)?;
    ensure!(!n1.log_since(mark).contains("snapshot: "), "the donor read files");
    outage.all_are_equal()?;
    outage.stop_archiver()
}
