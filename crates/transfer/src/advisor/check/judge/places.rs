//! Directories, the files in them, and free space.
use super::super::facts::{Directory, DirectoryState, Facts, Room, Server};
use super::super::{Findings, Level};
use super::CLOCKS_AGREE_WITHIN;
use crate::datadir::recognise::{self, Looks};
use crate::human::size;
use crate::install::kept::Status;
use crate::joiner::MARGIN_BYTES;
use crate::server::retries;
use crate::settings::{InPlace, KeepPrevious};

/// Adds the findings.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    if !is_datadir(facts, findings) {
        return;
    }
    directories(facts, findings);
    foreign_files(facts, findings);
    tables(facts, findings);
    leftovers(facts, findings);
    space(facts, findings);
    super::position::judge(facts, findings);
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

/// If a directory is not a datadir, or not known, one finding is enough.
fn is_datadir(facts: &Facts, findings: &mut Findings) -> bool {
    let path = facts.datadir.path.display();
    let missing = |directory: &Directory| directory.there == DirectoryState::Missing;
    match &facts.datadir.looks {
        _ if facts.bad_layout.is_some() => {
            let text = "not checked: the option files do not name this node's directories";
            findings.note("directory", text, "correct the option first");
        }
        Ok(Looks::Other) => {
            findings.error("directory", format!("{path} is not a MariaDB data directory"), recognise::HINT);
        }
        Err(_) if facts.directories.iter().any(missing) => directories(facts, findings),
        Err(why) => {
            findings.error("directory", format!("{path} cannot be read: {why}"), recognise::HINT);
        }
        Ok(Looks::Datadir | Looks::Empty) => return true,
    }
    false
}

fn directories(facts: &Facts, findings: &mut Findings) {
    let user = facts.server_user();
    for directory in &facts.directories {
        let path = directory.path.display();
        // Another service may rely on the owner of a directory that holds other files.
        let chown = match directory.is_data {
            true => format!("chown {user}: {path}"),
            false => "correct the option that names it: the server needs a directory of its own".to_owned(),
        };
        match &directory.there {
            DirectoryState::Missing => findings.error(
                "directory",
                format!("{path} does not exist"),
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
                format!("{chown}; also check whether its filesystem is mounted read-only"),
            ),
            DirectoryState::There { owned: false, .. } => {
                findings.warning("directory", format!("{path} does not belong to the server's user"), chown)
            }
            DirectoryState::There { .. } => {}
        }
    }
    for failure in &facts.cannot_take {
        let hint = failure.hint.as_deref().unwrap_or("see docs/datadir-files.md");
        findings.error("directory", failure.text.as_str(), hint);
    }
    for link in facts.dangling_links.iter().map(|path| path.display()) {
        findings.warning(
            "directory",
            format!("{link} is a dangling link: a transfer from a node with a database of this name would be refused"),
            "mount or create the link's target, or remove the link",
        );
    }
    findings.ok_if_clean(
        "directory",
        format!("{} directories belong to the server's user", facts.directories.len()),
    );
}

fn foreign_files(facts: &Facts, findings: &mut Findings) {
    let Some((first, count)) = &facts.foreign_files else { return };
    findings.warning(
        "files",
        format!(
            "{count} files in the datadir do not belong to the server's user, for example {}",
            first.display()
        ),
        format!(
            "find {} ! -user {user} -exec chown -h {user}: {{}} +",
            facts.datadir.path.display(),
            user = facts.server_user()
        ),
    );
}

/// Tables that a donor refuses to send, or warns about (docs/policy.md).
fn tables(facts: &Facts, findings: &mut Findings) {
    for failure in &facts.cannot_travel {
        let hint = failure.hint.as_deref().unwrap_or("see docs/policy.md for the tables that can be sent");
        findings.error("tables", format!("this node cannot donate: {}", failure.text), hint);
    }
    for warning in &facts.travels_badly {
        findings.note(
            "tables",
            warning.as_str(),
            "nothing to do if this is intended; see docs/policy.md for the tables that can be sent",
        );
    }
}

fn leftovers(facts: &Facts, findings: &mut Findings) {
    let stopped = matches!(facts.server, Server::Stopped);
    match &facts.left.kept {
        Err(why) => findings.error(
            "leftovers",
            format!("the leftovers of earlier transfers cannot be read: {why}"),
            "inspect #sql-rejoin and .rejoin in the datadir; rejoin status shows details",
        ),
        Ok(Status::Nothing) => {}
        Ok(Status::Staging { .. }) if facts.left.running.is_some() => {}
        Ok(Status::Staging { files }) => findings.note(
            "leftovers",
            format!("an unfinished transfer left {files} files; the datadir itself is unchanged"),
            "the next full transfer reuses them (incremental); an IST removes them",
        ),
        Ok(Status::InstallInterrupted { purpose, position }) => findings.error(
            "leftovers",
            format!("the {purpose} of {position} was interrupted: the datadir has files of two states"),
            "rejoin finish",
        ),
        Ok(Status::InPlaceBroken) => findings.error(
            "leftovers",
            "a transfer in place did not finish: the datadir is incomplete",
            "start the server as a member of its cluster (under systemd after rejoin finish --let-join): it transfers again. \
             Do not bootstrap from this node",
        ),
        Ok(Status::InstalledKept { bytes, position, .. }) => {
            let always = facts.settings.as_ref().is_ok_and(|s| s.keep_previous == KeepPrevious::Always);
            let until = if always { "until you run rejoin release" } else { "until the node is Synced" };
            let text = format!("installed {position}; the previous state ({}) is kept {until}", size(*bytes));
            let fix = match (stopped, always) {
                (true, _) => "rejoin rollback restores it; rejoin release removes it",
                (false, true) => "rejoin release removes it",
                (false, false) => "rejoin then removes it; rejoin release removes it now",
            };
            findings.note("leftovers", text, fix);
        }
    }
    retries(facts, findings);
    if !facts.left.stale.is_empty() {
        let names: Vec<String> = facts.left.stale.iter().map(|path| path.display().to_string()).collect();
        findings.warning(
            "leftovers",
            format!(
                "{} left although no transfer is running: a script that waits for its end would wait forever",
                are(&names)
            ),
            format!("rm {}", names.join(" ")),
        );
    }
    if findings.is_clean("leftovers") {
        match facts.left.running {
            Some(pid) => findings.ok("leftovers", format!("a transfer is running (process {pid})")),
            None => findings.ok("leftovers", "none"),
        }
    }
}

