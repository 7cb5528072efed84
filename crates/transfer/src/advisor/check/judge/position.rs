//! The position from which a stopped node would ask the cluster to continue, and whether it is one to bootstrap from.
use super::super::Findings;
use super::super::facts::{Facts, Server};
use crate::human::{local_time, printable};
use crate::install::kept::Status;

/// Adds the findings.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    if !matches!(facts.server, Server::Stopped) {
        return;
    }
    unfinished(facts, findings);
    next_start(facts, findings);
}

/// A transfer that did not finish leaves the node's own files, which are older than what it was to receive.
fn unfinished(facts: &Facts, findings: &mut Findings) {
    // An install takes the record away: beside a previous state that is kept, the transfer began after that install. After
    // the last byte has arrived, an interrupted install has it all.
    let old = matches!(
        facts.left.kept,
        Ok(Status::Nothing | Status::Staging { .. } | Status::InstalledKept { .. })
    );
    let begun = facts.left.unfinished.as_ref().filter(|_| old && facts.left.running.is_none());
    let Some(unfinished) = begun else { return };
    let (donor, theirs) = (printable(&unfinished.donor), printable(&unfinished.position));
    let own = facts.left.own_position;
    if !unfinished.is_ahead_of(own) {
        return;
    }
    let own = own.map_or_else(|| "unknown".to_owned(), |own| own.to_string());
    findings.warning(
        "position",
        format!(
            "a transfer from {donor}, which was at {theirs}, began at {} and did not finish: this node's own files are older \
             (position {own})",
            local_time(unfinished.began_ms)
        ),
        "do not bootstrap a cluster from this node as long as another one has more: compare the positions (rejoin check on \
         each), bootstrap the highest, and start this one as its member",
    );
}

fn next_start(facts: &Facts, findings: &mut Findings) {
    let gcache = "rejoin gcache DIR on the others shows which write-sets they can serve";
    match &facts.grastate {
        None => findings.note(
            "position",
            "no grastate.dat: the next start asks for a full transfer",
            "nothing to do for a new node; otherwise check that the datadir is the right one",
        ),
        Some(Err(why)) => findings.warning(
            "position",
            format!("{why}: the next start asks for a full state transfer"),
            "check that the datadir is the right one",
        ),
        Some(Ok(state)) if state.uuid.is_nil() => findings.note(
            "position",
            "grastate.dat holds no history (a transfer failed, or the node was found inconsistent): the next start asks for a full transfer",
            "nothing to do if this is intended",
        ),
        Some(Ok(state)) if state.seqno.0 < 0 => findings.note(
            "position",
            format!("{}: the server did not stop cleanly; its recovery determines the position", state.uuid),
            format!("start it (galera_recovery does it under systemd); {gcache}"),
        ),
        Some(Ok(state)) => findings.ok("position", format!("{}:{}; {gcache}", state.uuid, state.seqno)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Note, Warning};
    use super::super::fixture::{found, state, stopped};
    use super::super::judge;
    use super::*;
    use crate::install::unfinished::Unfinished;

    const UUID: &str = "2f0eaefd-11aa-11f0-9b0e-0242ac110002";

    #[test]
    fn positions_by_the_state_file() {
        let with = |grastate| Facts { grastate, ..stopped() };
        assert!(found(&with(None), "position", Note).contains("full transfer"));
        assert!(
            found(&with(Some(Err("x is empty".to_owned()))), "position", Warning).contains("x is empty: ")
        );
        assert!(found(&with(Some(state(UUID, -1))), "position", Note).contains("did not stop cleanly"));
        let nil = state("00000000-0000-0000-0000-000000000000", -1);
        assert!(found(&with(Some(nil)), "position", Note).contains("no history"));
    }

    #[test]
    fn a_node_that_holds_less_than_its_donor_is_not_one_to_bootstrap() {
        let mut facts = stopped();
        facts.left.unfinished = Some(Unfinished::now("n1", &format!("{UUID}:30")));
        let said = found(&facts, "position", Warning);
        assert!(said.contains("do not bootstrap") && said.contains("(position unknown)"), "{said}");
        facts.left.own_position = format!("{UUID}:7").parse().ok();
        let said = found(&facts, "position", Warning);
        assert!(
            said.contains("from n1")
                && said.contains(":30")
                && said.contains(&format!("(position {UUID}:7)")),
            "{said}"
        );
        let warned = |facts: &Facts| judge(facts).iter().any(|f| f.text.contains("did not finish"));
        facts.left.running = Some(9);
        assert!(!warned(&facts), "it is still running");
        facts.left.running = None;
        facts.left.own_position = format!("{UUID}:30").parse().ok();
        assert!(!warned(&facts), "it has caught up since");
    }
}
