//! The option files, and where the running server differs from them.
use formats::wsrep::address::ListenAddress;

use super::super::Findings;
use super::super::facts::{Facts, PortState, Server};
use crate::joiner::permit_options;
use crate::peer::Side;
use crate::server::ist_endpoints::{IST_OPTIONS_HINT, IstEndpoints, ist_endpoints};
use crate::settings::{IstChoice, SnapshotChoice};
use crate::writesets::ist::relay::is_readable;

/// Adds the findings.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    files(facts, findings);
    settings(facts, findings);
    method(facts, findings);
    membership(facts, findings);
    pauses(facts, findings);
    donor(facts, findings);
    deep_ist(facts, findings);
    backup(facts, findings);
    base_command(facts, findings);
}

/// Whether write-sets of a member's archive could bring this node back. Reported only if an option asks for deep IST.
fn deep_ist(facts: &Facts, findings: &mut Findings) {
    let options = facts.provider_options();
    let wanted = facts.settings.as_ref().is_ok_and(|settings| {
        settings.ist == IstChoice::Always || settings.archive.is_some() && settings.ist != IstChoice::Never
    });
    let begun = facts.in_files("wsrep_provider_options").is_some_and(|text| text.contains("ist.recv_bind"));
    if !wanted && !begun {
        return;
    }
    match ist_endpoints(&options, facts.setting("wsrep_node_address"), &facts.datadir.path) {
        Ok(endpoints) => {
            relay(facts, &endpoints, findings);
            if let Err(why) = is_readable(&endpoints) {
                let text =
                    format!("a member's archive cannot bring this node back, only files or IST: {why}");
                let hint = "a certificate of X.509 version 3 and a key without a password, readable for the server's user";
                findings.note("deep-ist", text, hint);
                return;
            }
            let (host, port) = endpoints.advertised;
            findings.ok(
                "deep-ist",
                format!("IST comes in at {host}:{port}: archived write-sets can be put before it"),
            );
        }
        Err(why) => findings.note(
            "deep-ist",
            format!("a member's archive cannot bring this node back, only files or IST: {why}"),
            IST_OPTIONS_HINT,
        ),
    }
}

/// Checks that a process listens where donors connect for IST, because the provider does not. The relay of a state transfer lives as
/// long as the server that it was started for; for a server that was started without one, the archiver listens.
fn relay(facts: &Facts, endpoints: &IstEndpoints, findings: &mut Findings) {
    let (host, port) = &endpoints.advertised;
    let why = match &facts.relay {
        None => return,
        Some(PortState::Taken | PortState::TakenFor(_)) => {
            return findings
                .ok("relay", format!("a process listens at {host}:{port}, where donors connect for IST"));
        }
        Some(PortState::Free) => "no process listens there".to_owned(),
        Some(PortState::NotHere) => "that is not an address of this host".to_owned(),
        Some(PortState::Refused(why)) => why.clone(),
    };
    let unable = match facts.server {
        Server::Stopped => "a server that is started without a state transfer",
        _ => "this server",
    };
    let hint = match &facts.relay {
        Some(PortState::Free) => format!(
            "run rejoin archive run --datadir {} as a service: it passes IST on; or remove ist.recv_addr and ist.recv_bind",
            facts.datadir.path.display()
        ),
        _ => "ist.recv_addr = ADDRESS OF THIS HOST that the other members reach".to_owned(),
    };
    let text =
        format!("donors connect to {host}:{port} for IST, and {why}: {unable} cannot take IST while it runs");
    findings.warning("relay", text, hint);
}