/// Joins that received files and failed, as far as `retry-limit` has them counted.
fn retries(facts: &Facts, findings: &mut Findings) {
    let failed = facts.left.failed_joins;
    let Ok(limits) = facts.settings.as_ref().map(|settings| settings.limits) else { return };
    match limits.permit_try(failed, &facts.datadir.path.join(retries::COUNT_FILE)) {
        Err(refusal) => {
            findings.error("leftovers", refusal.text, refusal.hint.unwrap_or_default());
        }
        Ok(()) if failed > 0 => findings.note(
            "leftovers",
            format!("{failed} joins in a row received files and failed (retry-limit counts them)"),
            "rejoin-joiner-*.log in the datadir name the reasons; the count ends when the node is Synced",
        ),
        Ok(()) => {}
    }
}

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

/// The donor's files are staged beside the old ones, whose size is the estimate of what they need.
fn space(facts: &Facts, findings: &mut Findings) {
    let rooms = match &facts.rooms {
        Ok(rooms) => rooms,
        Err(why) => {
            return findings.error(
                "space",
                format!("the data files cannot be read: {why}"),
                "run the check as the server's user",
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
                    "{fix}, or in-place=auto under [sst]; without it a transfer fits only if little differs"
                ),
            ),
            InPlace::Auto => findings.push(
                Level::Warning,
                "space",
                format!("{text}: if much differs, a transfer would replace files in place, without rollback"),
                fix,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Error, Note, Ok as Fine, Warning};
    use super::super::fixture::{found, running, stopped, with_sst};
    use super::*;
    use crate::failure::{Failure, Kind};
    use crate::install::plan::Purpose;
    use std::path::PathBuf;

    #[test]
    fn another_directory_is_named_once_and_left_to_its_owner() {
        let mut facts = stopped();
        facts.datadir.looks = Ok(Looks::Other);
        facts.directories[0].there = DirectoryState::There { writable: Some(false), owned: false };
        let text = found(&facts, "directory", Error);
        assert!(text.contains("is not a MariaDB data directory") && !text.contains("chown"), "{text}");
        facts.datadir.looks = Err("Permission denied".to_owned());
        assert!(found(&facts, "directory", Error).contains("cannot be read: Permission denied"));
        // The option names a directory of another service.
        facts.datadir.looks = Ok(Looks::Datadir);
        facts.directories[0].is_data = false;
        let text = found(&facts, "directory", Error);
        assert!(text.contains("correct the option") && !text.contains("chown"), "{text}");
        facts.bad_layout = Some("innodb_page_size=\"5\" cannot be used".to_owned());
        assert!(found(&facts, "directory", Note).contains("not checked"));
    }

    #[test]
    fn directories_that_cannot_be_written() {
        let with = |there| {
            let mut facts = stopped();
            facts.directories[0].there = there;
            facts
        };
        assert!(found(&with(DirectoryState::Missing), "directory", Error).contains("install -d"));
        let other = DirectoryState::Unusable("it is not a directory".to_owned());
        assert!(found(&with(other), "directory", Error).contains("not a directory"));
        let read_only = DirectoryState::There { writable: Some(false), owned: true };
        assert!(found(&with(read_only), "directory", Error).contains("not writable"));
        let roots = DirectoryState::There { writable: Some(true), owned: false };
        assert!(found(&with(roots), "directory", Warning).contains("does not belong"));
        let shut = vec![
            Failure::new(Kind::Refused, "/d/shop is not writable for mysql").hint("chown mysql: /d/shop"),
        ];
        assert!(found(&Facts { cannot_take: shut, ..stopped() }, "directory", Error).contains("/d/shop"));
        let links = vec![PathBuf::from("/d/shop")];
        let said = found(&Facts { dangling_links: links, ..stopped() }, "directory", Warning);
        assert!(said.contains("dangling link") && said.contains("mount"), "{said}");
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
        assert!(found(&with(Ok(Status::InPlaceBroken)), "leftovers", Error).contains("is incomplete"));
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
        let mut tried = with_sst("retry-limit=3\n");
        tried.left.failed_joins = 2;
        assert!(found(&tried, "leftovers", Note).contains("2 joins in a row"));
        tried.left.failed_joins = 3;
        assert!(found(&tried, "leftovers", Error).contains("rm /var/lib/mysql/sst_retry_count"));
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
    fn a_clock_that_was_set_back() {
        let future = Some(std::time::Duration::from_secs(3600));
        assert!(found(&Facts { from_the_future: future, ..stopped() }, "clock", Warning).contains("3600 s"));
    }
}
