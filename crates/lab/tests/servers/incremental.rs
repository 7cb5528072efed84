//! A joiner that has most of what the donor has receives little, and is the same in the end whatever it had.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rejoin_lab::progress::sent;
use rejoin_lab::{Cluster, Node, compare, data, places, process, sample_schema, sst};
use report::Record;
use report::record::{Bytes, Table};
use transfer::disk::filesystem::shares_bytes;
use transfer::server::records::Records;

const TABLES: u32 = 4;
const ROWS: u32 = 30_000;

#[test]
fn only_what_changed_travels_from_either_source() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).sst("compress=zstd").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    sample_schema::create(donor)?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    joiner.join()?;
    let full = sent(joiner)?;
    // What is kept needs the files as they are.
    joiner.wait_tidy()?;
    joiner.stop()?;
    donor.write_pages()?;
    for snapshot in ["online", "blocking"] {
        set_snapshot(donor, snapshot)?;
        // Only a few rows of one table, and a table more.
        donor.exec(&[
            "USE sbtest",
            &format!("UPDATE sbtest1 SET c = 'changed by {snapshot}' WHERE id BETWEEN 100 AND 120"),
            &format!("CREATE TABLE of_{snapshot} (a INT PRIMARY KEY) SELECT seq a FROM seq_1_to_1000"),
        ])?;
        // Or the change would come as redo, and the table be the same.
        donor.write_pages()?;
        joiner.remove_grastate()?;
        joiner.join()?;
        sst::assert_snapshot(joiner, snapshot)?;
        let little = sent(joiner)?;
        // The blocking snapshot sends the whole redo log, and compares only what is compared sooner than sent (decision 0023).
        let enough = match snapshot {
            "blocking" => little.same > little.all / 4,
            _ => little.same > little.all / 4 * 3 && little.wire < full.wire / 2,
        };
        ensure!(enough, "{snapshot}: {little:?}, all were {full:?}\n{}", rejoin_words(joiner));
        ensure!(rejoin_words(joiner).contains("donor says: plan: incremental, "), "{}", rejoin_words(joiner));
        ensure!(rejoin_words(joiner).contains("installed here came from n1"), "{}", rejoin_words(joiner));
        // A database of which every file stays is not one that the donor has dropped.
        ensure!(!rejoin_words(joiner).contains("stays although"), "{}", rejoin_words(joiner));
        // Where bytes can be shared, whole tables are as cheap.
        let patched = !rejoin_words(joiner).contains(", 0 patched in place");
        ensure!(patched != shares_bytes(&joiner.datadir()), "{}", rejoin_words(joiner));
        compare::assert_equal(donor, joiner)?;
        joiner.wait_tidy()?;
        joiner.stop()?;
    }
    // The operator can have everything sent.
    joiner.add_options("sst", &["incremental=0"])?;
    joiner.remove_grastate()?;
    joiner.join()?;
    ensure!(!joiner.log_since_start().contains("incremental:"));
    ensure!(donor.log_text().contains("plan: full"), "{}", rejoin_words(donor));
    compare::assert_equal(donor, joiner)
}

#[test]
fn rot_in_the_joiners_files_is_healed() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    joiner.join()?;
    joiner.stop()?;
    let table = joiner.datadir().join("sbtest/sbtest2.ibd");
    let file = File::options().read(true).write(true).open(&table)?;
    // A page of zeros, one of something else, a byte, and a tail.
    file.write_all_at(&[0; 16384], 7 << 14)?;
    file.write_all_at(&[0xa5; 16384], 20 << 14)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, (30 << 14) + 5000)?;
    file.write_all_at(&[byte[0] ^ 0x10], (30 << 14) + 5000)?;
    file.set_len(file.metadata()?.len() + 65536)?;
    drop(file);
    // And one that is cut short, one that is gone.
    let cut = joiner.datadir().join("sbtest/sbtest3.ibd");
    let file = File::options().write(true).open(&cut)?;
    file.set_len(file.metadata()?.len() / 2)?;
    std::fs::remove_file(joiner.datadir().join("sbtest/sbtest4.ibd"))?;
    joiner.remove_grastate()?;
    joiner.join()?;
    let log = joiner.log_since_start();
    ensure!(log.contains("corrupt pages in the old files: 2, the first is page 20 of"), "{log}");
    compare::assert_equal(donor, joiner)?;
    joiner.stop()?;
    ensure!(joiner.innochecksum()? > 4, "tablespaces were checked");
    donor.stop()?;
    for name in ["sbtest1", "sbtest2", "sbtest3", "sbtest4"] {
        same_length(donor, joiner, &PathBuf::from(format!("sbtest/{name}.ibd")))?;
    }
    Ok(())
}

