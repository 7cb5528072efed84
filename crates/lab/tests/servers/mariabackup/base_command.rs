//! `base-command`: a command on the joiner restores a backup, and the donor sends what changed since.
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rejoin_lab::progress::sent;
use rejoin_lab::{Cluster, Node, compare, data};

use super::fixture::{ROWS, TABLES, changed, keep_stream, script};

/// An operator keeps last night's backup as a stream; a new node restores it and receives what changed since.
#[test]
fn a_command_fills_a_base_from_a_stream_in_a_file() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).sst("compress=zstd").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    let stream = cluster.dir().join("last-night");
    keep_stream(donor, &stream)?;
    changed(donor, "today")?;

    let restore = script(
        &cluster.dir().join("restore"),
        "set -e\n[ \"$2\" = \"$PWD\" ]\necho \"restoring $1\"\nmbstream -x <\"$1\"\nmariadb-backup --prepare --target-dir=\"$2\"",
    )?;
    joiner.wipe()?;
    joiner.add_options("sst", &[&format!("base-command={} {}", restore.display(), stream.display())])?;
    joiner.join()?;
    let log = joiner.log_since_start();
    ensure!(log.contains("this node has no data to compare: running base-command"), "{log}");
    let little = sent(joiner)?;
    ensure!(little.same > little.all / 2, "{little:?}\n{log}");
    compare::assert_equal(donor, joiner)?;
    joiner.wait_tidy()?;
    let own = transfer_log(joiner)?;
    ensure!(own.contains("base-command: restoring ") && own.contains("completed OK!"), "{own}");

    // A node that has its data does not run it.
    joiner.stop()?;
    joiner.remove_grastate()?;
    joiner.join()?;
    ensure!(joiner.log_since_start().contains("base-command is not run: the datadir was at "));

    // If it fails, or takes too long, everything is sent.
    for (name, text, options, why) in [
        (
            "fails",
            "echo 'no such bucket' >&2; exit 4",
            "base-command-timeout=60",
            "base-command failed (exit status 4): no such bucket",
        ),
        ("hangs", "sleep 600 & wait", "base-command-timeout=2", "base-command did not end within 2 s"),
    ] {
        joiner.stop()?;
        joiner.wipe()?;
        let program = script(&cluster.dir().join(name), text)?;
        joiner.add_options("sst", &[&format!("base-command={}", program.display()), options])?;
        joiner.join()?;
        let log = joiner.log_since_start();
        ensure!(log.contains(why) && log.contains("so the donor sends everything"), "{log}");
        ensure!(sent(joiner)?.same == 0, "{:?}", sent(joiner)?);
        compare::assert_equal(donor, joiner)?;
        joiner.wait_tidy()?;
    }
    Ok(())
}

/// The newest log of a transfer.
fn transfer_log(joiner: &Node) -> Result<String> {
    let names = fs::read_dir(joiner.datadir())?.flatten().map(|entry| entry.path());
    let is_log = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("rejoin-joiner-") && name.ends_with(".log")
    };
    let mut logs: Vec<PathBuf> = names.filter(is_log).collect();
    logs.sort();
    Ok(fs::read_to_string(logs.last().context("no log of a transfer")?)?)
}
