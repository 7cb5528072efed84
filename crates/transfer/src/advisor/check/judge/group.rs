//! Provider settings with which a transfer hurts the cluster, and the other members.
use super::super::Findings;
use super::super::facts::{Facts, Live, Member, Server};
use super::CLOCKS_AGREE_WITHIN;
use crate::human::{seconds, size};
use crate::server::provider_options::{ProviderOptions, is_on, period_s, size as read_size};

/// `gcs.fc_limit` of Galera 26.4: the length of the receive queue at which a member makes the others wait.
const FC_LIMIT: u64 = 16;
/// Smaller packets of the group hold little of a write-set; the default is 64500.
const PACKET_LEAST: u64 = 4096;
/// The receive queue of a donor or joiner grows while the node cannot apply. The node aborts at the hard
/// limit.
const RECV_Q_LEAST: u64 = 1 << 30;
/// The default of `gcache.size` (Galera 26.4).
const GCACHE: u64 = 128 << 20;
/// A restart with some investigation takes this long. With less, nearly every absence ends in a full
/// transfer.
const OUTAGE_LEAST_S: f64 = 1800.0;
/// `evs.suspect_timeout` of Galera 26.4. With less, a donor on a busy host is expelled.
const SUSPECT_S: f64 = 5.0;

/// Adds the findings.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    let options = facts.provider_options();
    flow_control(&options, findings);
    quorum(&options, findings);
    gcache(facts, &options, findings);
    if options.get("socket.ssl_key").is_none_or(String::is_empty) {
        findings.note(
            "group",
            "group communication and IST are not encrypted (an SST by rejoin is)",
            "socket.ssl_key, socket.ssl_cert and socket.ssl_ca in wsrep_provider_options, on all nodes",
        );
    }
    findings.ok_if_clean("group", "no setting in wsrep_provider_options makes a transfer hurt the cluster");
    match &facts.server {
        Server::Running(live) => members(facts, live, findings),
        _ => neighbours(facts, findings),
    }
}

fn flow_control(options: &ProviderOptions, findings: &mut Findings) {
    let number = |name: &str| options.get(name).and_then(|value| read_size(value));
    let set = "in wsrep_provider_options";
    if options.get("gcs.sync_donor").is_some_and(|value| is_on(value)) {
        findings.warning(
            "group",
            "gcs.sync_donor = yes: the others slow down to the donor's pace, so a donor that waits stops the whole cluster",
            format!("gcs.sync_donor = no {set}"),
        );
    }
    if let Some(limit) = number("gcs.fc_limit").filter(|limit| *limit < FC_LIMIT) {
        findings.warning(
            "group",
            format!("gcs.fc_limit = {limit}: a node that catches up after a transfer makes the others wait all the time"),
            format!("gcs.fc_limit = {FC_LIMIT} or more {set}"),
        );
    }
    if let Some(bytes) = number("gcs.max_packet_size").filter(|bytes| *bytes < PACKET_LEAST) {
        findings.warning(
            "group",
            format!("gcs.max_packet_size = {bytes}: large write-sets are split into very many packets"),
            format!("remove it (the default is 64500) {set}"),
        );
    }
    if let Some(bytes) = number("gcs.recv_q_hard_limit").filter(|bytes| *bytes < RECV_Q_LEAST) {
        findings.warning(
            "group",
            format!(
                "gcs.recv_q_hard_limit = {}: a donor or joiner whose queue reaches it aborts",
                size(bytes)
            ),
            format!("remove it {set}"),
        );
    }
    if let Some(seconds) =
        options.get("evs.suspect_timeout").and_then(|v| period_s(v)).filter(|s| *s < SUSPECT_S)
    {
        findings.warning(
            "group",
            format!("evs.suspect_timeout = {seconds} s: a host that is busy with a transfer is soon considered dead"),
            format!("evs.suspect_timeout = PT5S or more {set}"),
        );
    }
}

fn quorum(options: &ProviderOptions, findings: &mut Findings) {
    for name in ["pc.ignore_sb", "pc.ignore_quorum"] {
        if options.get(name).is_some_and(|value| is_on(value)) {
            findings.warning(
                "group",
                format!("{name} = yes: both halves of a split cluster continue, and one of them needs a full transfer later"),
                format!("{name} = no in wsrep_provider_options"),
            );
        }
    }
    if options.get("pc.recovery").is_some_and(|value| !is_on(value)) {
        findings.note(
            "group",
            "pc.recovery = no: after a crash of all nodes the cluster must be bootstrapped by hand",
            "pc.recovery = yes in wsrep_provider_options",
        );
    }
    if options.get("pc.weight").and_then(|weight| weight.parse::<i64>().ok()) == Some(0) {
        findings.note(
            "group",
            "pc.weight = 0: this node does not count for the quorum",
            "pc.weight = 1 in wsrep_provider_options, unless this is intended",
        );
    }
}

