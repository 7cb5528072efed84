//! Healthy nodes for the tests. Each test breaks one thing.
use std::collections::BTreeMap;
use std::path::PathBuf;

use formats::galera::grastate::GraState;
use formats::wsrep::invocation::SstArgs;

use super::super::Level;
use super::super::facts::*;
use super::judge;
use crate::datadir::recognise::Looks;
use crate::install::kept;
use crate::server::options::ServerOptions;
use crate::settings::Settings;

const FILE: &str = "[mysqld]\nwsrep_on=ON\nwsrep_sst_method=rejoin\nwsrep_cluster_address=gcomm://10.0.0.1,10.0.0.2\n\
                    wsrep_provider=/usr/lib/galera/libgalera_smm.so\nwsrep_node_address=10.0.0.1\n\
                    innodb_log_file_size=1G\nwsrep_provider_options=gcache.size=4G;socket.ssl_key=key.pem\n";

/// Returns the text of the only finding of this subject and level; the test fails if there is none.
pub(super) fn found(facts: &Facts, subject: &str, level: Level) -> String {
    let all = judge(facts);
    let mut fits = all.iter().filter(|f| f.subject == subject && f.level == level);
    let first = fits.next().unwrap_or_else(|| panic!("no {level:?} about {subject} in {all:#?}"));
    format!("{} {}", first.text, first.fix.as_deref().unwrap_or_default())
}

/// A content of `grastate.dat`.
pub(super) fn state(uuid: &str, seqno: i64) -> Result<GraState, String> {
    GraState::parse(&format!("uuid: {uuid}\nseqno: {seqno}\n")).map_err(|e| e.to_string())
}

fn options(text: &str, words: &[&str]) -> ServerOptions {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.cnf");
    std::fs::write(&file, text).unwrap();
    let args = SstArgs {
        defaults_file: Some(file.to_string_lossy().into_owned()),
        mysqld_args: words.iter().map(|word| (*word).to_owned()).collect(),
        ..SstArgs::default()
    };
    ServerOptions::load(&args).unwrap()
}

pub(super) fn with_options(mut facts: Facts, words: &[&str]) -> Facts {
    facts.options = options(FILE, words);
    facts
}

pub(super) fn set_sst(facts: &mut Facts, lines: &str) {
    facts.options = options(&format!("{FILE}[sst]\n{lines}"), &[]);
    facts.settings = Settings::read(&facts.options).map_err(|e| format!("{e:#}"));
}

pub(super) fn with_sst(lines: &str) -> Facts {
    let mut facts = stopped();
    set_sst(&mut facts, lines);
    facts
}

/// Sets a variable of the running server.
pub(super) fn set(facts: &mut Facts, name: &str, value: &str) {
    live(facts).variables.insert(name.to_owned(), value.to_owned());
}

pub(super) fn live(facts: &mut Facts) -> &mut Live {
    match &mut facts.server {
        Server::Running(live) => live,
        other => panic!("{other:?}"),
    }
}

pub(super) fn stopped() -> Facts {
    let options = options(FILE, &[]);
    let announced = |what| AnnouncedAddress {
        what,
        option: Some("wsrep_node_address"),
        host: "10.0.0.1".to_owned(),
        resolved: Ok(vec!["10.0.0.1".parse().unwrap()]),
    };
    let port = |what, port| Port {
        what,
        address: format!("10.0.0.1:{port}"),
        state: PortState::Free,
        option: "wsrep_sst_receive_address",
    };
    let data = PathBuf::from("/var/lib/mysql");
    let there = DirectoryState::There { writable: Some(true), owned: true };
    Facts {
        user: ("mysql".to_owned(), None),
        settings: Settings::read(&options).map_err(|e| format!("{e:#}")),
        options,
        bad_layout: None,
        datadir: Datadir { path: data.clone(), compiled_in: false, looks: Ok(Looks::Datadir) },
        server: Server::Stopped,
        version: Some("10.11.19-MariaDB".to_owned()),
        provider: Some((PathBuf::from("/usr/lib/galera/libgalera_smm.so"), None)),
        program: Program::Found {
            path: PathBuf::from("/usr/bin/wsrep_sst_rejoin"),
            executable: true,
            same: true,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        },
        backup_tool: Ok("/usr/bin/mariadb-backup, 10.11.19-MariaDB".to_owned()),
        no_base_command: None,
        directories: vec![Directory { path: data.clone(), is_data: true, there }],
        foreign_files: None,
        cannot_take: vec![],
        dangling_links: vec![],
        left: Left {
            kept: Ok(kept::Status::Nothing),
            running: None,
            failed_joins: 0,
            unfinished: None,
            own_position: None,
            stale: vec![],
        },
        rooms: Ok(vec![Room { at: data, data: 10 << 30, available: 30 << 30 }]),
        cannot_travel: vec![],
        travels_badly: vec![],
        announced: vec![announced("SST"), announced("IST")],
        ports: vec![port("SST", 4444), port("IST", 4568)],
        relay: None,
        neighbours: vec![Neighbour { address: "10.0.0.2:4567".to_owned(), answers: Ok(()) }],
        grastate: Some(state("2f0eaefd-11aa-11f0-9b0e-0242ac110002", 7)),
        from_the_future: None,
    }
}

pub(super) fn running() -> Facts {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let live = Live {
        variables: map(&[
            ("wsrep_on", "ON"),
            ("wsrep_sst_method", "rejoin"),
            ("wsrep_sst_donor_rejects_queries", "OFF"),
            ("wsrep_patch_version", "wsrep_26.22"),
            ("innodb_log_file_size", "1073741824"),
            (
                "wsrep_provider_options",
                "gcache.size = 4G; gcs.fc_limit = 16; socket.ssl_key = key.pem; gcs.recv_q_hard_limit = 9223372036854775807;",
            ),
        ]),
        status: map(&[
            ("wsrep_local_state_comment", "Synced"),
            ("wsrep_provider_version", "26.4.23(r1234)"),
            ("wsrep_cluster_size", "2"),
            ("wsrep_cluster_status", "Primary"),
        ]),
        account: "mysql@localhost".to_owned(),
        sees_others: true,
        reads_everything: true,
        makes_checkpoints: true,
        redo_rate: 1e6,
        write_set_rate: 1e5,
        members: vec![Member {
            name: "n2".to_owned(),
            address: "10.0.0.2:3306".to_owned(),
            says: Ok(MemberSays {
                version: "10.11.19-MariaDB".to_owned(),
                method: "rejoin".to_owned(),
                clock: (0.1, 0.2),
            }),
        }],
        ..Live::default()
    };
    let mut facts = stopped();
    facts.server = Server::Running(Box::new(live));
    facts.neighbours.clear();
    facts
}