#[test]
fn a_backup_on_the_host_is_a_base() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    donor.write_pages()?;
    joiner.join()?;
    joiner.stop()?;
    let backup = cluster.dir().join("backup");
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(joiner.datadir()).arg(&backup);
    process::run(copy, Duration::from_secs(60))?;
    let before = files_of(&backup)?;

    joiner.wipe()?;
    joiner.add_options("sst", &["base=/nowhere"])?;
    let refused = joiner.fail_to_join()?;
    ensure!(refused.contains("base=/nowhere under [sst] is not a readable directory"), "{refused}");
    joiner.add_options("sst", &[&format!("base={}", backup.display())])?;
    donor.wait_synced_again(Duration::from_secs(30))?;
    donor.exec(&["USE sbtest", "UPDATE sbtest1 SET c = 'changed' WHERE id < 100"])?;
    joiner.join()?;
    let little = sent(joiner)?;
    ensure!(little.same > little.all / 2, "{little:?}\n{}", rejoin_words(joiner));
    compare::assert_equal(donor, joiner)?;
    ensure!(files_of(&backup)? == before, "the backup was written to");

    // Data that has nothing in common with the donor's is not compared.
    joiner.stop()?;
    for path in
        files_of(&joiner.datadir())?.into_keys().filter(|path| path.extension().is_some_and(|e| e == "ibd"))
    {
        let len = path.metadata()?.len() as usize;
        let noise: Vec<u8> = (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect();
        std::fs::write(&path, noise)?;
    }
    joiner.remove_grastate()?;
    joiner.add_options("sst", &["base="])?;
    joiner.join()?;
    ensure!(rejoin_words(joiner).contains("plan: full"), "{}", rejoin_words(joiner));
    ensure!(sent(joiner)?.same == 0, "{}", rejoin_words(joiner));
    compare::assert_equal(donor, joiner)?;
    records_tell_the_same(donor, joiner)
}

/// What the records say of the three transfers above: one that the joiner refused, one that compared, one that did not.
fn records_tell_the_same(donor: &Node, joiner: &Node) -> Result<()> {
    let (donors, joiners) = (records_of(donor, "donor")?, records_of(joiner, "joiner")?);
    // The joiner's directory was emptied after the first one.
    ensure!((donors.len(), joiners.len()) == (4, 3), "{donors:?}\n{joiners:?}");
    let ids: BTreeSet<&Option<String>> = donors.iter().map(|record| &record.id).collect();
    ensure!(ids.len() == 4 && !ids.contains(&None), "{ids:?}");
    for (donors, joiners) in donors[1..].iter().zip(&joiners) {
        ensure!(donors.id == joiners.id, "{donors:?}\n{joiners:?}");
        ensure!(joiners.peer.as_ref().and_then(|peer| peer.name.as_deref()) == Some("n1"), "{joiners:?}");
        let apart = donors.connected_ms.zip(joiners.connected_ms).context("connected")?;
        ensure!(apart.0.abs_diff(apart.1) < 2000, "one host, one clock: {apart:?}");
        for record in [donors, joiners] {
            let ends = record.phases.windows(2).all(|two| two[0].ended_ms == two[1].began_ms);
            ensure!(
                ends && record.phases[0].began_ms == record.began_ms && record.ended_ms.is_some(),
                "{record:?}"
            );
        }
    }
    let why = "base=/nowhere under [sst] is not a readable directory";
    ensure!(joiners[0].failure().is_some_and(|reason| reason.starts_with(why)), "{:?}", joiners[0].outcome);
    let why = format!("the joiner gave up: {why}");
    ensure!(donors[1].failure().is_some_and(|reason| reason.starts_with(&why)), "{:?}", donors[1].outcome);
    for (donors, joiners) in donors[2..].iter().zip(&joiners[1..]) {
        same_bytes(donors, joiners).with_context(|| format!("{donors:#?}\n{joiners:#?}"))?;
    }
    let full = |record: &Record| record.plan.as_ref().is_some_and(|plan| plan.full);
    ensure!(!full(&joiners[1]) && !full(&donors[2]) && full(&joiners[2]) && full(&donors[3]), "{joiners:?}");
    ensure!(joiners[1].bytes.reused > joiners[1].bytes.sent && joiners[2].bytes.reused == 0, "{joiners:?}");

    let mut command = Command::new(places::rejoin_binary()?);
    command.arg("report").args([donor.datadir(), joiner.datadir()]);
    let page = process::run(command, Duration::from_secs(20))?;
    ensure!(page.contains("#4 n2 from n1") && !page.contains("#5 "), "{page}");
    ensure!(page.matches("aria-label=\"Phases of the donor n1").count() == 4, "{page}");
    ensure!(page.contains("sbtest.sbtest1") && page.contains("Failed on the joiner after "), "{page}");
    Ok(())
}

