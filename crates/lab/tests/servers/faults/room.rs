//! A disk that has no room for the old and the new files.
//!
//! The joiner's datadir is on a small tmpfs. Who may not mount does so in a user namespace, and where there are none of those
//! the tests fail: they never pass without having seen a full disk.
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::mounted::{Mounted, where_we_may_mount};
use rejoin_lab::places::User;
use rejoin_lab::progress::StatusReader;
use rejoin_lab::{Cluster, Node, compare, copy_tree, data};
use rustix::process::Signal;

use super::fake_transfer::{Fakes, SOON};
use super::manifest::Manifest;
use super::pair::{self, Pair, set_sst, until};
use super::verbs;

/// Megabytes for the donor's data, the margin of 64 that must stay free, the provider's cache, and a little.
fn room_for_one(donor: &Node) -> Result<u64> {
    Ok((data::disk_bytes(&donor.datadir())? >> 20) + 64 + 16)
}

#[test]
fn a_disk_without_room_for_both() -> Result<()> {
    where_we_may_mount("room::a_disk_without_room_for_both", without_room_for_both)
}

fn without_room_for_both(user: User) -> Result<()> {
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
                l.contains("do not fit together: the filesystem of") && l.contains("in-place=never")
            };
            Ok(node.log_text().lines().any(said))
        })
        .with_context(|| node.name().to_owned())?;
    }

    // A limit of either node holds before anything is deleted.
    for limits in [["max-transfer=1M", ""], ["", "max-transfer=1M"]] {
        let [donors, joiners] = limits.map(|line| Vec::from_iter((!line.is_empty()).then_some(line)));
        set_sst(pair.donor(), &donors)?;
        set_sst(pair.joiner(), &joiners)?;
        pair.start_joiner()?;
        pair.joiners_server_ended().with_context(|| {
            format!("{limits:?}: {}\nDONOR {}", pair::words_of(pair.joiner()), pair::words_of(pair.donor()))
        })?;
        pair.donor_is_released()?;
        let words = pair.joiner().log_since_start();
        ensure!(words.contains("max-transfer under [sst] on this node permits 1.0 MiB"), "{words}");
        ensure!(large.exists() && !pair.joiner().datadir().join("#sql-rejoin/in-place").exists(), "{words}");
    }

    // Killed half-way, twice: what a broken transfer leaves must not keep the next one out.
    set_sst(pair.joiner(), &[])?;
    for _ in 0..2 {
        set_sst(pair.donor(), &["rlimit=8M", "compress=none"])?;
        pair.start_joiner()?;
        let status = StatusReader::of(pair.joiner());
        // The second one reuses what the first one had received, so little is left to send.
        until("some has come", Duration::from_secs(60), || {
            Ok(status.read().is_some_and(|s| s.wire_bytes > Some(6 << 20)))
        })
        .with_context(|| [pair.joiner(), pair.donor()].map(pair::words_of).join("\ndonor:\n"))?;
        pair::signal(pair.joiner(), Signal::KILL)?;
        pair.joiner().wait_exit(Duration::from_secs(20)).context("the joiner's server goes on")?;
        ensure!(pair.joiner().datadir().join("#sql-rejoin/in-place").exists());
        // Or the group tells the next server of the end of this transfer.
        pair.donor_is_released()?;
    }
    only_a_member_may_start(&pair)?;
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

