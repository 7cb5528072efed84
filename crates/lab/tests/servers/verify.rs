//! `rejoin verify` on datadirs of real servers: what a transfer brought is the same, and each thing that is broken is found.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rejoin_lab::{Cluster, copy_tree, data};
use serde_json::Value;

const PAGE: u64 = 16384;

struct Answer {
    code: i32,
    report: Value,
    errors: String,
}

impl Answer {
    fn different(&self, file: &str) -> Option<&Value> {
        self.report["different"].as_array()?.iter().find(|d| d["file"] == file)
    }

    fn corrupt(&self, what: &str) -> bool {
        let corrupt = self.report["corrupt"].as_array();
        corrupt.is_some_and(|all| all.iter().filter_map(Value::as_str).any(|text| text.contains(what)))
    }

    fn only(&self, side: &str, file: &str) -> bool {
        self.report[side].as_array().is_some_and(|all| all.iter().any(|name| name == file))
    }

    fn unseen(&self, what: &str) -> bool {
        self.report["unseen"]
            .as_array()
            .is_some_and(|all| all.iter().filter_map(Value::as_str).any(|text| text.contains(what)))
    }
}

struct Ground {
    cluster: Cluster,
}

impl Ground {
    fn verify(&self, first: &Path, second: &Path) -> Result<Answer> {
        let mut command = Command::new(self.cluster.program_dir().join("rejoin"));
        command.args(["verify", "--json", "--datadir"]).arg(first).arg("--with").arg(second);
        let options = self.cluster.node(1).option_file();
        command.arg("--defaults-file").arg(&options).arg("--with-defaults-file").arg(&options);
        let out = command.output()?;
        let report = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let errors = String::from_utf8_lossy(&out.stderr).into_owned();
        Ok(Answer { code: out.status.code().context("killed")?, report, errors })
    }

    fn datadir(&self, node: usize) -> PathBuf {
        self.cluster.node(node).datadir()
    }

    /// A copy of a node's datadir, which is stopped.
    fn copy(&self, node: usize, name: &str) -> Result<PathBuf> {
        let to = self.cluster.dir().join(name);
        copy_tree(&self.datadir(node), &to)?;
        Ok(to)
    }
}

fn open(datadir: &Path, name: &str) -> Result<File> {
    let path = datadir.join(name);
    File::options().read(true).write(true).open(&path).with_context(|| path.display().to_string())
}

/// Flips a bit in the middle of pages.
fn damage(datadir: &Path, name: &str, pages: &[u64]) -> Result<()> {
    let file = open(datadir, name)?;
    for page in pages {
        let mut byte = [0];
        let at = page * PAGE + if *page == 0 { 60 } else { 6000 };
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
    }
    Ok(())
}

fn cut(datadir: &Path, name: &str, pages: u64) -> Result<()> {
    let file = open(datadir, name)?;
    Ok(file.set_len(file.metadata()?.len() - pages * PAGE)?)
}

#[test]
fn what_differs_is_found() -> Result<()> {
    // In the background each server counts rows anew, ten seconds after many changed: that differs by when it did.
    let builder = Cluster::builder().nodes(2).mysqld("innodb_stats_auto_recalc=OFF");
    let ground = Ground { cluster: builder.build()? };
    let (donor, joiner) = (ground.cluster.node(1), ground.cluster.node(2));
    donor.bootstrap()?;
    donor.let_in_who_tests()?;
    data::sysbench_tables(donor, 3, 5_000)?;
    let in_system = [
        "SET GLOBAL innodb_file_per_table=OFF",
        "CREATE TABLE sbtest.in_system (a INT PRIMARY KEY, b CHAR(200)) ENGINE=InnoDB",
        "SET GLOBAL innodb_file_per_table=ON",
        "INSERT INTO sbtest.in_system SELECT seq, 'b' FROM sbtest.seq_1_to_5000",
    ];
    in_system.iter().try_for_each(|statement| donor.exec(&[statement]))?;
    joiner.join()?;

    let (one, two) = (ground.datadir(1), ground.datadir(2));
    let refused = ground.verify(&two, &one)?;
    ensure!(refused.code == 3 && refused.errors.contains("runs on"), "{}: {}", refused.code, refused.errors);
    joiner.stop()?;
    let running = ground.verify(&two, &one)?;
    ensure!(running.report["running"] == true, "{:#}", running.report);
    // By its socket: the server itself says where its files are, to the user that asks.
    let by_socket = ground.verify(&two, &ground.cluster.node(1).socket())?;
    ensure!(
        by_socket.report["files"] == running.report["files"] && by_socket.code == running.code,
        "{:#}\n{}",
        by_socket.report,
        by_socket.errors
    );
    donor.stop()?;
    after_a_transfer(&ground)?;
    nothing_to_compare(&ground)?;
    broken_tables(&ground)?;
    broken_first_pages(&ground)?;
    the_system_tablespace(&ground)?;
    not_shut_down(&ground)
}