/// Both hosts counted the same, and every byte once.
fn same_bytes(donor: &Record, joiner: &Record) -> Result<()> {
    ensure!(donor.is_ok() && joiner.is_ok());
    let (sent, received) = (&donor.bytes, &joiner.bytes);
    ensure!((sent.reused, sent.redo, sent.total) == (received.reused, received.redo, received.total));
    // A block that the joiner could not rebuild is sent again.
    let in_parts = |bytes: &Bytes| bytes.sent + bytes.rebuilt;
    ensure!(in_parts(sent).abs_diff(in_parts(received)) < 1 << 20);
    ensure!(sent.network.abs_diff(received.network) < 64 << 10);
    for Record { bytes, tables, other_tables, samples, .. } in [donor, joiner] {
        let all = bytes.sent + bytes.reused + bytes.rebuilt + bytes.zero;
        ensure!(all + bytes.redo >= bytes.total, "some bytes are not counted");
        let of_tables: u64 = tables.iter().chain(other_tables).map(Table::all).sum();
        ensure!(of_tables == all && tables.is_sorted_by_key(|table| Reverse(table.all())));
        ensure!(tables.iter().any(|table| table.name == "sbtest.sbtest1"));
        ensure!((2..=500).contains(&samples.len()) && samples.is_sorted_by_key(|sample| sample.network));
        ensure!(samples.last().is_some_and(|last| last.network <= bytes.network));
    }
    ensure!(donor.position.after.is_some() && donor.position.after == joiner.position.after);
    let words = |record: &Record| record.plan.as_ref().map(|plan| plan.words.clone());
    ensure!(words(donor).is_some() && words(donor) == words(joiner));
    ensure!(donor.pauses.iter().any(|pause| pause.what == "replication" && pause.took_us > 0));
    Ok(())
}

/// The records in a node's datadir, the oldest first. There are none of the other role, and nothing else of this name.
fn records_of(node: &Node, role: &str) -> Result<Vec<Record>> {
    for path in files_of(&node.datadir())?.into_keys() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("rejoin-") && name.contains(".json") && name.contains("r-20") {
            ensure!(name.starts_with(&format!("rejoin-{role}-")) && name.ends_with(".json"), "{name}");
            ensure!(path.metadata()?.permissions().mode() & 0o777 == 0o640, "{name}");
        }
    }
    let mut found = Records::default();
    found.add(&node.datadir())?;
    ensure!(found.unread.is_empty(), "{:?}", found.unread);
    Ok(found.records)
}

/// Every file, its length and when it was written last.
fn files_of(dir: &Path) -> Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() {
            found.extend(files_of(&entry.path())?);
        } else {
            found.insert(entry.path(), (meta.len(), meta.modified()?));
        }
    }
    Ok(found)
}

#[test]
fn a_broken_transfer_is_gone_on_with() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, 2 * ROWS)?;
    donor.write_pages()?;
    joiner.wipe()?;
    donor.add_options("sst", &["rlimit=8M", "compress=none"])?;
    joiner.cut_joining(donor, 30 << 20)?;
    let staged = std::fs::read_dir(joiner.datadir().join(".rejoin/stage")).context("what had come")?.count();
    ensure!(staged > 0, "nothing of what had come is left");
    // What was sent meanwhile is changed, in part.
    donor.exec(&["USE sbtest", "UPDATE sbtest1 SET c = 'changed' WHERE id < 100"])?;
    donor.add_options("sst", &["rlimit=4G"])?;
    joiner.join()?;
    let received = sent(joiner)?.received;
    ensure!(
        received > 15 << 20,
        "{received} bytes of {staged} files were used again\n{}",
        rejoin_words(joiner)
    );
    compare::assert_equal(donor, joiner)?;
    joiner.wait_tidy()?;
    joiner.stop()?;
    ensure!(joiner.innochecksum()? > 4, "tablespaces were checked");
    Ok(())
}

