//! What the server says of a definition that it has taken, and whether it is the donor's.
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use formats::mariadb::show_create::comparable;
use protocol::logical::{Content, Contents, Table};
use protocol::policy::series;

use super::in_words;
use crate::failure::{Failure, Kind};
use crate::sql::Session;
use crate::sql::loading::Warning;

/// Warnings about definitions that are logged.
const WARNINGS_LOGGED: u64 = 20;

pub(crate) fn log_warnings(table: &Table, warnings: &[Warning]) {
    static LOGGED: AtomicU64 = AtomicU64::new(0);
    for warning in warnings {
        if LOGGED.fetch_add(1, Ordering::Relaxed) < WARNINGS_LOGGED {
            tracing::warn!("{}: {} ({})", in_words(table), warning.text, warning.code);
        }
    }
}

/// Fails if this server shows another definition than the donor's, which is of the same series. Another series may show the same
/// table in other words. `database`: where the table is now.
pub(crate) fn check(session: &mut Session, database: &str, table: &Table, contents: &Contents) -> Result<()> {
    let name = table.name.as_str();
    let is_sequence = matches!(table.content, Content::Sequence(_));
    let shown = match is_sequence {
        true => session.sequence_definition(database, name)?,
        false => session.definition(database, name)?,
    };
    if comparable(&shown) == comparable(&table.create) {
        return Ok(());
    }
    let version = session.variable("version")?;
    let (theirs, ours) = (String::from_utf8_lossy(&table.create), String::from_utf8_lossy(&shown));
    let other_words = series(&version) != series(&contents.server_version)
        || session.variable("lower_case_table_names")? != Some(contents.lower_case_table_names.to_string())
        || theirs.contains(" DIRECTORY='");
    if other_words {
        tracing::debug!("{} is shown otherwise here: {ours} instead of {theirs}", in_words(table));
        if theirs.contains(" DIRECTORY='") {
            tracing::warn!(
                "{} is in the datadir now, not where DATA DIRECTORY says on the donor",
                in_words(table)
            );
        }
        return Ok(());
    }
    let text =
        format!("{} has another definition than on the donor: {ours} instead of {theirs}", in_words(table));
    Err(Failure::new(Kind::Server, text).into())
}
