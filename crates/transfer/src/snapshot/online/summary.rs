//! The online snapshot as an implementation of [`Snapshot`], and what both hosts log about it.
use std::time::Duration;

use anyhow::Context;
use protocol::inventory::FileId;
use protocol::message::SnapshotKind;

use super::outlook::recovery_in_words;
use super::redo_out::REDO;
use super::snapshot::{Options, TakenOnline, take};
use crate::cancel::Cancel;
use crate::human::size;
use crate::snapshot::declined::SnapshotError;
use crate::snapshot::sink::SnapshotSink;
use crate::snapshot::{Snapshot, Taken};

/// A snapshot of the running server.
pub struct Online(pub Options);

impl Snapshot for Online {
    fn kind(&self) -> SnapshotKind {
        SnapshotKind::Online
    }

    fn redo(&self) -> Option<FileId> {
        Some(REDO)
    }

    fn blocks_writes(&self) -> bool {
        false
    }

    fn take(&self, sink: &dyn SnapshotSink, cancel: &Cancel) -> Result<Taken, SnapshotError> {
        let taken = take(&self.0, sink, cancel)?;
        log_figures(&taken);
        let summary = vec![consistency_point_line(&taken), redo_line(&taken)];
        let position = taken.manifest.position.context("the server is no member of a cluster")?;
        Ok(Taken {
            files: taken.manifest.files,
            position,
            binlog_state: taken.manifest.binlog_state,
            corrupt: taken.damaged,
            redo_rounds: Some(taken.redo_rounds.rounds.into()),
            summary,
        })
    }
}

fn consistency_point_line(taken: &TakenOnline) -> String {
    let ms = |d: Duration| format!("{:.1} ms", d.as_secs_f64() * 1000.0);
    let point = &taken.point;
    let position = taken.manifest.position.map(|p| p.state.to_string()).unwrap_or_default();
    format!(
        "the consistency point is at {position}: replication paused for {} (granted after {}), commits held for {}, {} files \
         read in it, {} tries, failed tries held {}",
        ms(point.ddl_held),
        ms(point.granting),
        ms(point.commits_held),
        point.files,
        point.tries,
        ms(point.failed_held),
    )
}

fn log_figures(taken: &TakenOnline) {
    tracing::info!(
        "snapshot: {} of data files in {:.1} s and {} passes; at most {} of redo waiting to be read",
        size(taken.bytes),
        taken.copying.as_secs_f64(),
        taken.passes,
        size(taken.redo_behind_max)
    );
}

/// How much redo is left to replay, and which newer checkpoints made it less.
fn redo_line(taken: &TakenOnline) -> String {
    let (rounds, asked) = (&taken.redo_rounds, &taken.asked);
    let checkpoints = match (asked.made, &asked.refused) {
        (_, Some(why)) => format!(", none could be asked for: {why}"),
        (0, None) => ", none was asked for".to_owned(),
        (made, None) => format!(", {made} asked for, the last one took {:.1} s", asked.took.as_secs_f64()),
    };
    format!(
        "redo: {} to replay ({}); {} were not sent because of {} newer checkpoints ({} of pages read again{checkpoints})",
        size(taken.redo.bytes),
        recovery_in_words(&taken.prices, taken.redo),
        size(rounds.dropped),
        rounds.rounds,
        size(rounds.reread)
    )
}