/// What had arrived lies over the old files: of a range of which some blocks had come the others are still known.
#[test]
fn of_a_broken_incremental_transfer_nothing_comes_again() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).sst("compress=none").sst("delta=off").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, TABLES, ROWS)?;
    joiner.join()?;
    joiner.stop()?;
    // A row in about every second page.
    for table in 1..=TABLES {
        let change = format!("UPDATE sbtest.sbtest{table} SET pad = REVERSE(pad) WHERE id % 140 = 0");
        donor.exec(&[&change])?;
    }
    donor.write_pages()?;
    let kept = joiner.snapshot("kept")?;
    joiner.remove_grastate()?;
    joiner.join()?;
    let whole = sent(joiner)?;
    ensure!(whole.same > whole.wire / 2, "about half of it is the same: {whole:?}");
    joiner.stop()?;

    joiner.restore(&kept)?;
    joiner.remove_grastate()?;
    donor.add_options("sst", &["rlimit=3M"])?;
    joiner.cut_joining(donor, whole.wire / 5 * 3)?;
    donor.add_options("sst", &["rlimit=4G"])?;
    joiner.remove_grastate()?;
    joiner.join()?;
    let rest = sent(joiner)?;
    ensure!(rest.wire < whole.wire / 20 * 13, "{rest:?} after a cut of {whole:?}\n{}", rejoin_words(joiner));
    compare::assert_equal(donor, joiner)?;
    joiner.wait_tidy()?;
    joiner.stop()?;
    ensure!(joiner.innochecksum()? > 4, "tablespaces were checked");
    Ok(())
}

/// Two nodes that lived together wrote most pages each in its own way.
#[test]
fn of_pages_in_two_versions_the_parts_travel_that_differ() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).sst("compress=none").build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, 2, ROWS)?;
    joiner.join()?;
    donor.exec(&["USE sbtest", "UPDATE sbtest1 SET k = k + 1", "UPDATE sbtest2 SET c = REVERSE(c)"])?;
    compare::wait_caught_up(donor, joiner, Duration::from_secs(60))?;
    joiner.stop()?;
    donor.exec(&["USE sbtest", "UPDATE sbtest1 SET c = 'changed' WHERE id % 100 = 0"])?;
    // Purge would go on after the restart, and what it writes to the redo log come with every transfer.
    compare::wait_purged(donor, 0, Duration::from_secs(60))?;
    donor.write_pages()?;
    let kept = joiner.snapshot("kept")?;
    let mut sent_by = BTreeMap::new();
    for (delta, snapshot) in [("off", "online"), ("page", "online"), ("page", "blocking")] {
        joiner.restore(&kept)?;
        joiner.remove_grastate()?;
        donor.add_options("sst", &[&format!("delta={delta}"), &format!("snapshot={snapshot}")])?;
        joiner.join()?;
        sst::assert_snapshot(joiner, snapshot)?;
        sent_by.insert((delta, snapshot), sent(joiner)?.wire);
        compare::assert_equal(donor, joiner)?;
        joiner.wait_tidy()?;
        joiner.stop()?;
        ensure!(joiner.innochecksum()? > 4, "tablespaces were checked");
    }
    // (The blocking snapshot sends the redo log too.)
    let (whole, parts) = (sent_by[&("off", "online")], sent_by[&("page", "online")]);
    ensure!(parts * 5 < whole * 2, "{sent_by:?}");
    Ok(())
}

fn same_length(a: &Node, b: &Node, path: &PathBuf) -> Result<()> {
    let len = |node: &Node| Ok::<_, anyhow::Error>(node.datadir().join(path).metadata()?.len());
    ensure!(len(a)? == len(b)?, "{} is not as long on both", path.display());
    Ok(())
}

fn set_snapshot(donor: &Node, snapshot: &str) -> Result<()> {
    // While the donor's server blocks writes, files are compared only where sending them takes longer.
    let link = if snapshot == "blocking" { "rlimit=10M" } else { "rlimit=0" };
    donor.add_options("sst", &[&format!("snapshot={snapshot}"), link])
}

/// What our program says in a node's log.
fn rejoin_words(node: &Node) -> String {
    let log = node.log_since_start();
    log.lines().filter(|line| line.contains("WSREP_SST")).map(|line| format!("{line}\n")).collect()
}
