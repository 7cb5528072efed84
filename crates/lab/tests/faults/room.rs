//! A disk that has no room for the old and the new files.
//!
//! The joiner's datadir is on a small tmpfs. Mounting needs root; without it the same is done in a user namespace, which has
//! no server, and where there are none of those the test fails: it never passes without having seen a full disk.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::places::User;
use rejoin_lab::{Cluster, Node, compare, data, process};
use rustix::process::Signal;

use crate::mounted::Mounted;
use crate::pair::{self, Pair, set_sst, until};

/// Megabytes for the donor's data, the margin of 64 that must stay free, the provider's cache, and a little.
fn room_for_one(donor: &Node) -> Result<u64> {
    Ok((data::disk_bytes(&donor.datadir())? >> 20) + 64 + 16)
}

#[test]
fn a_disk_without_room_for_both() -> Result<()> {
    let user = User::for_servers()?;
    if !user.switch {
        return without_root();
    }
    let mut pair = Pair::new(
        Cluster::builder().nodes(2).provider("gcache.size", "4M").provider("gcache.page_size", "2M"),
    )?;
    pair.joins_now()?;
    until("nothing is kept", Duration::from_secs(8), || Ok(!pair::leavings(pair.joiner())))?;
    pair.joiner().stop()?;
    // More than the disk has to spare, so that it counts whether a broken transfer's part is in the way.
    pair.donor().exec(&["CREATE TABLE sbtest.bulk (a INT AUTO_INCREMENT PRIMARY KEY, b BLOB)"])?;
    for _ in 0..30 {
        let some = "INSERT INTO bulk (b) SELECT RANDOM_BYTES(1000) FROM seq_1_to_1000";
        pair.donor().exec(&["USE sbtest", some])?;
    }
    // A table that only the old state has: a large part of what is on this disk.
    let large = pair.joiner().datadir().join("sbtest/large.MYD");
    std::fs::write(&large, vec![1; 40 << 20])?;
    user.own(&large)?;
    let mounted = Mounted::small(&pair.joiner().datadir(), room_for_one(pair.donor())?, user)?;

    set_sst(pair.joiner(), &["in-place=never"])?;
    pair.begin(&[])?;
    pair.joiners_server_ended()?;
    // The donor's program ends, and says why, a second after the joiner's.
    pair.donor_is_released()?;
    for node in [pair.joiner(), pair.donor()] {
        until("both say what is missing", Duration::from_secs(5), || {
            let said = |l: &str| {
                l.contains("bytes are missing on the filesystem of") && l.contains("in-place=never")
            };
            Ok(node.log_text().lines().any(said))
        })
        .with_context(|| node.name().to_owned())?;
    }

    // Killed half-way, twice: what a broken transfer leaves must not keep the next one out.
    set_sst(pair.joiner(), &[])?;
    for _ in 0..2 {
        set_sst(pair.donor(), &["rlimit=8M", "compress=none"])?;
        pair.start_joiner()?;
        let status = rejoin_lab::progress::StatusReader::of(pair.joiner());
        until("most has come", Duration::from_secs(60), || {
            Ok(status.read().is_some_and(|s| s.wire_bytes > Some(28 << 20)))
        })
        .with_context(|| pair::words_of(pair.joiner()))?;
        pair::signal(pair.joiner(), Signal::KILL)?;
        pair.joiner().wait_exit(Duration::from_secs(20)).context("the joiner's server goes on")?;
        ensure!(pair.joiner().datadir().join("#sql-rejoin/in-place").exists());
        // Or the group tells the next server of the end of this transfer.
        pair.donor_is_released()?;
    }
    pair.joins_now()?;
    compare::assert_equal(pair.donor(), pair.joiner())?;
    ensure!(!large.exists(), "a table of the old state is still there");
    for node in [pair.joiner(), pair.donor()] {
        ensure!(node.log_text().contains("in place"), "{} does not say so", node.name());
    }
    until("nothing is kept", Duration::from_secs(8), || Ok(!pair::leavings(pair.joiner())))?;
    what_is_nearly_the_same_fits(&pair, &mounted)?;
    what_fills_the_disk_after_all_is_replaced_in_place(&pair)
}