/// Whether mariadb-backup can serve where the online snapshot cannot read what the server writes.
fn backup(facts: &Facts, findings: &mut Findings) {
    let chosen = facts.settings.as_ref().map(|settings| settings.snapshot);
    let only = chosen == Ok(SnapshotChoice::Mariabackup);
    // To a joiner whose server runs rows are given, whatever `snapshot` says.
    let falls_back = chosen == Ok(SnapshotChoice::Auto) && !facts.gives_rows();
    let lacks_process = facts.live().is_some_and(|live| !live.sees_others);
    match &facts.backup_tool {
        Ok(_) if lacks_process && only => findings.error(
            "backup",
            "snapshot=mariabackup, and the account lacks PROCESS, which mariadb-backup needs: this node cannot donate",
            "give it PROCESS (see the finding about the account)",
        ),
        Ok(tool) => findings.ok("backup", format!("mariadb-backup can be used where the online snapshot cannot: {tool}")),
        Err(why) if only => findings.error(
            "backup",
            format!("snapshot=mariabackup, and {why}: this node cannot donate"),
            "install mariadb-backup of the server's version on every node, or set snapshot=auto under [sst]",
        ),
        Err(why) if falls_back => findings.note(
            "backup",
            format!(
                "{why}: with snapshot=auto a transfer to or from this node blocks the donor's writes where the online snapshot \
                 cannot read the donor's redo log or files"
            ),
            "install mariadb-backup of the server's series on every node (or name it with mariabackup= under [sst])",
        ),
        Err(why) => findings.ok("backup", format!("mariadb-backup is not used, also where the online snapshot cannot be: {why}")),
    }
}

/// The program that fills a base on an empty joiner.
fn base_command(facts: &Facts, findings: &mut Findings) {
    let Ok(settings) = &facts.settings else { return };
    let Some(command) = &settings.base_command else { return };
    if let Some(why) = &facts.no_base_command {
        findings.error(
            "base-command",
            format!("base-command cannot be run: {why}"),
            "correct base-command under [sst]",
        );
    } else if settings.base.is_some() {
        findings.note(
            "base-command",
            "base is set too, so base-command is not run",
            "remove one of them from [sst]",
        );
    } else if !settings.incremental {
        findings.note(
            "base-command",
            "incremental=0: nothing is compared, so base-command is not run",
            "incremental=1 under [sst]",
        );
    } else {
        let program = command.program().display();
        findings.ok("base-command", format!("an empty joiner runs {program} for a base"));
    }
}

fn files(facts: &Facts, findings: &mut Findings) {
    for warning in facts.options.warnings() {
        findings.warning(
            "options",
            warning.as_str(),
            "correct the file: the server reads it in the same way",
        );
    }
    if facts.options.files().is_empty() {
        findings.warning(
            "options",
            "no option file was read",
            "name the server's option file with --defaults-file, or check who may read /etc/mysql/my.cnf",
        );
    }
    if let Some(why) = &facts.bad_layout {
        findings.error("options", why.as_str(), "correct the option: neither donor nor joiner can use it");
    }
    // A joiner of rows keeps its server and its redo log.
    if !facts.gives_rows()
        && let Err(refusal) = permit_options(&facts.options)
    {
        let text = format!("{}: every state transfer to this node is refused", refusal.text);
        findings.error("options", text, refusal.hint.unwrap_or_default());
    }
    findings.ok_if_clean("options", format!("{} option files read", facts.options.files().len()));
    if facts.datadir.compiled_in {
        let path = facts.datadir.path.display();
        findings.ok("options", format!("datadir is not set; using the server's default {path}"));
    }
}