/// The write-sets that this node can serve to others by IST, so that they need no state transfer.
fn gcache(facts: &Facts, options: &ProviderOptions, findings: &mut Findings) {
    if options.get("gcache.recover").is_some_and(|value| !is_on(value)) {
        findings.warning(
            "gcache",
            "gcache.recover = no: after a restart this node cannot serve earlier write-sets by IST",
            "gcache.recover = yes in wsrep_provider_options",
        );
    }
    if options.get("gcache.mem_size").and_then(|value| read_size(value)).is_some_and(|bytes| bytes > 0) {
        findings.warning(
            "gcache",
            "gcache.mem_size is set: those write-sets are lost when the server ends",
            "gcache.mem_size = 0 and a larger gcache.size in wsrep_provider_options",
        );
    }
    let ring = options.get("gcache.size").and_then(|value| read_size(value)).unwrap_or(GCACHE);
    let Some(live) = facts.live().filter(|live| live.write_set_rate >= 1.0) else {
        findings.ok_if_clean("gcache", format!("gcache.size is {}", size(ring)));
        return;
    };
    let outage = ring as f64 / live.write_set_rate;
    let text = format!(
        "gcache.size is {}, written at {}/s: a member may be away {}",
        size(ring),
        size(live.write_set_rate as u64),
        seconds(outage)
    );
    if outage < OUTAGE_LEAST_S {
        findings.warning("gcache", text, "rejoin gcache size DIR --outage 4h computes the size");
    } else {
        findings.ok_if_clean("gcache", text);
    }
}

/// The other members of a running node.
fn members(facts: &Facts, live: &Live, findings: &mut Findings) {
    let status = live.status.get("wsrep_cluster_status").map_or("", String::as_str);
    if status != "Primary" {
        findings.error(
            "members",
            format!("wsrep_cluster_status is {status:?}: there is no quorum, and no member can donate"),
            "see \"the whole cluster is down\" in docs/operating.md",
        );
    }
    if live.members.is_empty() {
        return findings.note(
            "members",
            "this is the only member: if it is lost there is no donor",
            "start another node",
        );
    }
    for Member { name, address, says } in &live.members {
        let member = if name.is_empty() { address.clone() } else { format!("{name} ({address})") };
        let says = match says {
            Ok(says) => says,
            Err(why) => {
                findings.note(
                    "members",
                    format!("{member}: version, method and clock unknown ({why})"),
                    "run rejoin check there",
                );
                continue;
            }
        };
        let before = findings.0.len();
        if says.method != facts.method() {
            findings.warning(
                "members",
                format!("{member} has wsrep_sst_method = {}", says.method),
                format!(
                    "set wsrep_sst_method = {} there; this check cannot see whether the program is installed there",
                    facts.method()
                ),
            );
        }
        let series = |text: &str| protocol::policy::series(&Some(text.to_owned()));
        if facts.version.as_deref().is_some_and(|own| series(own) != series(&says.version)) {
            findings.warning(
                "members",
                format!("{member} runs {}, which is not this node's series", says.version),
                "a state transfer between them sends rows instead of files, and needs SELECT for the donor's account (docs/policy.md)",
            );
        }
        let (ahead, exactly) = says.clock;
        if ahead.abs() - exactly > CLOCKS_AGREE_WITHIN.as_secs_f64() {
            findings.warning(
                "members",
                format!("the clock of {member} differs by {ahead:.0} s"),
                "set the clocks (chronyc tracking, timedatectl): otherwise certificates may not be valid yet, and times in the logs differ",
            );
        }
        if findings.0.len() == before {
            findings.ok(
                "members",
                format!("{member}: {}, method {}; not checked: its program", says.version, says.method),
            );
        }
    }
}

