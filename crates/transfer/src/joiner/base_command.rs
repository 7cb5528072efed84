//! `base-command`: the operator's program that fills a directory, if this node has no files to compare with a donor's. The
//! directory is then used like `base=`.
//!
//! It runs before we report that we are ready, so no donor waits for it. If it fails, the transfer continues, and everything is
//! sent.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::cancel::Cancel;
use crate::datadir::layout::Layout;
use crate::datadir::managed::{Managed, managed};
use crate::datadir::own_position::position_in_files;
use crate::disk::durable;
use crate::flavor::class::Class;
use crate::human::span;
use crate::install::names::{own_directory, waiting_room};
use crate::job::Job;
use crate::program::{Program, without_credentials};
use crate::receive::leftovers;
use crate::settings::{BaseCommand, Settings};

/// Its directory while it is filled, and once it is complete.
const FILLING: &str = "base-filling";
const FILLED: &str = "base";

/// A base for this transfer.
#[derive(Debug, Default)]
pub(super) struct Base {
    dir: Option<PathBuf>,
    /// `base-command` made it, so it is removed in the end.
    made: bool,
}

impl Base {
    /// The directory that `base` names, or one that `base-command` has filled: now, or before an earlier transfer that
    /// did not finish.
    ///
    /// # Errors
    /// Cancelled; the datadir cannot be read.
    pub fn find(job: &Job) -> Result<Base> {
        let Settings { base, base_command, incremental, .. } = &job.settings;
        let filled = filled(&job.datadir);
        remove(&filled.with_file_name(FILLING))?;
        let Some(command) = base_command.as_ref().filter(|_| base.is_none() && *incremental) else {
            remove(&filled)?;
            return Ok(Base { dir: base.clone(), made: false });
        };
        if filled.is_dir() {
            tracing::info!(
                "reusing {}, which base-command filled before an earlier transfer",
                filled.display()
            );
            return Ok(Base { dir: Some(filled), made: true });
        }
        if let Some(why) = useful(job)? {
            tracing::info!("base-command is not run: {why}");
            return Ok(Base::default());
        }
        job.progress.phase("filling a base", "");
        let began = Instant::now();
        let what = format!("base-command ({})", command.program().display());
        tracing::info!("this node has no data to compare: running {what}");
        // There is no connection yet whose keep-alive messages would count as progress.
        let counts = job.progress.local.until_limit(command.limit);
        let made = fill(command, &filled, &job.cancel, &|_| job.progress.local.step());
        drop(counts);
        if let Err(error) = made {
            remove(&filled.with_file_name(FILLING))?;
            job.cancel.check()?;
            tracing::warn!("{what} failed, so the donor sends everything: {error:#}");
            return Ok(Base::default());
        }
        tracing::info!("{what} filled {} in {}", filled.display(), span(began.elapsed()));
        Ok(Base { dir: Some(filled), made: true })
    }

    /// Where files that are missing from the datadir are searched for.
    pub fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Removes what `base-command` made, to make room. Returns whether there was anything.
    ///
    /// # Errors
    /// From the disk.
    pub fn give_up(&mut self) -> Result<bool> {
        if !std::mem::take(&mut self.made) {
            return Ok(false);
        }
        self.dir.take().map_or(Ok(()), |dir| remove(&dir))?;
        Ok(true)
    }
}

/// Removes what `base-command` made: the node has its data.
///
/// # Errors
/// From the disk.
pub(super) fn discard(datadir: &Path) -> Result<()> {
    let filled = filled(datadir);
    remove(&filled.with_file_name(FILLING))?;
    remove(&filled)
}

/// The directory that `base-command` filled for an earlier transfer that did not finish: the next one reuses it.
pub(crate) fn filled_base(datadir: &Path) -> Option<PathBuf> {
    Some(filled(datadir)).filter(|dir| dir.is_dir())
}

