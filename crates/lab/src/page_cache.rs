//! The files of a datadir and the page cache: what it holds of them, and how long it takes to read them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::places;

/// What a server makes for itself: no state transfer compares these, and most do not carry them.
const OWN: [&str; 4] = ["galera.cache", "gcache.page.", "ib_logfile", "ibtmp"];
/// Files that are named to one program.
const AT_ONCE: usize = 1000;

/// The files of a datadir that hold its data: all but the redo log, temporary tables and Galera's cache.
pub fn data_files(datadir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = files(datadir)?;
    all.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !OWN.iter().any(|own| name.starts_with(own))
    });
    Ok(all)
}

/// Bytes that these files take on disk.
pub fn bytes_on_disk(files: &[PathBuf]) -> u64 {
    files.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Bytes of a datadir's data files that the page cache holds.
pub fn cached(datadir: &Path) -> Result<u64> {
    let program = places::program("fincore")?;
    let mut sum = 0;
    for some in data_files(datadir)?.chunks(AT_ONCE) {
        let mut fincore = Command::new(&program);
        fincore.args(["--bytes", "--noheadings", "--raw", "--output", "RES"]).args(some);
        // Files come and go while a server runs: fincore complains, and is right about the rest.
        let output = fincore.output().context("fincore")?;
        sum += sum_of_lines(&String::from_utf8_lossy(&output.stdout)).context("what fincore says")?;
    }
    Ok(sum)
}

fn sum_of_lines(text: &str) -> Result<u64> {
    text.lines().map(|line| Ok(line.trim().parse::<u64>()?)).sum()
}

/// How long `cat` takes for the data files of these datadirs, with a `cat` for each of them at the same time.
pub fn cat(datadirs: &[PathBuf]) -> Result<Duration> {
    let all = datadirs.iter().map(|datadir| data_files(datadir)).collect::<Result<Vec<_>>>()?;
    let cat = |files: &[PathBuf]| -> Result<()> {
        files.chunks(AT_ONCE).try_for_each(|some| {
            let mut cat = Command::new("cat");
            cat.args(some).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // A file that has gone meanwhile is no matter.
            cat.status().context("cat").map(drop)
        })
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let cats: Vec<_> = all.iter().map(|files| scope.spawn(|| cat(files))).collect();
        let ended = cats.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a cat panicked"))?);
        ended.collect::<Result<()>>()
    })?;
    Ok(began.elapsed())
}

/// Reads everything below a directory: the page cache has it then.
pub fn read_all(dir: &Path) -> Result<()> {
    each_file(dir, &|file| io::copy(file, &mut io::sink()).map(drop))
}

/// Has the page cache forget everything below a directory that is on disk.
pub fn forget_all(dir: &Path) -> Result<()> {
    let forget = |file: &mut fs::File| rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::DontNeed);
    each_file(dir, &|file| Ok(forget(file)?))
}

/// Files may go meanwhile.
fn each_file(dir: &Path, visit: &dyn Fn(&mut fs::File) -> io::Result<()>) -> Result<()> {
    for path in files(dir)? {
        if let Ok(mut file) = fs::File::open(&path) {
            visit(&mut file).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Directories may go meanwhile, too, but for the first one.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        let entries = match fs::read_dir(&next) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && next != dir => continue,
            entries => entries.with_context(|| next.display().to_string())?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_makes_for_itself_is_no_data() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("db")).unwrap();
        for name in ["galera.cache", "ib_logfile0", "ibtmp1", "gcache.page.000001", "ibdata1", "db/t.ibd"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let mut found = data_files(dir.path()).unwrap();
        found.sort();
        assert_eq!(found, ["db/t.ibd", "ibdata1"].map(|name| dir.path().join(name)));
    }

    #[test]
    fn what_was_written_is_in_the_page_cache_until_it_is_forgotten() {
        let dir = tempfile::tempdir_in(places::profile_dir().unwrap()).unwrap();
        fs::write(dir.path().join("file"), vec![7; 1 << 20]).unwrap();
        fs::File::open(dir.path().join("file")).unwrap().sync_all().unwrap();
        assert_eq!(cached(dir.path()).unwrap(), 1 << 20);
        assert!(bytes_on_disk(&data_files(dir.path()).unwrap()) >= 1 << 20);
        forget_all(dir.path()).unwrap();
        assert_eq!(cached(dir.path()).unwrap(), 0);
        cat(&[dir.path().to_owned()]).unwrap();
        assert_eq!(cached(dir.path()).unwrap(), 1 << 20);
    }

    #[test]
    fn lines_are_summed_and_others_refused() {
        assert_eq!(sum_of_lines("4096\n 8192\n").unwrap(), 12288);
        assert_eq!(sum_of_lines("").unwrap(), 0);
        assert!(sum_of_lines("4K\n").is_err());
    }
}
