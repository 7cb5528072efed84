//! Streams of mariadb-backup in files: their format, and a base that a command of the joiner restores from one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use formats::mariadb::mbstream::{Decoder, Event};
use rejoin_lab::progress::sent;
use rejoin_lab::{Cluster, Node, compare, data, places, process, sample_schema};

use crate::{ROWS, TABLES, changed, script};

/// What `mbstream -x` makes of a real stream is what is read of it here.
#[test]
fn a_real_stream_is_read_as_mbstream_reads_it() -> Result<()> {
    let cluster = Cluster::builder().nodes(1).build()?;
    let node = cluster.node(1);
    node.bootstrap()?;
    sample_schema::create(node)?;
    data::sysbench_tables(node, 2, 3000)?;
    // Tables that were created since the last checkpoint have other names in a backup.
    node.checkpoint()?;
    node.exec(&["CREATE TABLE sbtest.later (a INT PRIMARY KEY)"])?;
    let stream = cluster.dir().join("stream");
    keep_stream(node, &stream)?;

    let (mut decoder, mut files) = (Decoder::new(), BTreeMap::<String, Vec<u8>>::new());
    let bytes = fs::read(&stream)?;
    // Pieces of a length that fits nothing in the format.
    for mut input in bytes.chunks(77_777) {
        while let Some(event) = decoder.next(&mut input)? {
            let file = files.entry(decoder.path().to_owned()).or_default();
            match event {
                Event::Data { offset, bytes } => {
                    ensure!(offset == file.len() as u64, "{} is not in order", decoder.path());
                    file.extend_from_slice(bytes);
                }
                Event::Chunk { .. } | Event::ChunkEnd { .. } | Event::FileEnd => {}
                Event::Removed | Event::Renamed => anyhow::bail!("{event:?} although nothing changes"),
            }
        }
    }
    ensure!(decoder.is_between_chunks());
    let extracted = cluster.dir().join("extracted");
    fs::create_dir(&extracted)?;
    restore(&stream, &extracted)?;
    let mut theirs = BTreeMap::new();
    for entry in walk(&extracted)? {
        let name = entry.strip_prefix(&extracted)?.to_string_lossy().into_owned();
        theirs.insert(name, fs::read(&entry)?);
    }
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&files) == names(&theirs), "{:?}\n{:?}", names(&files), names(&theirs));
    let differs = files.iter().find(|(name, bytes)| theirs[*name] != **bytes);
    ensure!(differs.is_none(), "{:?} differs", differs.map(|(name, _)| name));
    for name in [
        "ibdata1",
        "ib_logfile0",
        "sbtest/sbtest1.ibd",
        "sbtest/later.new",
        "xtrabackup_galera_info",
        "backup-my.cnf",
    ] {
        ensure!(files.contains_key(name), "no {name} in {:?}", names(&files));
    }
    Ok(())
}

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

fn keep_stream(node: &Node, stream: &Path) -> Result<()> {
    let text = format!(
        "mariadb-backup --no-defaults --backup --galera-info --stream=mbstream --user=root --socket={} --target-dir={} >{} 2>{}",
        node.socket().display(),
        node.dir().join("tmp").display(),
        stream.display(),
        node.dir().join("tmp/backup.log").display(),
    );
    let mut command = places::User::for_servers()?.command("/bin/sh");
    command.args(["-c", &text]);
    fs::write(stream, "")?;
    places::User::for_servers()?.own(stream)?;
    process::run(command, Duration::from_secs(120)).with_context(|| {
        process::tail(&fs::read_to_string(node.dir().join("tmp/backup.log")).unwrap_or_default(), 20)
    })?;
    Ok(())
}

fn restore(stream: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("mbstream -x -C {} <{}", to.display(), stream.display())]);
    process::run(command, Duration::from_secs(60)).map(drop)
}

fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    Ok(files)
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
