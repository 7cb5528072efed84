//! What `rejoin plan --json` prints.
use protocol::message::SnapshotKind;
use serde_json::{Value, json};
use transfer::advisor::plan::facts::{Facts, Origin, Position};
use transfer::advisor::plan::kind::TransferKind;
use transfer::advisor::plan::predict::{Prediction, Way};
use transfer::advisor::plan::transfer::Estimate;
use transfer::snapshot::logical::locked::{Hold, Until};

/// More tables are only counted.
const TABLES_MAX: usize = 20;

/// The same as the lines of text.
pub(super) fn as_json(facts: &Facts, prediction: &Prediction) -> Value {
    let state = facts.position.state();
    let (kind, donor, rule) = match &prediction.way {
        Way::NothingMissing => ("nothing-missing", None, None),
        Way::Ahead { .. } => ("ahead", None, None),
        Way::Ist { donor, rule, .. } => ("ist", Some(donor), Some(rule)),
        Way::Sst { donor, rule } => ("sst", Some(donor), Some(rule)),
        Way::Waits => ("waits", None, None),
        Way::Refused => ("refused", None, None),
    };
    let members = facts.group.members.iter().map(|known| {
        json!({
            "name": known.member.name,
            "state": known.member.state.to_string(),
            "segment": known.member.segment,
            "stateless": known.member.stateless,
            "lowest_cached": known.member.lowest_cached.map(|lowest| lowest.0),
            "asked": known.from == Origin::Asked,
        })
    });
    json!({
        "position": state.map(|state| state.to_string()),
        "position_from": match facts.position {
            Position::Noted(_) => "grastate.dat",
            Position::Recovered(_) => "innodb",
            Position::None(_) => "none",
            Position::Unknown(_) => "unknown",
        },
        "history": facts.group.history.to_string(),
        "newest": facts.group.newest.0,
        "age_s": facts.group.age.map(|age| age.as_secs()),
        "members": members.collect::<Vec<_>>(),
        "known": facts.group.age.is_none(),
        "way": kind,
        "donor": donor,
        "rule": rule,
        "safe": prediction.safe.0,
        "sends": prediction.sends.as_ref().map(|sends| match sends {
            Ok(Estimate { all, about, at_least, why, redo }) => json!({
                "bytes": about,
                "at_least_bytes": at_least,
                "at_most_bytes": all,
                "why": why,
                "redo": redo.map(|redo| {
                    json!({"bytes": redo.bytes, "rounds": redo.rounds, "recovery_s": redo.recovery.as_secs_f64()})
                }),
            }),
            Err(why) => json!({"bytes": null, "at_least_bytes": null, "at_most_bytes": null, "why": why}),
        }),
        "kind": prediction.kind.as_ref().map(|kind| match kind {
            TransferKind::Files(_) => "files",
            TransferKind::Rows(_) => "logical",
            TransferKind::Nothing(_) => "refused",
        }),
        "kind_why": prediction.kind.as_ref().and_then(|kind| match kind {
            TransferKind::Files(from) => Some(&from.why).filter(|why| !why.is_empty()),
            TransferKind::Rows(why) | TransferKind::Nothing(why) => Some(why),
        }),
        "snapshot": prediction.kind.as_ref().and_then(|kind| match kind {
            TransferKind::Files(from) => Some(from.kind.name()),
            TransferKind::Rows(_) => Some(SnapshotKind::Logical.name()),
            TransferKind::Nothing(_) => None,
        }),
        "pause": prediction.pause.map(|pause| json!({
            "what": pause.what(),
            "takes_s": pause.takes().map(|takes| takes.as_secs_f64()),
            "words": pause.in_words(),
        })),
        "tables_under_locks": prediction.hold.as_ref().map(under_locks),
        "room": prediction.room.map(|room| json!({
            "bytes": room.needed,
            "whole": room.whole,
            "free_bytes": room.free,
        })),
        "deep_ist": prediction.deep_ist.as_ref().map(|deep| json!({
            "write_sets": deep.write_sets,
            "bytes": deep.bytes,
            "cheaper": deep.ways.map(|ways| ways.replay_is_cheaper()),
            "replay_s": deep.ways.map(|ways| ways.replay().as_secs_f64()),
            "files_s": deep.ways.map(|ways| ways.transfer().as_secs_f64()),
            "closed": deep.closed,
            "reaches": deep.reaches(),
            "base": deep.base.as_ref().map(|base| json!({
                "dir": base.dir.to_string_lossy(),
                "position": base.position.to_string(),
                "bytes": base.bytes,
            })),
        })),
        "archives": facts.archives.iter().map(|archive| json!({
            "member": archive.member,
            "history": archive.history.to_string(),
            "first": archive.first.0,
            "last": archive.last.0,
            "reported_s": archive.reported_ms.map(|ms| ms / 1000),
        })).collect::<Vec<_>>(),
        "no_base": facts.base.as_ref().and_then(|base| base.as_ref().err()),
        "costs": prediction.costs.iter().map(|cost| json!({
            "way": cost.back.name(),
            "takes_s": cost.takes.map(|takes| takes.as_secs_f64()),
            "of": cost.of,
        })).collect::<Vec<_>>(),
        "missing": prediction.missing,
        "ahead": match prediction.way { Way::Ahead { by } => by, _ => 0 },
        "missing_bytes": prediction.missing_bytes,
        "lasts_at_least_s": prediction.lasts_at_least.map(|lasts| lasts.as_secs()),
        "data_bytes": facts.data,
        "advice": prediction.advice,
    })
}

/// Tables without transactions, for which writes wait on the donor: the largest of them, and what they come to.
fn under_locks(hold: &Hold) -> Value {
    let tables = hold
        .tables
        .tables()
        .iter()
        .take(TABLES_MAX)
        .map(|table| json!({"name": table.name, "engine": table.engine, "bytes": table.bytes}));
    json!({
        "tables": tables.collect::<Vec<_>>(),
        "count": hold.tables.tables().len(),
        "bytes": hold.tables.bytes(),
        "until_all_is_read": hold.until != Until::TheyAreRead,
        "holds_writes_s": hold.takes.as_secs_f64(),
        "at_least": hold.at_least,
        "bytes_per_second": hold.rate.bytes_per_second(),
        "rate_from": hold.rate.name(),
        "words": hold.in_words(),
    })
}