/// On what a transfer in place left no server starts, until `finish --let-join` lets the recovery step of a member do so.
fn only_a_member_may_start(pair: &Pair) -> Result<()> {
    let joiner = pair.joiner();
    let let_join = |environment: Option<&str>| -> Result<String> {
        let mut command = verbs::command(&pair.cluster, joiner, "finish");
        command.arg("--let-join").envs(environment.map(|value| ("_WSREP_NEW_CLUSTER", value)));
        let output = command.output().context("rejoin finish --let-join")?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let refuses = |after: &str| -> Result<()> {
        joiner.begin(&["--wsrep-on=OFF", "--wsrep-provider=none"])?;
        let status = joiner.wait_exit(SOON).with_context(|| format!("a server serves {after}"))?;
        ensure!(status.code() == Some(1), "{status} {after}: {}", joiner.log_since_start());
        Ok(())
    };
    refuses("as it is")?;
    let said = let_join(Some("--wsrep-new-cluster"))?;
    ensure!(said.contains("a new cluster must not be bootstrapped from this node"), "{said}");
    refuses("before a bootstrap")?;
    let options = std::fs::read_to_string(joiner.option_file())?;
    for alone in ["wsrep_on=OFF", "wsrep_cluster_address=gcomm://", "wsrep_provider=none"] {
        joiner.add_options("mysqld", &[alone])?;
        let said = let_join(None)?;
        ensure!(said.contains("would start without its cluster"), "{alone}: {said}");
        refuses(alone)?;
        std::fs::write(joiner.option_file(), &options)?;
    }
    let said = let_join(None)?;
    ensure!(said.contains("the server may start now"), "{said}");
    let position = joiner.recover_position()?;
    ensure!(position.seqno == -1, "the recovery step tells {position:?} of an incomplete datadir");
    Ok(())
}

/// A little more room, not enough for both: nothing is given up when little differs, also where nothing may be.
fn what_is_nearly_the_same_fits(pair: &Pair, mounted: &Mounted) -> Result<()> {
    pair.joiner().stop()?;
    mounted.resize(room_for_one(pair.donor())? + data::disk_bytes(&pair.donor().datadir())? / (3 << 20))?;
    // Or what the donor has on disk is what was there before all this, and not as on the joiner, whose server has ended.
    pair.donor().exec(&["USE sbtest", "UPDATE sbtest1 SET c = 'changed' WHERE id < 50"])?;
    pair.donor().checkpoint()?;
    set_sst(pair.joiner(), &["in-place=never"])?;
    pair.joiner().remove_grastate()?;
    pair.joins_now()?;
    let log = pair.joiner().log_since_start();
    let fits = log.contains("the differences fit beside") && !log.contains("replaced in place");
    ensure!(fits && log.contains("two complete sets of files need"), "{}", pair::words_of(pair.joiner()));
    compare::assert_equal(pair.donor(), pair.joiner())
}

/// Fills the disk with a file of another program. Returns its path and length.
fn fill(node: &Node) -> Result<(PathBuf, u64)> {
    let filler = node.datadir().join("of-somebody-else");
    let full = File::create(&filler).and_then(|mut file| io::copy(&mut io::repeat(1), &mut file));
    ensure!(full.is_err_and(|error| error.kind() == io::ErrorKind::StorageFull), "the disk is not full");
    let length = filler.metadata()?.len();
    Ok((filler, length))
}

/// As if more came than was reserved, or the filesystem could not reserve: the file without a name is emptied.
fn lose_the_reserve(joiner: &Node) -> Result<()> {
    let open = PathBuf::from(format!("/proc/{}/fd", pair::program_pid(joiner)?));
    let of_the_disk = |fd: &PathBuf| {
        std::fs::read_link(fd).is_ok_and(|file| {
            file.starts_with(joiner.datadir()) && file.to_string_lossy().ends_with(" (deleted)")
        })
    };
    let fds = std::fs::read_dir(open)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut reserves = fds.into_iter().filter(of_the_disk);
    let reserve = reserves.next().context("nothing was reserved")?;
    ensure!(reserves.next().is_none(), "files without a name");
    Ok(File::options().write(true).open(reserve)?.set_len(0)?)
}

/// A sample is no census, and others write to the disk too: a node whose transfer was to fit, and did not, must not try
/// the same for ever.
fn what_fills_the_disk_after_all_is_replaced_in_place(pair: &Pair) -> Result<()> {
    pair.joiner().stop()?;
    pair.donor().exec(&["USE sbtest", "UPDATE sbtest1 SET c = 'changed again' WHERE id < 2000"])?;
    set_sst(pair.joiner(), &[])?;
    pair.joiner().remove_grastate()?;
    set_sst(pair.donor(), &["rlimit=100k", "compress=none"])?;
    let (position, before) = (pair.joiner().recover_position()?, Manifest::of(&pair.joiner().datadir())?);
    pair.start_joiner()?;
    pair.wait_for_data()?;
    lose_the_reserve(pair.joiner())?;
    let (filler, _) = fill(pair.joiner())?;
    pair.joiner().wait_exit(Duration::from_secs(60)).context("the joiner's server goes on")?;
    std::fs::remove_file(filler)?;
    let log = pair.joiner().log_since_start();
    ensure!(log.contains("the differences fit beside") && log.contains("No space left on device"), "{log}");
    let changed = before.differences(&Manifest::of(&pair.joiner().datadir())?);
    ensure!(changed.is_empty(), "changed by a transfer that filled the disk: {changed:?}");
    ensure!(pair.joiner().recover_position()? == position, "the old files are at another position");
    pair.donor_is_released()?;
    pair.joins_now()?;
    let log = pair.joiner().log_since_start();
    ensure!(
        log.contains("filled the disk although it should have fitted") && log.contains("replaced in place"),
        "{log}"
    );
    compare::assert_equal(pair.donor(), pair.joiner())
}

/// What will come has its room, and what replaces it too: others may write until the disk is full.
#[test]
fn others_fill_the_disk_meanwhile() -> Result<()> {
    where_we_may_mount("room::others_fill_the_disk_meanwhile", |user| {
        let mut fakes = Fakes::new()?;
        let rows = "SELECT seq a, RANDOM_BYTES(1000) b FROM seq_1_to_60000";
        let create = format!("CREATE TABLE others.bulk (a INT PRIMARY KEY, b BLOB) {rows}");
        fakes.live_on(|donor| donor.exec(&["CREATE DATABASE others", "USE others", &create]).map(drop))?;
        std::fs::remove_dir_all(fakes.joiner().datadir())?;
        copy_tree(&fakes.donor().datadir(), &fakes.joiner().datadir())?;
        let update = "UPDATE others.bulk SET b = RANDOM_BYTES(1000) WHERE a <= 8000";
        fakes.live_on(|donor| donor.exec(&[update]).map(drop))?;
        let (donor, joiner) = (fakes.donor(), fakes.joiner());
        let most = data::disk_bytes(&donor.datadir())? / (4 << 20) * 3;
        let _mounted = Mounted::small(&joiner.datadir(), room_for_one(donor)? + most, user)?;
        let status = StatusReader::of_next(joiner);
        fakes.set_sst(&["rlimit=4M", "compress=none"])?;
        let (run, auth, address) = fakes.joiner_ready()?;
        let mut donors_run = fakes.full(&address, &auth)?;
        fakes.stand_still_for(&mut donors_run)?;
        until("some has come", SOON, || Ok(status.read().is_some_and(|s| s.wire_bytes > Some(1 << 20))))?;
        let (filler, filled) = fill(joiner)?;
        // A little, for what is no file of the transfer.
        let others = File::options().write(true).open(&filler)?;
        others.set_len(filled - (2 << 20))?;
        let at = status.read().context("no status")?;
        ensure!(at.wire_bytes < Some(32 << 20), "it was full late: {at:?}");
        let (donors, joiners) = (donors_run.end(SOON)?, run.end(SOON)?);
        ensure!((donors.code, joiners.code) == (Some(0), Some(0)), "{}{}", donors.stderr, joiners.stderr);
        ensure!(joiners.stderr.contains("the differences fit beside"), "{}", joiners.stderr);
        let bulk = |node: &Node| std::fs::read(node.datadir().join("others/bulk.ibd"));
        ensure!(bulk(donor)? == bulk(joiner)?, "not as on the donor");
        Ok(())
    })
}
