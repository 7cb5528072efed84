//! What a node remembers of a filesystem that was mounted again, and of a volume that was restored meanwhile: nothing, although
//! inode, length and every time of a file are as before.
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rejoin_lab::mounted::Mounted;
use rejoin_lab::places::{User, program};
use rejoin_lab::skipped::skip;
use rejoin_lab::{Cluster, Node, data, process};
use transfer::disk::identity::look;

const TABLE: &str = "sbtest/sbtest1.ibd";

#[test]
fn a_filesystem_that_was_mounted_again_is_read() -> Result<()> {
    let user = User::for_servers()?;
    if let Some(missing) = Mounted::what_is_missing_for("ext4", user)? {
        return skip(&format!("root and loop devices, to mount ext4: here {missing}"));
    }
    let cluster = Cluster::builder().nodes(1).build()?;
    let node = cluster.node(1);
    node.bootstrap()?;
    data::sysbench_tables(node, 2, 30_000)?;
    node.write_pages()?;
    node.stop()?;
    // A file must have been left alone for two minutes before it is remembered.
    let mounted = Mounted::made("ext4", &node.datadir(), 1, user)?;
    let tables = tables(node)?;
    let mounted = mounted.again("ext4", |image| make_old(image, &tables))?;
    let seen = || look(&node.datadir().join(TABLE))?.context("the table is gone");
    let first = fingerprint(&cluster, node)?;
    ensure!(first.remembered > 0 && first.read >= first.remembered, "{first:?}");
    let second = fingerprint(&cluster, node)?;
    ensure!(second.remembered == first.remembered && second.read < first.read / 4, "{first:?} {second:?}");

    let before = seen()?;
    let mounted = mounted.again("ext4", |_| Ok(()))?;
    let third = fingerprint(&cluster, node)?;
    ensure!(seen()? == before, "the file says nothing of it: {before:?}, {:?}", seen()?);
    ensure!(third.read == first.read, "not everything was read after another mount: {first:?} {third:?}");
    ensure!(fingerprint(&cluster, node)?.read < first.read / 4, "it is remembered anew");

    let block_bytes = rustix::fs::statvfs(node.datadir())?.f_frsize;
    let _mounted = mounted.again("ext4", |image| exchange_a_block(image, block_bytes))?;
    let fourth = fingerprint(&cluster, node)?;
    ensure!(seen()? == before, "the file says nothing of it: {before:?}, {:?}", seen()?);
    ensure!(fourth.read == first.read, "not all of a restored volume was read: {first:?} {fourth:?}");
    Ok(())
}

#[derive(Debug)]
struct Ran {
    remembered: u64,
    read: u64,
}

/// What `rejoin fingerprint` came to. Each run is a program of its own, as in life: one that runs keeps its filesystems mounted.
fn fingerprint(cluster: &Cluster, node: &Node) -> Result<Ran> {
    let mut command: Command = User::for_servers()?.command(cluster.program_dir().join("rejoin"));
    command.args(["fingerprint", "--json", "--datadir"]).arg(node.datadir());
    command.arg("--defaults-file").arg(node.option_file());
    let output = command.output().context("rejoin")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let ran: serde_json::Value = serde_json::from_str(&said)
        .with_context(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))?;
    let number = |key: &str| ran[key].as_u64().with_context(|| format!("no {key}: {said}"));
    Ok(Ran { remembered: number("bytes")?, read: number("read_bytes")? })
}

/// The tables' files, as the filesystem calls them.
fn tables(node: &Node) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for database in ["sbtest", "mysql"] {
        for entry in fs::read_dir(node.datadir().join(database))? {
            found.push(format!("/{database}/{}", entry?.file_name().to_string_lossy()));
        }
    }
    Ok(found)
}

/// Sets the times of files to those of a long time ago. No program can do that to a mounted filesystem.
fn make_old(image: &Path, files: &[String]) -> Result<()> {
    let set = |file: &String| {
        ["ctime", "mtime", "crtime"]
            .map(|time| format!("set_inode_field \"{file}\" {time} 20240101000000\n"))
            .concat()
    };
    debugfs(image, &files.iter().map(set).collect::<String>()).map(drop)
}

/// Another byte in the middle of a table, on the disk alone.
fn exchange_a_block(image: &Path, block_bytes: u64) -> Result<()> {
    let listed = debugfs(image, &format!("blocks /{TABLE}\n"))?;
    let blocks: Vec<u64> = listed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let middle = blocks.get(blocks.len() / 2).context("the table has no blocks")?;
    let (at, mut byte) = (middle * block_bytes + 100, [0]);
    let disk = fs::File::options().read(true).write(true).open(image)?;
    disk.read_exact_at(&mut byte, at)?;
    disk.write_all_at(&[byte[0] ^ 1], at)?;
    Ok(disk.sync_all()?)
}

fn debugfs(image: &Path, commands: &str) -> Result<String> {
    let script = image.with_extension("debugfs");
    fs::write(&script, commands)?;
    let mut command = Command::new(program("debugfs")?);
    command.arg("-w").arg("-f").arg(&script).arg(image);
    process::run(command, Duration::from_secs(60))
}
