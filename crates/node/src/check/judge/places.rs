//! Directories, what lies in them, and room.
use super::super::facts::{DirectoryState, Facts, Room, Server};
use super::super::{Findings, Level};
use super::CLOCKS_AGREE_WITHIN;
use crate::joiner::MARGIN_BYTES;
use crate::settings::InPlace;
use crate::sink::kept::Status;
use crate::words::size;

/// Judges.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    directories(facts, findings);
    foreign_files(facts, findings);
    tables(facts, findings);
    leftovers(facts, findings);
    space(facts, findings);
    position(facts, findings);
    if let Some(ahead) = facts.from_the_future.filter(|ahead| *ahead > CLOCKS_AGREE_WITHIN) {
        findings.warning(
            "clock",
            format!(
                "the server's files were written {} s in the future by this host's clock",
                ahead.as_secs()
            ),
            "set the clock (chronyc tracking, timedatectl)",
        );
    }
}

fn directories(facts: &Facts, findings: &mut Findings) {
    let user = facts.server_user();
    for directory in &facts.directories {
        let path = directory.path.display();
        match &directory.there {
            DirectoryState::Missing => findings.error(
                "directory",
                format!("{path} is not there"),
                format!("install -d -o {user} -m 750 {path}"),
            ),
            DirectoryState::Unusable(why) => {
                findings.error(
                    "directory",
                    format!("{path} cannot be used: {why}"),
                    "correct the option that names it",
                );
            }
            DirectoryState::There { writable: Some(false), .. } => findings.error(
                "directory",
                format!("{path} is not writable for the server's user"),
                format!("chown {user}: {path}; see also whether its filesystem is mounted read-only"),
            ),
            DirectoryState::There { owned: false, .. } => findings.warning(
                "directory",
                format!("{path} does not belong to the server's user"),
                format!("chown {user}: {path}"),
            ),
            DirectoryState::There { .. } => {}
        }
    }
    findings
        .ok_if_clean("directory", format!("{} directories of the server's user", facts.directories.len()));
}

fn foreign_files(facts: &Facts, findings: &mut Findings) {
    let Some((first, count)) = &facts.foreign_files else { return };
    findings.warning(
        "files",
        format!(
            "{count} files in the datadir do not belong to the server's user, {} is one",
            first.display()
        ),
        format!("chown -R {}: the datadir", facts.server_user()),
    );
}

/// What a donor refuses to send, or warns of (docs/policy.md).
fn tables(facts: &Facts, findings: &mut Findings) {
    for failure in &facts.cannot_travel {
        let hint = failure.hint.as_deref().unwrap_or("docs/policy.md has what travels");
        findings.error("tables", format!("this node cannot donate: {}", failure.text), hint);
    }
    for warning in &facts.travels_badly {
        findings.note(
            "tables",
            warning.as_str(),
            "nothing to do where that is meant; docs/policy.md has what travels",
        );
    }
}

fn leftovers(facts: &Facts, findings: &mut Findings) {
    let stopped = matches!(facts.server, Server::Stopped);
    match &facts.left.kept {
        Err(why) => findings.error(
            "leftovers",
            format!("what earlier transfers left cannot be read: {why}"),
            "look at #sql-rejoin and .rejoin in the datadir; rejoin status says more",
        ),
        Ok(Status::Nothing) => {}
        Ok(Status::Staging { .. }) if facts.left.running.is_some() => {}
        Ok(Status::Staging { files }) => findings.note(
            "leftovers",
            format!("{files} files of a transfer that did not finish; the datadir is as it was before it"),
            "the next full transfer goes on from them (incremental), IST removes them",
        ),
        Ok(Status::InstallInterrupted { purpose, position }) => findings.error(
            "leftovers",
            format!("{purpose:?} of {position} was interrupted: the datadir holds files of two states"),
            "rejoin finish",
        ),
        Ok(Status::InPlaceBroken) => findings.error(
            "leftovers",
            "a transfer in place did not finish: the datadir is not complete",
            "start the server: it transfers again. Do not bootstrap from this node",
        ),
        Ok(Status::InstalledKept { bytes, position, .. }) => findings.note(
            "leftovers",
            format!("{} of replaced files are kept since {position} was installed", size(*bytes)),
            if stopped {
                "rejoin rollback puts them back; they go when the node is Synced"
            } else {
                "they go when the node is Synced, or by rejoin release"
            },
        ),
    }
    if !facts.left.stale.is_empty() {
        let names: Vec<String> = facts.left.stale.iter().map(|path| path.display().to_string()).collect();
        findings.warning(
            "leftovers",
            format!("{} there and no transfer runs: whoever waits for its end waits for ever", are(&names)),
            format!("rm {}", names.join(" ")),
        );
    }
    if findings.is_clean("leftovers") {
        match facts.left.running {
            Some(pid) => findings.ok("leftovers", format!("a transfer runs (process {pid})")),
            None => findings.ok("leftovers", "none"),
        }
    }
}

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

