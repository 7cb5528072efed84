//! Makes files of a logical snapshot: the joiner's server's program loads what the donor's server showed into a new datadir
//! in staging. The result is a set of files like any other that is about to be installed.
//!
//! | module | owns |
//! |---|---|
//! | [`parts`] | reading the parts that arrived |
//! | [`expressible`] | what this node's server cannot have as the donor has it: refused by name |
//! | [`system`] | accounts, routines, events, and what else is rows of the database `mysql` |
//! | [`tables`] | tables and sequences; `definition` compares what the server has made of them |
//! | `work`, `statement` | which statements load which rows; one of them; `pipe` hands rows to the server |
//! | [`texts`] | views, triggers and options of databases, which the server keeps as texts in files |
//! | [`position`] | the position, stored where a server looks for it when it starts |
pub(crate) mod definition;
pub mod expressible;
pub mod parts;
mod pipe;
pub mod position;
pub(crate) mod statement;
pub mod system;
pub mod tables;
pub mod texts;
mod work;

use std::time::Instant;

use anyhow::Result;
use formats::innodb::wsrep_position::StoredPosition;
use protocol::logical::{Contents, Table};

use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, ScannedFile};
use crate::human::size;
use crate::job::Job;
use crate::private_server::PrivateServer;
use crate::private_server::homes::Homes;
use crate::receive::staging::Staging;
use parts::Parts;
use tables::Loader;

/// Files that a private server has made. They must be moved away before this is removed.
pub struct Loaded {
    homes: Homes,
    /// Its files.
    pub files: Vec<ScannedFile>,
}

impl Loaded {
    /// Removes what was not moved away.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn remove(self) -> Result<()> {
        self.homes.remove()
    }
}

/// Loads everything, and stores the position. Nothing outside the staging directories is touched.
///
/// # Errors
/// Something cannot be expressed on this node; the server refuses something; cancelled.
pub fn load(
    job: &Job,
    layout: &Layout,
    staging: &Staging,
    parts: &Parts,
    position: StoredPosition,
) -> Result<Loaded> {
    let contents = parts.contents()?;
    expressible::check(&contents, parts, layout)?;
    let data_files = job.options.server("innodb-data-file-path").filter(|path| !path.is_empty());
    let homes = Homes::choose(layout, data_files.unwrap_or("ibdata1:12M:autoextend"), staging)?;
    homes.remove()?;
    let loaded = load_in(job, layout, &homes, parts, &contents, position);
    match loaded {
        Ok(files) => Ok(Loaded { homes, files }),
        Err(error) => {
            // The transfer has failed anyway, and the next one removes what is left.
            let _ = homes.remove();
            Err(error)
        }
    }
}

fn load_in(
    job: &Job,
    layout: &Layout,
    homes: &Homes,
    parts: &Parts,
    contents: &Contents,
    position: StoredPosition,
) -> Result<Vec<ScannedFile>> {
    let began = Instant::now();
    job.progress.phase("starting a private server", "");
    let server = PrivateServer::start(job, homes, &system::engines(parts, contents)?)?;
    tracing::info!("a private server runs on a new datadir: {:.1} s", began.elapsed().as_secs_f64());
    let loading = Instant::now();
    let lower = layout.lower_case_table_names != 0;
    let loader = Loader {
        server: &server,
        parts,
        homes,
        threads: usize::from(job.settings.threads),
        progress: &job.progress,
        cancel: &job.cancel,
    };
    let rows = loader.watched(|| {
        let rows = loader.all(contents)?;
        system::load(&loader, contents, lower && contents.lower_case_table_names == 0)?;
        Ok(rows)
    })?;
    let bytes: u64 = contents.rows().map(|rows| rows.bytes).sum();
    let seconds = loading.elapsed().as_secs_f64();
    let rate = size((bytes as f64 / seconds.max(0.001)) as u64);
    tracing::info!(
        "loaded {rows} rows of {} tables, {} in {seconds:.1} s ({rate}/s)",
        contents.tables.len(),
        size(bytes)
    );
    job.progress.phase("ending the private server", "");
    server.stop(homes, &job.cancel)?;
    texts::write(contents, homes, lower)?;
    position::store(homes.layout(), &position)?;
    let scan = scan::scan(homes.layout(), &EnginePolicy::from_options(&job.options))?;
    scan.refuse_what_cannot_travel()?;
    Ok(scan.files)
}

/// A table in words.
pub(crate) fn in_words(table: &Table) -> String {
    format!("{}.{}", table.database, table.name)
}