fn filled(datadir: &Path) -> PathBuf {
    waiting_room(&own_directory(datadir)).join(FILLED)
}

fn remove(directory: &Path) -> Result<()> {
    durable::remove_directory_if_there(directory)?;
    // Its parent is removed too, unless something else is in it.
    directory.parent().map(fs::remove_dir);
    Ok(())
}

/// Why this node has files to compare with a donor's; `None` if it has none.
fn useful(job: &Job) -> Result<Option<String>> {
    if !leftovers::allocated(&job.datadir)?.is_empty() {
        return Ok(Some("an interrupted transfer left files".to_owned()));
    }
    let layout = Layout::resolve(&job.args, &job.options)?;
    // Damaged files have no position, but their pages may be the donor's.
    if let Ok(Some(position)) = position_in_files(&layout) {
        return Ok(Some(format!("the datadir was at {}", position.state)));
    }
    // A new datadir has tables of the server alone.
    let own = |path: &Path| path.parent().is_none_or(|dir| dir.ends_with("mysql") || dir.ends_with("sys"));
    let is_users = |path: &Path| path.extension().is_some_and(|end| end == "ibd") && !own(path);
    let found = managed(&layout)?.iter().find(|file| {
        let table = matches!(file.what, Managed::Table | Managed::TableElsewhere { .. });
        table && file.class == Class::Table && file.size > 0 && is_users(&file.path)
    });
    Ok(found.map(|table| format!("the datadir has tables, such as {}", table.path.display())))
}

/// Runs the program in an empty directory, which gets its final name only if the program succeeds.
fn fill(command: &BaseCommand, filled: &Path, cancel: &Cancel, line: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let filling = filled.with_file_name(FILLING);
    fs::create_dir_all(&filling).with_context(|| format!("cannot make {}", filling.display()))?;
    let mut program = Command::new(command.program());
    program.args(command.arguments()).arg(&filling).current_dir(&filling);
    without_credentials(&mut program);
    let (name, limit) = ("base-command", command.limit);
    let runs = Program { name, limit, stdin: None, cancel, line, pause: None };
    runs.run(&mut program)?;
    let mut entries = fs::read_dir(&filling).with_context(|| format!("cannot list {}", filling.display()))?;
    anyhow::ensure!(entries.next().is_some(), "it succeeded, but {} is empty", filling.display());
    fs::rename(&filling, filled).with_context(|| format!("cannot rename {}", filling.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn command(dir: &Path, script: &str, limit: Option<Duration>) -> BaseCommand {
        let path = dir.join("fetch");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        BaseCommand::parse(&format!("{} --from  'a;b'", path.display()), limit).unwrap()
    }

    #[test]
    fn only_a_program_that_succeeds_makes_a_base() {
        let (dir, cancel) = (tempfile::tempdir().unwrap(), Cancel::new());
        let filled = dir.path().join("room/base");
        let with = |script: &str, limit| fill(&command(dir.path(), script, limit), &filled, &cancel, &|_| ());
        // No shell reads its words: the quotes and the semicolon arrive as they are.
        let script = "[ \"$1 $2\" = \"--from 'a;b'\" ] && [ \"$PWD\" = \"$3\" ] && echo x >\"$3/ibdata1\"";
        with(script, None).unwrap();
        assert_eq!(fs::read_to_string(filled.join("ibdata1")).unwrap(), "x\n");
        remove(&filled).unwrap();
        assert!(!dir.path().join("room").exists());

        let error = with("echo no bucket >&2; exit 7", None).unwrap_err();
        assert_eq!(error.to_string(), "base-command failed (exit status 7): no bucket");
        assert!(with("exit 0", None).unwrap_err().to_string().contains("is empty"));
        let error = with("sleep 60", Some(Duration::from_secs(1))).unwrap_err();
        assert!(error.to_string().contains("did not end within 1 s"), "{error}");
        assert!(!filled.exists());
    }
}