fn settings(facts: &Facts, findings: &mut Findings) {
    let settings = match &facts.settings {
        Ok(settings) => settings,
        Err(why) => {
            return findings.error("sst", why.as_str(), "see the valid values in docs/options.md");
        }
    };
    for side in [Side::Joiner, Side::Donor] {
        if let Some(own) = settings.certificates.of(side)
            && let Err(why) = crate::peer::tls::server(Some(own))
        {
            let role = side.name();
            findings.error(
                "sst",
                format!("the certificates under [sst] cannot be used as the {role}: {why:#}"),
                "correct ssl-ca, ssl-cert and ssl-key, or remove all three: a transfer then creates its own certificates",
            );
        }
    }
    let of = |side| settings.certificates.of(side).is_some();
    if of(Side::Joiner) != of(Side::Donor) {
        findings.error(
            "sst",
            "certificates are set for one role only: a node with certificates refuses one without, so every transfer fails",
            "set ssl-ca, ssl-cert and ssl-key, or both ssl-client-* and ssl-server-*, on every node",
        );
    }
    if settings.snapshot == SnapshotChoice::Blocking {
        findings.note(
            "sst",
            "snapshot=blocking: this node blocks writes while it donates",
            "snapshot=auto under [sst]",
        );
    }
    if settings.snapshot == SnapshotChoice::Logical {
        findings.note(
            "sst",
            "snapshot=logical: this node sends rows, also to joiners that could use its files",
            "snapshot=auto under [sst]",
        );
    }
    if settings.allow_corrupt_pages {
        findings.warning(
            "sst",
            "allow-corrupt-pages=1: this node sends corrupt pages to joiners",
            "remove it after the transfer that it was set for",
        );
    }
    findings.ok_if_clean("sst", "all options under [sst] are valid");
}

/// Names under which the server treats a method differently (docs/server-contract.md).
const MISLEADING: [&str; 3] = ["mariabackup", "mysqldump", "skip"];

/// The joiner's method counts for both sides, and a joiner takes it from its option files.
fn method(facts: &Facts, findings: &mut Findings) {
    const FIX: &str = "wsrep_sst_method = rejoin under [mysqld], on every node";
    match facts.in_files("wsrep_sst_method") {
        Some("rejoin") => findings.ok("method", "wsrep_sst_method = rejoin"),
        Some(name) if name == facts.method() && !MISLEADING.contains(&name) => {
            findings
                .ok("method", format!("wsrep_sst_method = {name}, and the program of this name is rejoin"));
        }
        Some(_) if facts.gives_rows() => given_rows(facts, findings),
        None | Some("") => {
            findings.error("method", "wsrep_sst_method is not set: the server uses rsync", FIX)
        }
        Some(other) => {
            findings.error(
                "method",
                format!("wsrep_sst_method = {other}: the next start uses that method"),
                FIX,
            );
        }
    }
    let live = facts.live().and_then(|live| live.variables.get("wsrep_sst_method"));
    if let Some(live) = live.filter(|live| Some(live.as_str()) != facts.in_files("wsrep_sst_method")) {
        findings.warning(
            "method",
            format!("the running server has wsrep_sst_method = {live}, which its option files do not set"),
            "SET GLOBAL wsrep_sst_method = 'rejoin'; and the same in the option file",
        );
    }
}

/// rejoin is in the place of the server's own script for a joiner that runs already.
fn given_rows(facts: &Facts, findings: &mut Findings) {
    findings.note(
        "method",
        "wsrep_sst_method = mysqldump, and the program of this name is rejoin: a donor gives this node rows while its server runs, \
         and once they have replaced the old data there is no previous state",
        "wsrep_sst_method = rejoin, unless this server has to run before it joins",
    );
    let is_set = |value: Option<&str>| value.is_some_and(|value| !value.is_empty());
    if !is_set(facts.setting("wsrep_sst_auth")) && !is_set(facts.options.sst("wsrep-sst-auth")) {
        findings.error(
            "method",
            "wsrep_sst_auth is not set: with this method a donor logs in to the joiner's server",
            "wsrep_sst_auth = NAME:PASSWORD on every node, of an account with ALL PRIVILEGES that may log in from every node",
        );
    }
    let port = |text: &str| ListenAddress::parse(text).ok().and_then(|address| address.port);
    let receives = facts.setting("wsrep_sst_receive_address").and_then(port);
    let clients = facts.setting("port").and_then(|port| port.parse().ok()).unwrap_or(3306);
    if let Some(port) = receives.filter(|port| *port != clients) {
        findings.error(
            "method",
            format!("wsrep_sst_receive_address names port {port}: with this method it must be the one for clients, {clients}"),
            "wsrep_sst_receive_address = AUTO",
        );
    }
    let files = facts.setting("secure_file_priv").unwrap_or_default();
    if !files.is_empty() && !facts.datadir.path.starts_with(files) {
        findings.error(
            "method",
            format!("secure_file_priv = {files}: with this method the server must write files into its datadir when it is the joiner"),
            "take secure_file_priv out of the option file until this node has joined",
        );
    }
}

