//! Whether other hosts can reach the addresses that this node announces, and whether it can listen there.
use std::net::IpAddr;

use formats::wsrep::address::ListenAddress;

use super::super::Findings;
use super::super::facts::{AnnouncedAddress, Facts, PortState, Server};
use super::super::network::members_of;

/// Adds the findings.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    let refused = settings_that_a_joiner_refuses(facts, findings);
    for announced in &facts.announced {
        if announced.what != "SST" || !refused {
            address(facts, announced, findings);
        }
    }
    for port in &facts.ports {
        let (what, address) = (port.what, &port.address);
        match &port.state {
            PortState::Free => {}
            PortState::Taken => findings.error(
                "port",
                format!("{address} ({what}) is in use"),
                format!(
                    "find the program that has it (as root: ss -ltnp 'sport = :{}'), or choose another port with {}",
                    address.rsplit(':').next().unwrap_or_default(),
                    port.option
                ),
            ),
            PortState::TakenFor(unit) => findings.error(
                "port",
                format!("{address} ({what}) is in use, and {unit} is enabled: while systemd listens there, a server with Galera does not start"),
                format!("systemctl disable --now {unit}"),
            ),
            PortState::NotHere => findings.note(
                "port",
                format!("{address} ({what}) is not an address of this host"),
                "correct the address, unless a device in front of this host forwards it",
            ),
            PortState::Refused(why) => findings.error(
                "port",
                format!("cannot listen on {address} ({what}): {why}"),
                format!("choose another with {}", port.option),
            ),
        }
    }
    if findings.is_clean("port") {
        let all: Vec<String> =
            facts.ports.iter().map(|port| format!("{} {}", port.what, port.address)).collect();
        match (&facts.left.running, &facts.server) {
            (Some(pid), _) => {
                findings.ok("port", format!("not tested: a transfer is running (process {pid})"))
            }
            (None, Server::Waits { .. }) => {
                findings.ok("port", "not tested: the server has started and may be using them");
            }
            (None, _) => findings.ok("port", format!("free: {}", all.join(", "))),
        }
    }
}

/// The server passes `wsrep_sst_receive_address` to the joiner's program unchanged, and the program parses it
/// by the same rules as this check. Returns true if it is invalid.
fn settings_that_a_joiner_refuses(facts: &Facts, findings: &mut Findings) -> bool {
    let given = facts.setting("wsrep_sst_receive_address").map(str::trim).unwrap_or_default();
    if given.is_empty() || given.eq_ignore_ascii_case("AUTO") {
        return false;
    }
    let Err(why) = ListenAddress::parse(given) else { return false };
    let hint = "set it to the HOST or HOST:PORT at which the other members reach this node (no tcp://, IPv6 in brackets), or leave it out";
    findings.error("address", format!("SST: wsrep_sst_receive_address={given}: {why}"), hint);
    true
}

fn address(facts: &Facts, announced: &AnnouncedAddress, findings: &mut Findings) {
    let AnnouncedAddress { what, option, host, resolved } = announced;
    let option = option.unwrap_or("wsrep_node_address");
    let to = format!("{option} = ADDRESS that the other members reach");
    if host.is_empty() {
        return findings.note(
            "address",
            format!(
                "{what}: no address is configured, so the server uses that of one of its network interfaces"
            ),
            to,
        );
    }
    let ips = match resolved {
        Ok(ips) => ips,
        Err(why) => {
            let text = format!("{what}: {host} ({option}) does not resolve here: {why}");
            return findings.error("address", text, to);
        }
    };
    if ips.iter().any(IpAddr::is_unspecified) {
        return findings.error(
            "address",
            format!(
                "{what}: {host} ({option}) is not an address that a donor on another host can connect to"
            ),
            format!(
                "{to}; listening on all addresses is the default, {}",
                if *what == "IST" { "ist.recv_bind" } else { "even if one address is named" }
            ),
        );
    }
    // On a test cluster on one host, this address is correct.
    if ips.iter().any(IpAddr::is_loopback) && !all_on_loopback(facts) {
        return findings.error(
            "address",
            format!("{what}: {host} ({option}) is a loopback address: a donor on another host would connect to itself"),
            to,
        );
    }
    findings.ok("address", format!("{what}: {host} ({option})"));
}

/// Whether all configured members are on this host: a test cluster.
fn all_on_loopback(facts: &Facts) -> bool {
    let members = members_of(facts.in_files("wsrep_cluster_address").unwrap_or_default());
    let local = |host: &str| host.starts_with("127.") || host == "localhost" || host == "[::1]";
    !members.is_empty() && members.iter().all(|(host, _)| local(host))
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Error, Note, Ok};
    use super::super::fixture::{found, stopped, with_options};
    use super::*;

    fn announcing(host: &str, resolved: Result<&str, &str>) -> Facts {
        let mut facts = stopped();
        facts.announced = vec![AnnouncedAddress {
            what: "IST",
            option: Some("ist.recv_addr"),
            host: host.to_owned(),
            resolved: resolved.map(|ip| vec![ip.parse().unwrap()]).map_err(str::to_owned),
        }];
        facts
    }

    #[test]
    fn addresses_that_nobody_else_reaches() {
        let all = announcing("0.0.0.0", Result::Ok("0.0.0.0"));
        assert!(found(&all, "address", Error).contains("ist.recv_bind"));
        let loopback = announcing("localhost", Result::Ok("127.0.0.1"));
        assert!(found(&loopback, "address", Error).contains("connect to itself"));
        let one_host = with_options(loopback, &["--wsrep_cluster_address=gcomm://127.0.0.1:1,127.0.0.1:2"]);
        assert!(found(&one_host, "address", Ok).contains("localhost"));
        let unknown = announcing("db9", Err("unknown name"));
        assert!(found(&unknown, "address", Error).contains("unknown name"));
        let mut none = announcing("", Err("x"));
        none.announced[0].option = None;
        assert!(found(&none, "address", Note).contains("network interfaces"));
    }

    #[test]
    fn what_the_joiner_would_refuse_is_an_error_here() {
        let with =
            |address: &str| with_options(stopped(), &[&format!("--wsrep_sst_receive_address={address}")]);
        for bad in ["10.0.0.1:70000", "tcp://10.0.0.1:4444", "10.0.0.1:", "a b"] {
            assert!(found(&with(bad), "address", Error).contains(&format!("={bad}: the ")), "{bad}");
        }
        for good in ["10.0.0.1:4445", "[::1]:4444", "db1", "AUTO", ""] {
            let facts = with(good);
            let mut findings = Findings::default();
            judge(&facts, &mut findings);
            assert!(!settings_that_a_joiner_refuses(&facts, &mut findings), "{good}");
        }
    }

    #[test]
    fn ports_that_cannot_be_had() {
        let with = |state| {
            let mut facts = stopped();
            facts.ports[0].state = state;
            facts
        };
        let taken = found(&with(PortState::Taken), "port", Error);
        assert!(taken.contains("10.0.0.1:4444 (SST)") && taken.contains("sport = :4444'"), "{taken}");
        let unit = found(&with(PortState::TakenFor("mariadb.socket")), "port", Error);
        assert!(unit.contains("systemctl disable --now mariadb.socket"), "{unit}");
        assert!(found(&with(PortState::NotHere), "port", Note).contains("forwards"));
        assert!(found(&with(PortState::Refused("denied".to_owned())), "port", Error).contains("denied"));
        let mut busy = stopped();
        (busy.left.running, busy.ports) = (Some(9), vec![]);
        assert!(found(&busy, "port", Ok).contains("process 9"));
    }
}
