//! Makes files of a logical snapshot while it arrives: the joiner's server's program loads what the donor's server showed into a new
//! datadir in staging. The result is a set of files like any other that is about to be installed.
//!
//! | module | owns |
//! |---|---|
//! | [`arriving`] | the snapshot between those who receive it and those who load it |
//! | `schedule`, `making` | which statement is next; how far one table is. Values without I/O |
//! | [`parts`] | reading the parts that arrived |
//! | [`expressible`] | what this node's server cannot have as the donor has it: refused by name |
//! | `other_case` | triggers and views that will not work here, because they name tables in another case |
//! | [`system`] | accounts, routines, events, and what else is rows of the database `mysql` |
//! | [`tables`] | tables and sequences; `definition` compares what the server has made of them |
//! | `statement` | one statement that loads rows; `pipe` hands them to the server |
//! | [`texts`] | views, triggers and options of databases, which the server keeps as texts in files |
//! | `privileges` | privileges that only the donor's series knows |
//! | `referenced` | columns whose keys other tables need at once |
//! | [`position`] | the position, stored where a server looks for it when it starts |
pub mod arriving;
pub(crate) mod definition;
pub mod expressible;
mod making;
pub(crate) mod other_case;
pub mod parts;
mod pipe;
pub mod position;
pub(crate) mod privileges;
pub(crate) mod referenced;
mod schedule;
pub(crate) mod statement;
pub mod system;
pub mod tables;
pub mod texts;

use std::time::{Duration, Instant};

use anyhow::Result;
use protocol::logical::Table;

use crate::datadir::engines::EnginePolicy;
use crate::datadir::layout::Layout;
use crate::datadir::scan::{self, ScannedFile};
use crate::human::size;
use crate::job::Job;
use crate::private_server::NewDatadir;
use crate::private_server::homes::Homes;
use crate::receive::staging::Staging;
use arriving::{Arriving, Begun, Complete};
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

/// How long a failure waits for the donor to begin its snapshot again. It looks for changed definitions every three seconds, and needs
/// another consistency point and all definitions before it says so.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// Loads what arrives, until everything has, and stores the position. Nothing outside the staging directories is touched. A private
/// server is made at once and takes what has arrived; if the donor begins its snapshot again, another one is made.
///
/// # Errors
/// Something cannot be expressed on this node; the server refuses something; nobody wants it any more; cancelled.
pub fn load(job: &Job, layout: &Layout, staging: &Staging, arriving: &Arriving<'_>) -> Result<Loaded> {
    let data_files = job.options.server("innodb-data-file-path").filter(|path| !path.is_empty());
    let homes = Homes::choose(layout, data_files.unwrap_or("ibdata1:12M:autoextend"), staging)?;
    match load_last(job, layout, &homes, arriving) {
        Ok(files) => Ok(Loaded { homes, files }),
        Err(error) => {
            // The transfer has failed anyway, and the next one removes what is left.
            let _ = homes.remove();
            Err(error)
        }
    }
}

/// Loads the donor's snapshots, until one is not void at its end.
fn load_last(job: &Job, layout: &Layout, homes: &Homes, arriving: &Arriving<'_>) -> Result<Vec<ScannedFile>> {
    loop {
        homes.remove()?;
        let began = Instant::now();
        let datadir = NewDatadir::make(job, homes, &|time| {
            arriving.check_wanted()?;
            Ok(job.cancel.sleep(time)?)
        })?;
        let made_in = began.elapsed();
        let begun = arriving.begun(&job.cancel)?;
        let loaded = load_one(job, layout, homes, arriving, &begun, (&datadir, made_in));
        job.cancel.check()?;
        // A row can be refused because the donor's table was changed meanwhile: then nothing of it counts.
        if loaded.is_err() && arriving.begins_again(begun.number, NOTICED_WITHIN, &job.cancel)? {
            tracing::info!(
                "the donor's snapshot begins again: the new datadir is discarded and created again"
            );
            continue;
        }
        return loaded;
    }
}

/// Loads one snapshot into a new datadir, which was made in so much time.
fn load_one(
    job: &Job,
    layout: &Layout,
    homes: &Homes,
    arriving: &Arriving<'_>,
    begun: &Begun,
    (datadir, made_in): (&NewDatadir, Duration),
) -> Result<Vec<ScannedFile>> {
    let starting = Instant::now();
    let server = datadir.start(homes, &system::engines(&begun.contents, &begun.plugins)?, &|time| {
        arriving.check(begun.number)?;
        Ok(job.cancel.sleep(time)?)
    })?;
    let loading = Instant::now();
    // The donor may have ended. Without its keep-alive messages nothing else shows that a long statement makes progress.
    let _counts = job.progress.local.watch(server.process_id());
    let took = made_in + (loading - starting);
    tracing::info!("a private server runs on a new datadir: {:.1} s", took.as_secs_f64());
    let loader = Loader {
        server: &server,
        begun,
        arriving,
        homes,
        threads: usize::from(job.settings.threads),
        progress: &job.progress,
        cancel: &job.cancel,
    };
    let lower = layout.lower_case_table_names != 0;
    let (complete, rows) = loader.watched(|| {
        loader.all()?;
        let (complete, rows) = arriving.last(&job.cancel)?;
        system::load(&loader, &complete, lower && complete.contents.lower_case_table_names == 0)?;
        Ok((complete, rows))
    })?;
    log_loaded(&complete, rows, loading);
    job.progress.phase("ending the private server", "");
    server.stop(homes, &job.cancel)?;
    texts::write(&complete.contents, homes, lower)?;
    position::store(homes.layout(), &complete.position)?;
    let scan = scan::scan(homes.layout(), &EnginePolicy::from_options(&job.options))?;
    scan.refuse_what_cannot_travel()?;
    Ok(scan.files)
}

fn log_loaded(complete: &Complete, rows: u64, since: Instant) {
    let bytes: u64 = complete.contents.rows().map(|rows| rows.bytes).sum();
    let (seconds, after) = (since.elapsed().as_secs_f64(), complete.since.elapsed().as_secs_f64());
    let rate = size((bytes as f64 / seconds.max(0.001)) as u64);
    tracing::info!(
        "loaded {rows} rows of {} tables, {} in {seconds:.1} s ({rate}/s), {after:.1} s of them after the last row had arrived",
        complete.contents.tables.len(),
        size(bytes)
    );
}

/// A table in words.
pub(crate) fn in_words(table: &Table) -> String {
    format!("{}.{}", table.database, table.name)
}