/// A little more room, not enough for both: nothing is given up when little differs, also where nothing may be.
fn what_is_nearly_the_same_fits(pair: &Pair, mounted: &Mounted) -> Result<()> {
    pair.joiner().stop()?;
    mounted.resize(room_for_one(pair.donor())? + data::disk_bytes(&pair.donor().datadir())? / (3 << 20))?;
    // Or what the donor has on disk is what was there before all this, and not as on the joiner, whose server has ended.
    let written = "SET GLOBAL innodb_log_checkpoint_now=ON";
    pair.donor().exec(&["USE sbtest", "UPDATE sbtest1 SET c = 'changed' WHERE id < 50", written])?;
    set_sst(pair.joiner(), &["in-place=never"])?;
    pair.joiner().remove_grastate()?;
    pair.joins_now()?;
    let log = pair.joiner().log_since_start();
    let fits = log.contains("what differs will fit beside") && !log.contains("replaced in place");
    ensure!(
        fits && log.contains("bytes are missing for two whole sets"),
        "{}",
        pair::words_of(pair.joiner())
    );
    compare::assert_equal(pair.donor(), pair.joiner())
}

/// A sample is no census, and others write to the disk too: a node whose transfer was to fit, and did not, must not try
/// the same for ever.
fn what_fills_the_disk_after_all_is_replaced_in_place(pair: &Pair) -> Result<()> {
    pair.joiner().stop()?;
    pair.donor().exec(&["USE sbtest", "UPDATE sbtest1 SET c = 'changed again' WHERE id < 2000"])?;
    set_sst(pair.joiner(), &[])?;
    pair.joiner().remove_grastate()?;
    set_sst(pair.donor(), &["rlimit=100k", "compress=none"])?;
    pair.start_joiner()?;
    pair.wait_for_data()?;
    let ballast = pair.joiner().datadir().join("#ballast");
    let full = std::io::copy(&mut std::io::repeat(1), &mut std::fs::File::create(&ballast)?);
    ensure!(full.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull));
    pair.joiner().wait_exit(Duration::from_secs(60)).context("the joiner's server goes on")?;
    std::fs::remove_file(&ballast)?;
    let log = pair.joiner().log_since_start();
    ensure!(log.contains("what differs will fit beside") && log.contains("No space left on device"), "{log}");
    pair.donor_is_released()?;
    pair.joins_now()?;
    let log = pair.joiner().log_since_start();
    ensure!(log.contains("filled the disk: this one does not") && log.contains("replaced in place"), "{log}");
    compare::assert_equal(pair.donor(), pair.joiner())
}

/// The rest of this test's own binary, once more, as root of a user namespace of its own.
#[expect(clippy::print_stderr, reason = "whoever runs the tests must see what was not tried")]
fn without_root() -> Result<()> {
    eprintln!(
        "NOT ROOT: no server joins on a full disk in this run; the programs alone do, in a user namespace"
    );
    let mut again = Command::new("unshare");
    again.args(["--user", "--map-root-user", "--mount"]).arg(std::env::current_exe()?);
    again.args(["--exact", "room::programs_on_a_disk_without_room", "--ignored", "--nocapture"]);
    process::run(again, Duration::from_secs(120))
        .context("a full disk needs root or user namespaces, and this machine gives neither")
        .map(drop)
}

/// Under fake parents: refuses, then replaces in place.
#[test]
#[ignore = "needs a mount namespace: `unshare --mount`, as root or with --user --map-root-user"]
fn programs_on_a_disk_without_room() -> Result<()> {
    let fakes = crate::fake_transfer::Fakes::with_history()?;
    let root = User { uid: 0, gid: 0, switch: true };
    let _mounted = Mounted::small(&fakes.joiner().datadir(), room_for_one(fakes.donor())?, root)?;
    set_sst(fakes.joiner(), &["in-place=never", "incremental=0"])?;
    let before = crate::manifest::Manifest::of(&fakes.joiner().datadir())?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let donor = fakes.full(&address, &auth)?.end(Duration::from_secs(30))?;
    let joiner = joiner.end(Duration::from_secs(30))?;
    for ended in [&donor, &joiner] {
        ensure!(ended.stderr.contains("bytes are missing on the filesystem of"), "{}", ended.stderr);
    }
    let after = crate::manifest::Manifest::of(&fakes.joiner().datadir())?;
    ensure!(before.differences(&after).is_empty(), "touched: {:?}", before.differences(&after));
    set_sst(fakes.joiner(), &["incremental=0"])?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let donor = fakes.serve(fakes.full(&address, &auth)?)?;
    let joiner = joiner.end(Duration::from_secs(30))?;
    assert_eq!((donor.code, joiner.code), (Some(0), Some(0)), "{}{}", donor.stderr, joiner.stderr);
    ensure!(joiner.stderr.contains("replaced in place") && donor.stderr.contains("in place"));
    Ok(())
}