/// Nothing was written since the transfer but what each server keeps for itself.
fn after_a_transfer(ground: &Ground) -> Result<()> {
    let answer = ground.verify(&ground.datadir(2), &ground.datadir(1))?;
    let report = &answer.report;
    ensure!(answer.code == 0 && report["files"].as_u64() > Some(50), "{}: {report:#}", answer.code);
    ensure!(
        report["corrupt_pages"] == 0 && report["unseen"].as_array().is_some_and(Vec::is_empty),
        "{report:#}"
    );
    Ok(())
}

fn nothing_to_compare(ground: &Ground) -> Result<()> {
    let empty = ground.cluster.dir().join("empty");
    std::fs::create_dir(&empty)?;
    for nothing in [empty, ground.cluster.dir().join("not-there")] {
        let answer = ground.verify(&nothing, &ground.datadir(1))?;
        ensure!(answer.code == 3 && !answer.errors.is_empty(), "{nothing:?}: {}", answer.code);
        let answer = ground.verify(&ground.datadir(1), &nothing)?;
        ensure!(answer.code == 3 && !answer.errors.is_empty(), "{nothing:?}: {}", answer.code);
    }
    Ok(())
}

fn broken_tables(ground: &Ground) -> Result<()> {
    let copy = ground.copy(2, "broken")?;
    let same = ground.verify(&copy, &ground.datadir(2))?;
    ensure!(same.code == 0 && same.report["different"] == Value::Array(vec![]), "{:#}", same.report);

    std::fs::write(copy.join("sbtest/db.opt"), "default-character-set=latin1\n")?;
    std::fs::remove_file(copy.join("ib_buffer_pool"))?;
    let different = ground.verify(&copy, &ground.datadir(2))?;
    ensure!(different.code == 1, "{}: {:#}", different.code, different.report);
    ensure!(different.different("sbtest/db.opt").is_some_and(|d| d["own_life"] == false));
    ensure!(
        different.different("innodb_data_home_dir/ib_buffer_pool").is_some_and(|d| d["own_life"] == true)
    );

    damage(&copy, "sbtest/sbtest1.ibd", &[5])?;
    cut(&copy, "sbtest/sbtest2.ibd", 3)?;
    std::fs::remove_file(copy.join("sbtest/sbtest3.ibd"))?;
    let other = ground.copy(1, "other")?;
    // Behind the other side's end, and where the other side has nothing.
    let end = other.join("sbtest/sbtest2.ibd").metadata()?.len() / PAGE;
    let last = (end - 3..end).find(|page| is_written(&other, "sbtest/sbtest2.ibd", *page));
    damage(&other, "sbtest/sbtest2.ibd", &[last.unwrap_or(3)])?;
    damage(&other, "sbtest/sbtest3.ibd", &[7])?;
    let broken = ground.verify(&copy, &other)?;
    let report = &broken.report;
    ensure!(broken.code == 4, "{}: {report:#}", broken.code);
    ensure!(broken.corrupt("sbtest1.ibd page 5") && broken.corrupt("sbtest3.ibd page 7"), "{report:#}");
    ensure!(broken.corrupt(&format!("sbtest2.ibd page {}", last.unwrap_or(3))), "{report:#}");
    ensure!(broken.corrupt("its first page says"), "{report:#}");
    let first = broken.different("sbtest/sbtest1.ibd").context("a flipped byte")?;
    ensure!(first["pages"] == 1 && first["first"][0] == 5 && first["headers_only"] == 0, "{first:#}");
    let second = broken.different("sbtest/sbtest2.ibd").context("a cut file")?;
    ensure!(second["sizes"][0].as_u64() < second["sizes"][1].as_u64(), "{second:#}");
    ensure!(broken.only("only_second", "sbtest/sbtest3.ibd"), "{report:#}");
    Ok(())
}

