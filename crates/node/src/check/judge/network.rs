//! Whether other hosts can reach what this node announces, and whether it can listen there.
use std::net::IpAddr;

use super::super::Findings;
use super::super::facts::{Announced, Facts, PortState};
use super::super::network::members_of;

/// Judges.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    for announced in &facts.announced {
        address(facts, announced, findings);
    }
    for port in &facts.ports {
        let (what, address) = (port.what, &port.address);
        match &port.state {
            PortState::Free => {}
            PortState::Taken => findings.error(
                "port",
                format!("{address} ({what}) is in use by another program"),
                format!("end that program (ss -ltnp shows it), or choose another port with {}", port.option),
            ),
            PortState::NotHere => findings.note(
                "port",
                format!("{address} ({what}) is no address of this host"),
                "right where something in front of this host forwards it; otherwise correct the address",
            ),
            PortState::Refused(why) => findings.error(
                "port",
                format!("{address} ({what}) cannot be listened on: {why}"),
                format!("choose another with {}", port.option),
            ),
        }
    }
    if findings.is_clean("port") {
        let all: Vec<String> =
            facts.ports.iter().map(|port| format!("{} {}", port.what, port.address)).collect();
        match &facts.left.running {
            Some(pid) => findings.ok("port", format!("not tried: a transfer runs (process {pid})")),
            None => findings.ok("port", format!("free: {}", all.join(", "))),
        }
    }
}

fn address(facts: &Facts, announced: &Announced, findings: &mut Findings) {
    let Announced { what, option, host, resolved } = announced;
    let option = option.unwrap_or("wsrep_node_address");
    let to = format!("{option} = ADDRESS that the other members reach");
    if host.is_empty() {
        return findings.note(
            "address",
            format!("{what}: no address is configured, the server takes one of its network interfaces"),
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
            format!("{what}: {host} ({option}) is no address that a donor on another host can dial"),
            format!(
                "{to}; to listen everywhere is the default, {}",
                if *what == "IST" { "ist.recv_bind" } else { "also with one address named" }
            ),
        );
    }
    // A cluster on one host is right to use it.
    if ips.iter().any(IpAddr::is_loopback) && !all_on_loopback(facts) {
        return findings.error(
            "address",
            format!("{what}: {host} ({option}) is this host's loopback address: a donor on another host dials itself"),
            to,
        );
    }
    findings.ok("address", format!("{what}: {host} ({option})"));
}

/// All configured members are on this host: a test cluster.
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
        facts.announced = vec![Announced {
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
        assert!(found(&loopback, "address", Error).contains("dials itself"));
        let one_host = with_options(loopback, &["--wsrep_cluster_address=gcomm://127.0.0.1:1,127.0.0.1:2"]);
        assert!(found(&one_host, "address", Ok).contains("localhost"));
        let unknown = announcing("db9", Err("unknown name"));
        assert!(found(&unknown, "address", Error).contains("unknown name"));
        let mut none = announcing("", Err("x"));
        none.announced[0].option = None;
        assert!(found(&none, "address", Note).contains("network interfaces"));
    }

    #[test]
    fn ports_that_cannot_be_had() {
        let with = |state| {
            let mut facts = stopped();
            facts.ports[0].state = state;
            facts
        };
        assert!(found(&with(PortState::Taken), "port", Error).contains("10.0.0.1:4444 (SST)"));
        assert!(found(&with(PortState::NotHere), "port", Note).contains("forwards"));
        assert!(found(&with(PortState::Refused("denied".to_owned())), "port", Error).contains("denied"));
        let mut busy = stopped();
        (busy.left.running, busy.ports) = (Some(9), vec![]);
        assert!(found(&busy, "port", Ok).contains("process 9"));
    }
}