/// The donor's files come beside the old ones; the old ones tell how much that is.
fn space(facts: &Facts, findings: &mut Findings) {
    let rooms = match &facts.rooms {
        Ok(rooms) => rooms,
        Err(why) => {
            return findings.error(
                "space",
                format!("the data cannot be looked at: {why}"),
                "check as the server's user",
            );
        }
    };
    let in_place = facts.settings.as_ref().map_or(InPlace::Auto, |settings| settings.in_place);
    for Room { at, data, available } in rooms {
        let wanted = data + MARGIN_BYTES;
        let text = format!("{}: {} available, {} of data", at.display(), size(*available), size(*data));
        if *available >= wanted {
            findings.ok("space", text);
            continue;
        }
        let fix = format!("{} more on this filesystem", size(wanted - available));
        match in_place {
            InPlace::Never => findings.push(
                Level::Error,
                "space",
                format!("{text}: old and new files do not fit together, and in-place=never"),
                format!(
                    "{fix}, or in-place=auto under [sst]; without it a transfer fits only when little differs"
                ),
            ),
            InPlace::Auto => findings.push(
                Level::Warning,
                "space",
                format!(
                    "{text}: a transfer of much that differs would replace file by file, with no way back"
                ),
                fix,
            ),
        }
    }
}

/// Where a stopped node would ask the cluster to continue.
fn position(facts: &Facts, findings: &mut Findings) {
    if !matches!(facts.server, Server::Stopped) {
        return;
    }
    let gcache = "rejoin gcache DIR on the others says from where they can serve";
    match &facts.grastate {
        None => findings.note(
            "position",
            "no grastate.dat: the next start asks for a full transfer",
            "right for a new node; otherwise see whether the datadir is the one you mean",
        ),
        Some(Err(why)) => findings.warning(
            "position",
            format!("grastate.dat does not read ({why}): the next start asks for a full transfer"),
            "see whether the datadir is the one you mean",
        ),
        Some(Ok(state)) if state.uuid.is_nil() => findings.note(
            "position",
            "grastate.dat holds no history (a transfer failed, or the node was found inconsistent): the next start asks for a full transfer",
            "nothing to do where that is wanted",
        ),
        Some(Ok(state)) if state.seqno.0 < 0 => findings.note(
            "position",
            format!("{}: the server did not stop cleanly; its recovery finds the position", state.uuid),
            format!("start it (galera_recovery does it under systemd); {gcache}"),
        ),
        Some(Ok(state)) => findings.ok("position", format!("{}:{}; {gcache}", state.uuid, state.seqno)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Error, Note, Ok as Fine, Warning};
    use super::super::fixture::{found, running, state, stopped, with_sst};
    use super::*;
    use crate::failure::{Failure, Kind};
    use crate::sink::plan::Purpose;
    use std::path::PathBuf;

    #[test]
    fn directories_that_cannot_be_written() {
        let with = |there| {
            let mut facts = stopped();
            facts.directories[0].there = there;
            facts
        };
        assert!(found(&with(DirectoryState::Missing), "directory", Error).contains("install -d"));
        let other = DirectoryState::Unusable("it is no directory".to_owned());
        assert!(found(&with(other), "directory", Error).contains("no directory"));
        let read_only = DirectoryState::There { writable: Some(false), owned: true };
        assert!(found(&with(read_only), "directory", Error).contains("not writable"));
        let roots = DirectoryState::There { writable: Some(true), owned: false };
        assert!(found(&with(roots), "directory", Warning).contains("does not belong"));
        let files = Some((PathBuf::from("/d/t.ibd"), 3));
        assert!(found(&Facts { foreign_files: files, ..stopped() }, "files", Warning).contains("3 files"));
    }

    #[test]
    fn tables_that_do_not_travel() {
        let mut facts = running();
        facts.cannot_travel =
            vec![Failure::new(Kind::Refused, "d.t is of engine ROCKSDB").hint("skip-engines=ROCKSDB")];
        facts.travels_badly = vec!["d.s of engine SPIDER is elsewhere".to_owned()];
        assert!(found(&facts, "tables", Error).contains("ROCKSDB"));
        assert!(found(&facts, "tables", Note).contains("SPIDER"));
    }

    #[test]
    fn every_state_a_transfer_can_leave() {
        let with = |kept| {
            let mut facts = stopped();
            facts.left.kept = kept;
            facts
        };
        let (purpose, position) = (Purpose::Install, "u:7".to_owned());
        let interrupted = Status::InstallInterrupted { purpose, position: position.clone() };
        assert!(found(&with(Ok(interrupted)), "leftovers", Error).contains("rejoin finish"));
        assert!(found(&with(Ok(Status::InPlaceBroken)), "leftovers", Error).contains("not complete"));
        assert!(found(&with(Ok(Status::Staging { files: 3 })), "leftovers", Note).contains("3 files"));
        let kept = Status::InstalledKept { bytes: 1 << 20, since: 0, position };
        assert!(found(&with(Ok(kept.clone())), "leftovers", Note).contains("rejoin rollback"));
        let mut up = running();
        up.left.kept = Ok(kept);
        assert!(found(&up, "leftovers", Note).contains("rejoin release"));
        assert!(found(&with(Err("damaged".to_owned())), "leftovers", Error).contains("damaged"));
        let mut stale = stopped();
        stale.left.stale = vec![PathBuf::from("/d/sst_in_progress")];
        assert!(found(&stale, "leftovers", Warning).contains("rm /d/sst_in_progress"));
        let mut busy = with(Ok(Status::Staging { files: 3 }));
        busy.left.running = Some(9);
        assert!(found(&busy, "leftovers", Fine).contains("process 9"));
    }

    #[test]
    fn no_room_beside_the_old_files() {
        let rooms = || Ok(vec![Room { at: "/d".into(), data: 10 << 30, available: 9 << 30 }]);
        assert!(found(&Facts { rooms: rooms(), ..stopped() }, "space", Warning).contains("1.1 GiB more"));
        let never = Facts { rooms: rooms(), ..with_sst("in-place=never\n") };
        assert!(found(&never, "space", Error).contains("in-place=never"));
        let unseen = Err("denied".to_owned());
        assert!(found(&Facts { rooms: unseen, ..stopped() }, "space", Error).contains("denied"));
    }

    #[test]
    fn positions_and_clocks() {
        let uuid = "2f0eaefd-11aa-11f0-9b0e-0242ac110002";
        let with = |grastate| Facts { grastate, ..stopped() };
        assert!(found(&with(None), "position", Note).contains("full transfer"));
        assert!(found(&with(Some(Err("x".to_owned()))), "position", Warning).contains("does not read"));
        assert!(found(&with(Some(state(uuid, -1))), "position", Note).contains("did not stop cleanly"));
        let nil = state("00000000-0000-0000-0000-000000000000", -1);
        assert!(found(&with(Some(nil)), "position", Note).contains("no history"));
        let future = Some(std::time::Duration::from_secs(3600));
        assert!(found(&Facts { from_the_future: future, ..stopped() }, "clock", Warning).contains("3600 s"));
    }
}