fn is_written(datadir: &Path, name: &str, page: u64) -> bool {
    let mut bytes = vec![0; PAGE as usize];
    let read = open(datadir, name).is_ok_and(|file| file.read_exact_at(&mut bytes, page * PAGE).is_ok());
    read && bytes.iter().any(|byte| *byte != 0)
}

/// A first page that does not read hides nothing of the others.
fn broken_first_pages(ground: &Ground) -> Result<()> {
    let (one, two) = (ground.copy(2, "first1")?, ground.copy(2, "first2")?);
    damage(&one, "sbtest/sbtest1.ibd", &[0, 5])?;
    let answer = ground.verify(&one, &two)?;
    ensure!(answer.code == 4 && answer.report["corrupt_pages"] == 2, "{}: {:#}", answer.code, answer.report);
    ensure!(
        answer.corrupt("sbtest1.ibd page 0") && answer.corrupt("sbtest1.ibd page 5"),
        "{:#}",
        answer.report
    );
    damage(&two, "sbtest/sbtest1.ibd", &[0, 6])?;
    let answer = ground.verify(&one, &two)?;
    ensure!(answer.code == 4 && answer.report["corrupt_pages"] == 4, "{}: {:#}", answer.code, answer.report);
    ensure!(answer.corrupt("sbtest1.ibd page 6"), "{:#}", answer.report);
    // Nothing of it says what it is.
    for side in [&one, &two] {
        open(side, "sbtest/sbtest1.ibd")?.write_all_at(&[0xee; 200], 0)?;
    }
    let answer = ground.verify(&one, &two)?;
    ensure!(answer.code == 4 && answer.corrupt("sbtest1.ibd page 0 is unreadable"), "{:#}", answer.report);
    Ok(())
}

/// Tables in it count, what the server keeps there does not.
fn the_system_tablespace(ground: &Ground) -> Result<()> {
    let copy = ground.copy(2, "system")?;
    let name = "system tablespace file 0";
    let file = open(&copy, "ibdata1")?;
    let pages = file.metadata()?.len() / PAGE;
    // Its pages were made last: the highest B-tree leaf.
    let mut page = vec![0; PAGE as usize];
    let leaf = (0..pages).rev().find(|number| {
        file.read_exact_at(&mut page, number * PAGE).is_ok() && page[24..26] == 17855u16.to_be_bytes()
    });
    let leaf = leaf.context("no page of a table")?;
    damage(&copy, "ibdata1", &[leaf])?;
    let answer = ground.verify(&copy, &ground.datadir(2))?;
    let different = answer.different(name).context("a row in the system tablespace")?;
    ensure!(different["own_life"] == false && answer.code == 4, "{}: {:#}", answer.code, answer.report);
    cut(&copy, "ibdata1", pages - leaf)?;
    let answer = ground.verify(&copy, &ground.datadir(2))?;
    let different = answer.different(name).context("a cut system tablespace")?;
    ensure!(different["own_life"] == false && answer.corrupt("its first page says"), "{:#}", answer.report);
    Ok(())
}

/// Its pages are not its state.
fn not_shut_down(ground: &Ground) -> Result<()> {
    let donor = ground.cluster.node(1);
    donor.bootstrap()?;
    donor.exec(&["UPDATE sbtest.sbtest1 SET k = k + 1 WHERE id < 100"])?;
    donor.kill();
    let answer = ground.verify(&ground.datadir(1), &ground.datadir(2))?;
    ensure!(answer.unseen("the first was not shut down"), "{:#}", answer.report);
    ensure!(
        answer.code == 1 && answer.report["state_in_redo"] == true,
        "{}: {:#}",
        answer.code,
        answer.report
    );
    let copy = ground.copy(1, "crashed")?;
    let answer = ground.verify(&ground.datadir(1), &copy)?;
    ensure!(answer.code == 0 && answer.unseen("the second was not shut down"), "{:#}", answer.report);
    Ok(())
}
