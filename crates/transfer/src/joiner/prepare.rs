//! The joiner's mariadb-backup, which prepares a backup in the staging directory: it applies the redo, and what DDL changed while
//! the backup was made.
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use formats::mariadb::option_file::{Item, OptionFile};
use protocol::hello::cut;
use protocol::limits::TEXT_BYTES_MAX;
use protocol::message::Message;

use super::expected::Position;
use crate::failure::{Failure, Kind};
use crate::job::Job;
use crate::peer::link::Link;
use crate::program::Program;
use crate::server::options;
use crate::server::version::server_version;
use crate::snapshot::mariabackup::position_in;
use crate::snapshot::mariabackup::tool::Tool;

/// The option file in a backup, which mariadb-backup reads when it prepares it.
const OPTIONS: &str = "backup-my.cnf";
/// Longer than any that it writes.
const OPTIONS_BYTES_MAX: u64 = 64 << 10;
/// Options of that file that describe the files of the backup. The others name plugins and directories of the donor.
const DESCRIBING: [&str; 9] = [
    "innodb_checksum_algorithm",
    "innodb_data_file_path",
    "innodb_log_files_in_group",
    "innodb_log_file_size",
    "innodb_page_size",
    "innodb_undo_tablespaces",
    "innodb_compression_level",
    "innodb_buffer_pool_filename",
    "innodb_log_block_size",
];
/// A buffer pool of the server's default size, and no larger than this.
const MEMORY: u64 = 128 << 20;
const MEMORY_MAX: u64 = 1 << 30;

/// Tells the donor whether this node can prepare a backup that a program of this version makes.
pub(super) fn answer(job: &Job, link: &mut Link, version: &str) -> Result<()> {
    let why_not = match possible(job, version) {
        Ok(tool) => {
            tracing::info!("{} can prepare the donor's backup", tool.path.display());
            String::new()
        }
        Err(why) => cut(&why, TEXT_BYTES_MAX).to_owned(),
    };
    job.cancel.check()?;
    link.send(&Message::CanPrepare { why_not })
}

fn possible(job: &Job, version: &str) -> Result<Tool, String> {
    let tool = Tool::find(&job.options, server_version(job.server).as_deref(), &job.cancel)?;
    tool.fits(Some(version)).map(|()| tool)
}

/// Whether this error means only that the backup could not be prepared, so that another kind of snapshot may follow.
pub(super) fn permits_another_snapshot(error: &anyhow::Error, job: &Job) -> bool {
    let of_program = error.chain().any(|cause| cause.downcast_ref::<NotPrepared>().is_some());
    of_program && job.cancel.check().is_ok()
}

/// mariadb-backup failed, or the backup is at another position.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotPrepared(Failure);

/// Prepares the backup in this directory. It must then be at this position.
pub(super) fn prepare(job: &Job, directory: &Path, position: Position) -> Result<()> {
    let tool = Tool::find(&job.options, server_version(job.server).as_deref(), &job.cancel)
        .map_err(|why| NotPrepared(Failure::new(Kind::Configuration, why)))?;
    describe(directory)?;
    let mut command = tool.command();
    command
        .arg("--prepare")
        .arg(format!("--target-dir={}", directory.display()))
        .arg(format!("--use-memory={}", memory(job)))
        .current_dir(directory);
    let program = Program {
        name: "mariadb-backup --prepare",
        limit: None,
        stdin: None,
        cancel: &job.cancel,
        line: &|_| job.progress.local.step(),
        pause: None,
    };
    program.run(&mut command).map_err(|error| {
        let failure = Failure::new(crate::failure::kind_of(&error), format!("{error:#}"));
        NotPrepared(failure.hint("the log of the transfer has its whole output"))
    })?;
    match position_in(directory) {
        Some(found) if found != position.0 => {
            let text = format!("the prepared backup is at {found}, but the donor recorded {}", position.0);
            Err(NotPrepared(Failure::new(Kind::Peer, text)).into())
        }
        found => {
            let at = found.map_or_else(
                || "mariadb-backup does not say at which position".to_owned(),
                |at| format!("at {at}"),
            );
            tracing::info!("the backup is prepared, {at}");
            Ok(())
        }
    }
}

fn memory(job: &Job) -> u64 {
    let configured = job.options.server("innodb-buffer-pool-size");
    let bytes = configured.and_then(|text| options::size("innodb_buffer_pool_size", text).ok());
    bytes.unwrap_or(MEMORY).clamp(MEMORY, MEMORY_MAX)
}

/// Rewrites the backup's option file: only what describes its files is left, and no path.
fn describe(directory: &Path) -> Result<()> {
    let path = directory.join(OPTIONS);
    let text = crate::disk::small_file::read(&path, OPTIONS_BYTES_MAX)?.unwrap_or_default();
    fs::write(&path, describing(&text)).with_context(|| format!("cannot write {}", path.display()))
}

fn describing(text: &[u8]) -> String {
    let mut described = "[mysqld]\n".to_owned();
    for line in OptionFile::parse(text).lines {
        let Item::Option { name, value: Some(value) } = line.item else { continue };
        let name = name.replace('-', "_");
        let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:;-/".contains(&b));
        if DESCRIBING.contains(&name.as_str()) && plain {
            described += &format!("{name}={}\n", without_directories(&value));
        }
    }
    described
}

/// `dir/ibdata1:12M;ibdata2:10M:autoextend` without its directories: a backup has none.
fn without_directories(value: &str) -> String {
    let plain = |file: &str| file.rsplit_once('/').map_or(file, |(_, name)| name).to_owned();
    value.split(';').map(plain).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_describes_the_files_is_left_of_a_backups_options() {
        let text = "# This options file was generated by mariadb-backup.\n\n[mysqld]\ninnodb_checksum_algorithm=full_crc32\n\
                    innodb_data_file_path=/disk/ibdata1:12M;../ibdata2:10M:autoextend\ninnodb-page-size = 16384\n\
                    innodb_undo_directory=/undo\nplugin_load=evil.so\nplugin-dir=/tmp\ninnodb_buffer_pool_filename=\"a b\"\n";
        assert_eq!(
            describing(text.as_bytes()),
            "[mysqld]\ninnodb_checksum_algorithm=full_crc32\ninnodb_data_file_path=ibdata1:12M;ibdata2:10M:autoextend\n\
             innodb_page_size=16384\n"
        );
        assert_eq!(describing(b"nonsense ["), "[mysqld]\n");
    }
}
