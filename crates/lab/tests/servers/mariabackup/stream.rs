//! The decoder of mbstream against `mbstream` itself.
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use formats::mariadb::mbstream::{Decoder, Event};
use rejoin_lab::{Cluster, data, process, sample_schema};

use super::fixture::keep_stream;

/// The decoder reads a real stream as `mbstream -x` extracts it.
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
    // The pieces end anywhere in the format.
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
