//! One datadir of the comparison.
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use formats::innodb::tablespace::PageFormat;
use protocol::inventory::{FileEntry, FileRole, Place};

use super::difference::NAMED;
use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::of_server::layout_of;
use crate::datadir::recovered_position::{BadLog, changes_pages};
use crate::datadir::scan::{self, Scan, ScannedFile};
use crate::failure::{Failure, Kind};
use crate::server::options::ServerOptions;
use crate::snapshot::copy::files::further_system_file;
use crate::sql::Session;
use crate::sql::{Listens, Login};

/// How long a server may take to report its directories.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// One datadir and its configuration.
#[derive(Debug)]
pub struct Side {
    /// Where its files are.
    pub layout: Layout,
    /// Its options.
    pub options: ServerOptions,
}

impl Side {
    /// The datadir of the server that listens at a socket on this host.
    ///
    /// # Errors
    /// The server refuses the login, or its configuration is invalid.
    pub fn of_server(socket: &Path) -> Result<Side> {
        let login = Login { at: Listens::Socket(socket.to_owned()), account: None };
        let failure = |why: String| {
            Failure::new(
                Kind::Configuration,
                format!("no response from the server at {}: {why}", socket.display()),
            )
            .hint("run as the user of its unix_socket account, or name its datadir")
        };
        let mut session = Session::open(&login, ANSWER_WITHIN).map_err(|why| failure(why.to_string()))?;
        let variables = session.variables().map_err(|why| failure(why.to_string()))?;
        let (layout, options) = layout_of(&variables)?;
        Ok(Side { layout, options })
    }
}

/// A file of one side.
pub(super) struct SideFile {
    /// Path, role and length.
    pub entry: FileEntry,
    /// Its path on this host.
    pub path: PathBuf,
    /// Format and first page of a further file of the system tablespace.
    pub system: Option<(PageFormat, u32)>,
    /// Whether a server may be writing it.
    pub live: bool,
    /// Whether its server was shut down, so that its length is the one in its first page.
    pub clean: bool,
}

/// The files of one side, each with the name of its counterpart on the other side.
pub(super) struct Listed {
    pub files: Vec<(String, SideFile)>,
    /// The data files alone are not the whole state.
    pub changes_in_redo: bool,
    /// What is not compared: the ends of sentences about this side.
    pub unseen: Vec<String>,
}

impl Listed {
    /// Fails if the configuration names missing files: then this is not a datadir, or has other options.
    pub fn of(side: &Side, live: bool) -> Result<Listed> {
        let scan = scan::scan(&side.layout, &EnginePolicy::from_options(&side.options))?;
        if let Some(missing) = scan::missing(&side.layout, &scan.files).into_iter().next() {
            return Err(missing)
                .with_context(|| format!("{} cannot be compared", side.layout.datadir.display()));
        }
        let mut unseen = left_out(&scan);
        let mut changes_in_redo = false;
        if !live {
            match changes_pages(&side.layout.redo_log())? {
                Ok(false) => {}
                Ok(true) => {
                    changes_in_redo = true;
                    unseen.push("was not shut down: its last changes are only in its redo log".to_owned());
                }
                // The log belongs to another version, so it is not known whether its server ended cleanly.
                Err(BadLog::Format(format)) => {
                    unseen.push(format!("has a redo log that cannot be read ({format:?})"));
                }
                Err(bad) => unseen.push(format!("has no usable redo log: {bad}")),
            }
        }
        let clean = !live && !changes_in_redo;
        let system_files: Vec<PathBuf> = side.layout.system_files.iter().map(|f| f.path.clone()).collect();
        let mut files = Vec::new();
        for ScannedFile { entry, path, .. } in scan.files {
            if matches!(entry.role, FileRole::Link { .. }) {
                continue;
            }
            let system = match entry.role {
                FileRole::SystemTablespace { index } if index > 0 => {
                    further_system_file(&system_files, index, false)?
                }
                _ => None,
            };
            // The first page of a system tablespace of several files holds the length of all.
            let clean = clean
                && (system_files.len() == 1 || !matches!(entry.role, FileRole::SystemTablespace { .. }));
            files.push((name(&entry), SideFile { entry, path, system, live, clean }));
        }
        Ok(Listed { files, changes_in_redo, unseen })
    }
}

/// By place and path; files of the system tablespace by their order, because their names may differ.
fn name(entry: &FileEntry) -> String {
    match (&entry.role, entry.place) {
        (FileRole::SystemTablespace { index }, _) => format!("system tablespace file {index}"),
        (_, Place::Datadir) => entry.path.clone(),
        (_, place) => format!("{}/{}", words_of(place), entry.path),
    }
}

/// Which directory of a node a place is.
fn words_of(place: Place) -> &'static str {
    match place {
        Place::Datadir => "datadir",
        Place::DataHome => "innodb_data_home_dir",
        Place::LogHome => "innodb_log_group_home_dir",
        Place::UndoDir => "innodb_undo_directory",
        Place::SecondLogDir => "logs of the second engine",
        Place::External => "outside",
        Place::Parts => "parts of a logical snapshot",
    }
}

fn left_out(scan: &Scan) -> Vec<String> {
    let files = scan.left_out.iter().map(|file| format!("{} ({})", file.path.display(), file.why));
    let mut all: Vec<String> = files.take(NAMED).collect();
    let more = scan.left_out.len().saturating_sub(NAMED);
    if more > 0 {
        all.push(format!("and {more} more files"));
    }
    all.into_iter().map(|what| format!("has files that are not compared: {what}")).collect()
}