/// The configured members of a stopped node.
fn neighbours(facts: &Facts, findings: &mut Findings) {
    if facts.neighbours.is_empty() {
        return;
    }
    let silent = facts.neighbours.iter().filter_map(|n| Some((&n.address, n.answers.as_ref().err()?)));
    let silent: Vec<String> = silent.map(|(address, why)| format!("{address} ({why})")).collect();
    let answering = facts.neighbours.len() - silent.len();
    if silent.is_empty() {
        return findings.ok(
            "members",
            format!("{answering} answer; not checked: version, method and clock (the server is stopped)"),
        );
    }
    let text = format!(
        "{} of {} members do not answer: {}",
        silent.len(),
        facts.neighbours.len(),
        silent.join(", ")
    );
    let fix = "check that they run and that no firewall blocks the group's port";
    match answering {
        0 => findings.warning(
            "members",
            format!("{text}; there is no member to join"),
            format!("{fix}; if all are down: docs/operating.md"),
        ),
        _ => findings.note("members", text, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Error, Note, Warning};
    use super::super::super::facts::{MemberSays, Neighbour};
    use super::super::fixture::{found, live, running, set, stopped, with_options};
    use super::*;

    fn provider(options: &str) -> Facts {
        let mut facts = running();
        set(&mut facts, "wsrep_provider_options", &format!("socket.ssl_key=k;{options}"));
        facts
    }

    #[test]
    fn options_that_make_a_transfer_hurt() {
        let warned = [
            ("gcs.sync_donor=yes", "group", "stops the whole cluster"),
            ("gcs.fc_limit=1", "group", "wait all the time"),
            ("gcs.max_packet_size=512", "group", "many packets"),
            ("gcs.recv_q_hard_limit=64M", "group", "aborts"),
            ("evs.suspect_timeout=PT1S", "group", "considered dead"),
            ("pc.ignore_sb=true", "group", "split"),
            ("pc.ignore_quorum=true", "group", "split"),
            ("gcache.recover=no", "gcache", "by IST"),
            ("gcache.mem_size=32M", "gcache", "lost"),
        ];
        for (option, subject, text) in warned {
            assert!(found(&provider(option), subject, Warning).contains(text), "{option}");
            // The same from the option file of a stopped server.
            let word = format!("--wsrep_provider_options={option}");
            assert!(found(&with_options(stopped(), &[&word]), subject, Warning).contains(text), "{option}");
        }
        for (option, text) in [("pc.recovery=no", "by hand"), ("pc.weight=0", "quorum")] {
            assert!(found(&provider(option), "group", Note).contains(text), "{option}");
        }
        let mut clear = running();
        set(&mut clear, "wsrep_provider_options", "");
        assert!(found(&clear, "group", Note).contains("not encrypted"));
    }

    #[test]
    fn a_cache_that_lasts_for_minutes() {
        let mut facts = provider("gcache.size=128M");
        live(&mut facts).write_set_rate = f64::from(1 << 20);
        assert!(found(&facts, "gcache", Warning).contains("away 2 min"));
    }

    #[test]
    fn members_that_do_not_fit() {
        let says =
            MemberSays { version: "10.11.19".to_owned(), method: "rejoin".to_owned(), clock: (0.0, 0.1) };
        let with = |says: Result<MemberSays, String>| {
            let mut facts = running();
            live(&mut facts).members[0].says = says;
            facts
        };
        let method = MemberSays { method: "rsync".to_owned(), ..says.clone() };
        assert!(found(&with(Ok(method)), "members", Warning).contains("rsync"));
        let version = MemberSays { version: "11.8.6".to_owned(), ..says.clone() };
        assert!(found(&with(Ok(version)), "members", Warning).contains("not this node's series"));
        let clock = MemberSays { clock: (-3600.0, 0.1), ..says };
        assert!(found(&with(Ok(clock)), "members", Warning).contains("-3600 s"));
        assert!(found(&with(Err("not asked".to_owned())), "members", Note).contains("unknown"));
        let mut alone = running();
        live(&mut alone).members.clear();
        assert!(found(&alone, "members", Note).contains("only member"));
        live(&mut alone).status.insert("wsrep_cluster_status".to_owned(), "non-Primary".to_owned());
        assert!(found(&alone, "members", Error).contains("non-Primary"));
    }

    #[test]
    fn neighbours_that_do_not_answer() {
        let mut facts = stopped();
        let silent =
            |address: &str| Neighbour { address: address.to_owned(), answers: Err("refused".to_owned()) };
        facts.neighbours.push(silent("10.0.0.3:4567"));
        assert!(found(&facts, "members", Note).contains("1 of 2"));
        facts.neighbours = vec![silent("10.0.0.3:4567")];
        assert!(found(&facts, "members", Warning).contains("there is no member to join"));
    }
}
