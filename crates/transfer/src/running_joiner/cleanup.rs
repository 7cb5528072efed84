//! The end of a transfer that failed, on the joiner's server: what came is removed, settings are put back, and the reason is left in a
//! file in its datadir. No program of ours runs on that host, and its error log has only the number with which ours ends.
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::joiner::Joiner;
use super::note::NOTE;
use crate::cancel::Cancel;
use crate::failure::{Kind, kind_of};
use crate::server::log;
use crate::snapshot::logical::INCOMING;
use crate::sql::{Answer, Listens, Login, Session};

/// How long the server may take for each step. On 10.11 the donor's clients wait meanwhile.
const STEP_WITHIN: Duration = Duration::from_secs(10);

/// The data of a joiner whose transfer has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// As it was before.
    Old,
    /// Partly removed.
    Neither,
    /// The donor's.
    New,
}

impl Data {
    fn in_words(self) -> &'static str {
        match self {
            Data::Old => "the data of this server is as it was before the transfer",
            Data::Neither => {
                "this server has lost its old data and has not the donor's yet; it must join again, or be restored"
            }
            Data::New => "the data of this server is the donor's, but the server did not take its position",
        }
    }
}

/// Leaves the joiner's server, as far as it can be reached. `error` is why the transfer failed.
pub(super) fn after_failure(joiner: &Joiner<'_>, error: &anyhow::Error, data: Data) {
    let cancel = &joiner.job.cancel;
    let left = if cancel.is_ended_now() {
        // Our own server waits for our end, or is gone.
        Err(anyhow!("this program must end at once"))
    } else if kind_of(error) == Kind::Timeout && cancel.check().is_ok() {
        Err(anyhow!("it does not answer"))
    } else {
        clean_up(joiner, error, data)
    };
    if let Err(why) = left {
        tracing::warn!(
            "cannot clean up {}; databases {INCOMING}* may stay there until the next transfer: {why:#}",
            joiner.name()
        );
    }
}

fn clean_up(joiner: &Joiner<'_>, error: &anyhow::Error, data: Data) -> Result<()> {
    // The connections of the transfer may be broken, or cancelled.
    let proxy = joiner.proxy_to_it(&Cancel::new())?;
    let at = Listens::Proxied { socket: proxy.socket(), server: proxy.server() };
    let login = Login { at, account: joiner.account() };
    let mut session = joiner.enter_by(&proxy, &login, STEP_WITHIN)?;
    tell(joiner, &mut session, error, data);
    // First, because dropping very many tables can take longer than is waited for.
    joiner.put_back(&mut session);
    if data == Data::Old {
        remove_incoming(&mut session)?;
        if !joiner.was_replaced {
            session.drop_database(NOTE)?;
        }
    }
    Ok(())
}

/// Writes the reason into the joiner's datadir, under a name like that of a joiner's log.
fn tell(joiner: &Joiner<'_>, session: &mut Session, error: &anyhow::Error, data: Data) {
    // An earlier attempt may have come further than this one.
    let data = if data == Data::Old && joiner.was_replaced { Data::Neither } else { data };
    let node = joiner.job.options.node_name();
    let lines = [
        log::line("ERROR", &format!("the transfer from the donor {node} failed: {error:#}")),
        log::line("INFO", data.in_words()),
    ];
    let path = joiner.datadir.join(log::file_name("joiner"));
    match session.write_file(&path, lines.concat().as_bytes()) {
        Ok(()) => tracing::info!("the reason is in {} on the joiner's host", path.display()),
        Err(e) => tracing::warn!("cannot write the reason into a file on the host of {}: {e}", joiner.name()),
    }
}

/// Removes the databases in which tables came.
pub(super) fn remove_incoming(session: &mut Session) -> Answer<()> {
    let all = session.databases()?;
    let mut came = all.iter().filter(|database| database.name.starts_with(INCOMING) && database.name != NOTE);
    came.try_for_each(|database| session.drop_database(&database.name))
}
