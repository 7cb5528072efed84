//! What an install cannot do is refused before it begins; what is only left behind is told.
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::{Context, Result, ensure};
use rejoin_lab::Node;
use rejoin_lab::mounted::{Mounted, where_we_may_mount};
use rejoin_lab::places::User;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::fake::Ended;
use super::fake_transfer::{Fakes, SOON};
use super::manifest::Manifest;
use super::pair::{set_sst, verb};

/// Databases with names of files that a server makes; it accepts them all.
const ODD: [&str; 4] = ["undo001", "ib_logfile101", "sst_in_progress", "ibtmp2"];

/// A donor with a database `shop` and those of odd names; the joiner has `old`, which the donor has not.
fn fakes() -> Result<Fakes> {
    let mut fakes = Fakes::new()?;
    fakes.live_on(|donor| {
        for name in ODD.iter().chain(["shop"].iter()) {
            donor.exec(&[
                &format!("CREATE DATABASE {name}"),
                &format!("CREATE TABLE {name}.t (a INT PRIMARY KEY) ENGINE=InnoDB"),
                &format!("INSERT INTO {name}.t VALUES (1), (2), (3)"),
            ])?;
        }
        Ok(())
    })?;
    fs::create_dir(fakes.joiner().datadir().join("old"))?;
    for name in ["db.opt", "v.frm"] {
        fs::write(fakes.joiner().datadir().join("old").join(name), "TYPE=VIEW\n")?;
    }
    let user = User::for_servers()?;
    user.own(&fakes.joiner().datadir())?;
    // Root may do what no server may.
    fakes.user = Some(user);
    Ok(fakes)
}

/// Neither begins: both say this, and the joiner's data is untouched.
fn refused(fakes: &Fakes, words: &[&str]) -> Result<()> {
    let before = Manifest::of(&fakes.joiner().datadir())?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let donor = fakes.full(&address, &auth)?;
    let joiner = joiner.end(SOON)?;
    let donor = donor.end(SOON)?;
    for (who, ended) in [("donor", &donor), ("joiner", &joiner)] {
        for word in words {
            ensure!(ended.stderr.contains(word), "the {who} does not say {word:?}:\n{}", ended.stderr);
        }
    }
    ensure!(joiner.code == Some(71) && donor.code != Some(0), "{:?} and {:?}", joiner.code, donor.code);
    ensure!(donor.stdout.is_empty(), "the donor's server was asked for something: {:?}", donor.stdout);
    let changed = before.differences(&Manifest::of(&fakes.joiner().datadir())?);
    ensure!(changed.is_empty(), "changed: {changed:?}");
    fakes.nothing_is_left()
}

fn arrives(fakes: &Fakes) -> Result<Ended> {
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let donor = fakes.full(&address, &auth)?;
    let donor = fakes.serve(donor)?;
    let joiner = joiner.end(SOON)?;
    ensure!(joiner.code == Some(0) && donor.code == Some(0), "{}\n{}", donor.stderr, joiner.stderr);
    Ok(joiner)
}

#[test]
fn what_would_stop_an_install_is_refused_before_anything_travels() -> Result<()> {
    let fakes = fakes()?;
    let data = fakes.joiner().datadir();
    let shop = data.join("shop");
    let at = |text: &str| format!("{}{text}", shop.display());

    symlink("/mnt/not-mounted/shop", &shop)?;
    refused(
        &fakes,
        &[&at(" is a link to /mnt/not-mounted/shop, which does not exist"), "or remove the link"],
    )?;
    fs::remove_file(&shop)?;

    fs::write(&shop, "")?;
    refused(&fakes, &[&at(" is a file, but must be a directory"), "move it away"])?;
    fs::remove_file(&shop)?;

    mkfifoat(CWD, &shop, Mode::RUSR | Mode::WUSR)?;
    refused(&fakes, &[&at(" is a FIFO, but must be a directory"), "move it away"])?;
    fs::remove_file(&shop)?;

    // Root's, where root may make such; then its own, without the right to write.
    fs::create_dir(&shop)?;
    if !User::for_servers()?.switch {
        fs::set_permissions(&shop, Permissions::from_mode(0o555))?;
    }
    refused(&fakes, &[&at(" is not writable for"), "chown"])?;
    fs::remove_dir(&shop)?;
    let old = data.join("old");
    fs::set_permissions(&old, Permissions::from_mode(0o555))?;
    refused(&fakes, &["/old is not writable for", "chmod u+rwx"])?;
    fs::set_permissions(&old, Permissions::from_mode(0o755))?;

    // This node's server would not start on it.
    let options = fs::read_to_string(fakes.joiner().option_file())?;
    fakes.joiner().add_options("mysqld", &["innodb_undo_tablespaces=2"])?;
    refused(&fakes, &["undo001 is an undo tablespace", "rename the database on the donor"])?;
    fs::write(fakes.joiner().option_file(), options)?;

    // With nothing in the way all of it arrives, twice: the second time the directories are there.
    for _ in 0..2 {
        arrives(&fakes)?;
        same_databases(fakes.donor(), fakes.joiner())?;
    }
    fakes.nothing_is_left()
}

fn same_databases(donor: &Node, joiner: &Node) -> Result<()> {
    for name in ODD.iter().chain(["shop"].iter()) {
        for file in ["t.ibd", "t.frm", "db.opt"] {
            let read = |node: &Node| fs::read(node.datadir().join(name).join(file));
            let (sent, came) = (read(donor)?, read(joiner).with_context(|| format!("{name}/{file}"))?);
            ensure!(sent == came, "{name}/{file} differs");
        }
    }
    Ok(())
}

#[test]
fn a_database_that_the_donor_dropped_may_be_a_mount_point() -> Result<()> {
    let test = "dry_run::a_database_that_the_donor_dropped_may_be_a_mount_point";
    where_we_may_mount(test, |user| {
        let fakes = fakes()?;
        let old = fakes.joiner().datadir().join("old");
        let _mounted = Mounted::small(&old, 8, user)?;
        set_sst(fakes.joiner(), &["keep-previous=always"])?;
        let before = Manifest::of(&fakes.joiner().datadir())?;
        let joiner = arrives(&fakes)?;
        let warning = format!("{} stays although the new data has no such database", old.display());
        ensure!(joiner.stderr.contains(&warning), "{}", joiner.stderr);
        same_databases(fakes.donor(), fakes.joiner())?;
        ensure!(old.is_dir() && !old.join("v.frm").exists());
        let (went, said) = verb(&fakes.cluster, fakes.joiner(), "rollback")?;
        ensure!(went, "{said}");
        let changed = before.differences(&Manifest::of(&fakes.joiner().datadir())?);
        ensure!(changed.is_empty(), "changed: {changed:?}");
        Ok(())
    })
}
