//! Nothing that the donor's server uses is left out, and what it cannot use is no reason to stop.
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rejoin_lab::places::User;
use rejoin_lab::{Cluster, Node, compare, sst};

use super::pair::{Pair, last_log, until, words_of};

#[test]
fn links_several_names_and_files_that_cannot_be_read() -> Result<()> {
    // A server shows a hidden directory as a database too.
    let mut pair = Pair::new(Cluster::builder().nodes(2).mysqld("ignore_db_dirs=.ssd"))?;
    pair.donor().exec(&[
        "CREATE DATABASE s",
        "USE s",
        "CREATE TABLE s.i (a INT PRIMARY KEY, b TEXT) ENGINE=InnoDB",
        "INSERT INTO s.i SELECT seq, REPEAT(MD5(seq), 10) FROM seq_1_to_2000",
        "CREATE TABLE s.m (a INT) ENGINE=MyISAM",
        "INSERT INTO s.m SELECT seq FROM seq_1_to_500",
    ])?;
    pair.donor().stop()?;
    odd_files(pair.donor())?;
    pair.donor().bootstrap()?;
    for snapshot in ["online", "blocking"] {
        pair.begin(&[&format!("snapshot={snapshot}"), "incremental=0"])?;
        pair.joiner().wait_synced(Duration::from_secs(90)).with_context(|| words_of(pair.donor()))?;
        sst::assert_snapshot(pair.joiner(), snapshot)?;
        compare::assert_equal(pair.donor(), pair.joiner())?;
        let came = pair.joiner().datadir().join("s/i.ibd").symlink_metadata()?;
        ensure!(came.is_file(), "s/i.ibd is no file of its own: {came:?}");
        for (node, role) in [(pair.donor(), "donor"), (pair.joiner(), "joiner")] {
            let log = last_log(node, role)?;
            ensure!(
                log.contains("stray.ibd: the server's user may not read it"),
                "{snapshot}, {role}:\n{log}"
            );
            ensure!(!log.contains("i.ibd: "), "s/i.ibd is said to be left out:\n{log}");
        }
    }
    refuses_what_was_taken_from_the_server(&mut pair)
}

/// A table behind a link inside the datadir, one with two names, and a stray file that the server cannot read.
fn odd_files(donor: &Node) -> Result<()> {
    let (data, user) = (donor.datadir(), User::for_servers()?);
    fs::create_dir(data.join(".ssd"))?;
    fs::rename(data.join("s/i.ibd"), data.join(".ssd/i.ibd"))?;
    symlink("../.ssd/i.ibd", data.join("s/i.ibd"))?;
    for kind in ["MYD", "MYI", "frm"] {
        fs::hard_link(data.join(format!("s/m.{kind}")), data.join(format!("s/same.{kind}")))?;
    }
    user.own(&data)?;
    let stray = data.join("sbtest/stray.ibd");
    fs::write(&stray, vec![1; 65536])?;
    fs::set_permissions(&stray, Permissions::from_mode(0o000))?;
    Ok(())
}

/// A file that the server has open is made unreadable: leaving it out would lose a table.
fn refuses_what_was_taken_from_the_server(pair: &mut Pair) -> Result<()> {
    pair.donor().exec(&["SELECT COUNT(*) FROM sbtest.sbtest1"])?;
    let table = pair.donor().datadir().join("sbtest/sbtest1.ibd");
    fs::set_permissions(&table, Permissions::from_mode(0o000))?;
    pair.begin(&[])?;
    let reason = "sbtest1.ibd cannot be read by the server's user, and ";
    until("the joiner says so", Duration::from_secs(60), || Ok(pair.joiner().log_text().contains(reason)))?;
    pair.all_ends(Instant::now() + Duration::from_secs(3))?;
    pair.donor_is_released()?;
    pair.joiners_server_ended()?;
    pair.reason_in_both_logs(pair.joiner(), "joiner", reason)?;
    pair.reason_in_both_logs(pair.donor(), "donor", reason)?;
    pair.reason_in_both_logs(pair.donor(), "donor", "(this path only), or move it away")?;
    fs::set_permissions(&table, Permissions::from_mode(0o660))?;
    pair.joins_now()?;
    compare::assert_equal(pair.donor(), pair.joiner())
}
