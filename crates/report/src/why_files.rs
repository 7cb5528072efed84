//! Why a node that came back by write-sets before needed files this time.
use crate::pairs::Transfer;

/// What the records know of it, as a part of a sentence.
pub(crate) fn why_files(transfer: &Transfer) -> String {
    let refused = transfer.records().find_map(|record| record.no_deep_ist.as_deref());
    let refused = refused.map(|why| format!("; {why}")).unwrap_or_default();
    let Some(joiner) = &transfer.joiner else {
        return format!("IST could not bring what was missing{refused}");
    };
    let text = |position: &Option<String>| position.as_deref().and_then(parse);
    let because = match (text(&joiner.position.before), text(&joiner.position.after)) {
        (None, _) => "no position was read from the joiner's files".to_owned(),
        (Some((mine, _)), Some((theirs, _))) if mine != theirs => {
            "the joiner's files were of another history".to_owned()
        }
        (Some((_, from)), Some((_, to))) if to > from => {
            format!("IST could not bring the {} write-sets that were missing", to - from)
        }
        _ => "IST could not bring what was missing".to_owned(),
    };
    because + &refused
}

/// `UUID:SEQNO`.
fn parse(position: &str) -> Option<(String, i64)> {
    let (uuid, seqno) = position.rsplit_once(':')?;
    Some((uuid.to_owned(), seqno.parse().ok().filter(|seqno| *seqno >= 0)?))
}
