//! `rejoin copy-to`: puts this program where a server of another container finds it. An image that contains nothing but the
//! program has no `cp`.
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use transfer::failure::{Failure, Kind};

use super::answer::say;

/// Where to copy it.
#[derive(clap::Args)]
pub struct Options {
    /// The directory, which must exist
    directory: PathBuf,
}

/// Copies the program as `rejoin`.
pub fn run(options: &Options) -> Result<()> {
    let directory = &options.directory;
    ensure!(
        directory.is_dir(),
        Failure::new(Kind::Configuration, format!("{} is not a directory", directory.display()))
    );
    let program = directory.join("rejoin");
    let new = directory.join(format!(".rejoin.{}", std::process::id()));
    let copy = || -> Result<()> {
        fs::copy("/proc/self/exe", &new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o755))?;
        // A server that runs the old copy keeps it.
        Ok(fs::rename(&new, &program)?)
    };
    copy()
        .inspect_err(|_| drop(fs::remove_file(&new)))
        .with_context(|| format!("cannot write {}", program.display()))?;
    say(&format!("copied to {}", program.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_copied_and_a_second_time_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { directory: dir.path().to_owned() };
        for _ in 0..2 {
            run(&options).unwrap();
            let names: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["rejoin"]);
            let meta = fs::symlink_metadata(dir.path().join("rejoin")).unwrap();
            assert!(meta.is_file() && meta.permissions().mode() & 0o777 == 0o755);
            assert_eq!(meta.len(), fs::metadata("/proc/self/exe").unwrap().len());
        }
        assert!(run(&Options { directory: dir.path().join("missing") }).is_err());
    }
}