fn membership(facts: &Facts, findings: &mut Findings) {
    let is_on =
        facts.setting("wsrep_on").is_some_and(|value| !matches!(value.to_uppercase().as_str(), "0" | "OFF"));
    if !is_on {
        findings.error(
            "cluster",
            "wsrep_on is off: the server is not a member of a cluster",
            "wsrep_on = ON under [mysqld]",
        );
    }
    match facts.in_files("wsrep_cluster_address") {
        None | Some("") => findings.error(
            "cluster",
            "wsrep_cluster_address is not set: the server never joins",
            "wsrep_cluster_address = gcomm://HOST,HOST,... with all members",
        ),
        Some("gcomm://") => findings.warning(
            "cluster",
            "wsrep_cluster_address = gcomm:// names no member: the next start bootstraps a new cluster of one node",
            "name all members; for the first start of a cluster use galera_new_cluster",
        ),
        Some(_) => {}
    }
    findings.ok_if_clean("cluster", facts.in_files("wsrep_cluster_address").unwrap_or_default());
}

/// With these settings the server does not pause replication for a backup (docs/online-snapshot.md).
fn pauses(facts: &Facts, findings: &mut Findings) {
    if facts.setting("wsrep_sst_method") == Some("mariabackup") && matches!(facts.server, Server::Running(_))
    {
        findings.warning(
            "pause",
            "wsrep_sst_method = mariabackup on the running server: it does not pause replication for a backup, so it can donate only with the blocking snapshot",
            "SET GLOBAL wsrep_sst_method = 'rejoin';",
        );
    }
    let modes = facts.setting("wsrep_mode").unwrap_or_default();
    if modes.split(',').any(|mode| mode.trim().eq_ignore_ascii_case("BF_ABORT_MARIABACKUP")) {
        findings.warning(
            "pause",
            "wsrep_mode has BF_ABORT_MARIABACKUP: the server does not pause replication for a backup, so it can donate only with the blocking snapshot",
            "remove it from wsrep_mode",
        );
    }
}

fn donor(facts: &Facts, findings: &mut Findings) {
    let rejects = facts.setting("wsrep_sst_donor_rejects_queries").unwrap_or_default();
    if matches!(rejects.to_uppercase().as_str(), "1" | "ON") {
        findings.warning(
            "donor",
            "wsrep_sst_donor_rejects_queries = ON: this node rejects its clients while it donates, although it could serve them",
            "wsrep_sst_donor_rejects_queries = OFF",
        );
    }
    let wanted = facts.setting("wsrep_sst_donor").unwrap_or_default();
    if !wanted.is_empty() && !wanted.ends_with(',') && !wanted.starts_with(',') {
        findings.warning(
            "donor",
            format!("wsrep_sst_donor = {wanted}: if none of these is available the node does not start"),
            format!("wsrep_sst_donor = {wanted}, (the trailing comma allows any other member)"),
        );
    }
    if wanted.split(',').any(|name| name.trim().parse::<std::net::IpAddr>().is_ok()) {
        findings.warning(
            "donor",
            format!("wsrep_sst_donor = {wanted}: it must list node names (wsrep_node_name), not addresses"),
            "name the nodes",
        );
    }
    findings.ok_if_clean("donor", if wanted.is_empty() { "any member" } else { wanted });
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
