//! When `snapshot=auto` takes mariadb-backup, and what it takes where that is not possible.
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, compare, data, process, sst};
use serde_json::Value;

use super::fixture::{ROWS, TABLES, changed, joined_by_mariabackup, script};

/// What `rejoin plan` says to the joiner, which is down, where the donor's redo log counts as unknown.
fn planned(cluster: &Cluster) -> Result<Value> {
    let mut command = Command::new(cluster.program_dir().join("rejoin"));
    command.env("REJOIN_UNKNOWN_REDO", "1");
    command.args(["plan", "--json", "--defaults-file"]).arg(cluster.node(2).option_file());
    let out = command.arg("--donor").arg(cluster.node(1).socket()).output()?;
    serde_json::from_slice(&out.stdout).with_context(|| format!("{out:?}"))
}

/// `snapshot=auto` takes mariadb-backup if the online snapshot cannot read the redo log.
#[test]
fn it_is_chosen_where_the_online_snapshot_cannot_read_the_log() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    // The donor's program takes every redo log for one of an unknown format.
    let (bin, program) = (cluster.program_dir(), cluster.program_dir().join("wsrep_sst_rejoin"));
    fs::create_dir(bin.join("real"))?;
    std::os::unix::fs::symlink("../rejoin", bin.join("real/wsrep_sst_rejoin"))?;
    fs::remove_file(&program)?;
    let real = bin.join("real/wsrep_sst_rejoin");
    script(&program, &format!("REJOIN_UNKNOWN_REDO=1 exec {} \"$@\"", real.display()))?;

    joiner.wipe()?;
    joiner.join()?;
    joined_by_mariabackup(donor, joiner)?;
    for node in [donor, joiner] {
        let log = node.log_text();
        let line = "snapshot: mariabackup (the layout of the redo log is not supported";
        ensure!(log.contains(line), "{}: {}", node.name(), process::tail(&log, 30));
    }

    joiner.stop()?;
    joiner.remove_grastate()?;
    let plan = planned(&cluster)?;
    ensure!(plan["snapshot"] == "mariabackup" && plan["pause"]["what"] == "replication", "{plan:#}");
    ensure!(plan["room"]["whole"] == true, "{plan:#}");
    joiner.join()?;
    joined_by_mariabackup(donor, joiner)?;

    // If the program is missing or fails on either host, the blocking snapshot is taken, and both logs say why.
    let fails = |name: &str, when: &str| {
        let text = format!(
            "case \"$*\" in *{when}*) echo 'broken on purpose' >&2; exit 9;; esac\nexec mariadb-backup \"$@\""
        );
        script(&cluster.dir().join(name), &text)
    };
    let (backup, prepare) = (fails("no-backup", "--backup")?, fails("no-prepare", "--prepare")?);
    for (node, path, why) in [
        (donor, Path::new("/nowhere"), "on the donor: mariadb-backup: cannot run /nowhere"),
        (joiner, Path::new("/nowhere"), "on the joiner: mariadb-backup: cannot run /nowhere"),
        (donor, &*backup, "mariadb-backup failed (exit status 9): broken on purpose"),
        (
            joiner,
            &*prepare,
            "the joiner could not prepare the backup of mariadb-backup: mariadb-backup --prepare failed",
        ),
    ] {
        joiner.stop()?;
        node.add_options("sst", &[&format!("mariabackup={}", path.display())])?;
        changed(
            donor,
            &format!("{}{}", node.name(), path.file_name().unwrap_or_default().to_string_lossy().len()),
        )?;
        joiner.remove_grastate()?;
        // That there is no program shows beforehand, that it fails does not.
        let plan = planned(&cluster)?;
        let said = plan["kind_why"].as_str().unwrap_or_default();
        let is_seen =
            plan["snapshot"] == "blocking" && plan["pause"]["what"] == "writes" && said.contains(why);
        ensure!(is_seen == (path == Path::new("/nowhere")), "{why}: {plan:#}");
        joiner.join().with_context(|| why.to_owned())?;
        sst::assert_snapshot(joiner, "blocking")?;
        for node in [donor, joiner] {
            ensure!(
                node.log_text().contains(why),
                "{} does not say {why:?}:\n{}",
                node.name(),
                process::tail(&node.log_text(), 40)
            );
        }
        compare::assert_equal(donor, joiner)?;
        joiner.wait_tidy()?;
        node.add_options("sst", &["mariabackup="])?;
    }

    // The operator has excluded it.
    joiner.stop()?;
    donor.add_options("sst", &["snapshot=online-or-blocking"])?;
    joiner.remove_grastate()?;
    let plan = planned(&cluster)?;
    ensure!(plan["snapshot"] == "blocking", "{plan:#}");
    joiner.join()?;
    sst::assert_snapshot(joiner, "blocking")?;
    let log = joiner.log_text();
    ensure!(log.contains("snapshot: blocking (the layout of the redo log is not supported"), "{log}");
    Ok(())
}
