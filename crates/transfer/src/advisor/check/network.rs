//! The addresses that the node announces, free ports, and which of the configured members respond.
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::Duration;

use formats::wsrep::address::{DEFAULT_PORT, ListenAddress};

use super::facts::{AnnouncedAddress, Facts, Neighbour, Port, PortState};
use crate::server::ist_endpoints::ist_endpoints;
use crate::threads::{Thread, scoped};

/// Galera's port, unless the node's address or `base_port` names another.
const GROUP_PORT: u16 = 4567;
/// The server's port.
const CLIENT_PORT: u16 = 3306;
/// Socket units that an administrator, or a package, has enabled.
const SOCKETS_OF_SYSTEMD: &str = "/etc/systemd/system/sockets.target.wants";
/// How long a member may take to respond.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Host and port of a text such as `tcp://0.0.0.0:4567`, `10.0.0.1` or `[::1]:4568`.
fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest).trim();
    if text.is_empty() || text.eq_ignore_ascii_case("AUTO") {
        return None;
    }
    let address = ListenAddress::parse(text.trim_end_matches('/')).ok()?;
    Some((address.host, address.port))
}

/// The settings with this node's addresses.
struct Own {
    /// `wsrep_sst_receive_address`.
    sst: Option<(String, Option<u16>)>,
    /// `wsrep_node_address`.
    node: Option<(String, Option<u16>)>,
    /// The address that a running provider chose for itself.
    base_host: Option<String>,
    base_port: u16,
    /// `ist.recv_addr`, `ist.recv_bind`, `gmcast.listen_addr`.
    ist: Option<(String, Option<u16>)>,
    ist_bind: Option<(String, Option<u16>)>,
    group: Option<(String, Option<u16>)>,
}

impl Own {
    fn of(facts: &Facts) -> Own {
        let provider = facts.provider_options();
        let of_provider = |name: &str| provider.get(name).and_then(|text| host_port(text));
        let setting = |name: &str| facts.setting(name).and_then(host_port);
        let node = setting("wsrep_node_address");
        let base_port = provider.get("base_port").and_then(|port| port.parse().ok());
        Own {
            sst: setting("wsrep_sst_receive_address"),
            base_host: of_provider("base_host").map(|(host, _)| host),
            base_port: base_port.or(node.as_ref().and_then(|(_, port)| *port)).unwrap_or(GROUP_PORT),
            ist: of_provider("ist.recv_addr"),
            ist_bind: of_provider("ist.recv_bind"),
            group: of_provider("gmcast.listen_addr"),
            node,
        }
    }

    /// The address at which other nodes find this one, if the settings name it.
    fn host(&self) -> Option<(Option<&'static str>, String)> {
        let configured = self.node.as_ref().map(|(host, _)| (Some("wsrep_node_address"), host.clone()));
        configured.or_else(|| self.base_host.clone().map(|host| (None, host)))
    }
}

/// The addresses that a donor gets: for the state, and for the write-sets.
pub(super) fn announced(facts: &Facts) -> Vec<AnnouncedAddress> {
    let own = Own::of(facts);
    let of = |what, option, given: &Option<(String, Option<u16>)>| {
        let given = given.as_ref().map(|(host, _)| (Some(option), host.clone()));
        let (option, host) = given.or_else(|| own.host()).unwrap_or_default();
        let resolved = if host.is_empty() { Ok(vec![]) } else { resolve(&host) };
        AnnouncedAddress { what, option, host, resolved }
    };
    vec![of("SST", "wsrep_sst_receive_address", &own.sst), of("IST", "ist.recv_addr", &own.ist)]
}

fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    let found = (host, 0).to_socket_addrs().map_err(|e| e.to_string())?;
    let mut found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    found.dedup();
    Ok(found)
}

/// The ports that a transfer, or the start of a stopped server, listens on.
pub(super) fn ports(facts: &Facts) -> Vec<Port> {
    let own = Own::of(facts);
    let node = || own.host().map_or_else(|| "0.0.0.0".to_owned(), |(_, host)| host);
    let at = |given: &Option<(String, Option<u16>)>, default: u16| match given {
        Some((host, port)) => (host.clone(), port.unwrap_or(default)),
        None => (node(), default),
    };
    let ist = if own.ist_bind.is_some() { &own.ist_bind } else { &own.ist };
    let mut wanted = vec![("IST", at(ist, own.base_port.saturating_add(1)), "ist.recv_addr")];
    // A running joiner gets its state at its port for clients.
    if !facts.gives_rows() {
        wanted.insert(0, ("SST", at(&own.sst, DEFAULT_PORT), "wsrep_sst_receive_address"));
    }
    if matches!(facts.server, super::facts::Server::Stopped) {
        let any = |port| ("0.0.0.0".to_owned(), port);
        let group = own.group.clone().map(|(host, port)| (host, port.unwrap_or(own.base_port)));
        wanted.push(("group", group.unwrap_or_else(|| any(own.base_port)), "gmcast.listen_addr"));
        if facts.in_files("skip_networking").is_none_or(|value| value == "0") {
            let port = facts.in_files("port").and_then(|port| port.parse().ok()).unwrap_or(CLIENT_PORT);
            let host = facts.in_files("bind_address").and_then(|text| text.split(',').next());
            let host = host.filter(|host| !matches!(*host, "" | "*")).unwrap_or("0.0.0.0");
            wanted.push(("client", (host.to_owned(), port), "port"));
        }
    }
    let port = |(what, (host, port), option): (_, (String, u16), _)| {
        let address = ListenAddress { host: host.clone(), port: Some(port) }.to_string();
        let state = match (try_port(&host, port), socket_unit(Path::new(SOCKETS_OF_SYSTEMD))) {
            (PortState::Taken, Some(unit)) if what == "client" => PortState::TakenFor(unit),
            (state, _) => state,
        };
        Port { what, address, state, option }
    };
    wanted.into_iter().map(port).collect()
}

/// The socket unit of the server that systemd starts with the host: Debian 12 enables one.
fn socket_unit(enabled: &Path) -> Option<&'static str> {
    ["mariadb.socket", "mysql.socket"].into_iter().find(|unit| enabled.join(unit).symlink_metadata().is_ok())
}

/// Where donors connect for IST, if a process of ours has to listen there.
pub(super) fn relay(facts: &Facts) -> Option<PortState> {
    let node_address = facts.setting("wsrep_node_address");
    let endpoints = ist_endpoints(&facts.provider_options(), node_address, &facts.datadir.path).ok()?;
    let (host, port) = &endpoints.advertised;
    Some(try_port(host, *port))
}

/// Listens for an instant.
fn try_port(host: &str, port: u16) -> PortState {
    let Ok(addresses) = resolve(host) else { return PortState::NotHere };
    for ip in addresses {
        // Connections in TIME_WAIT do not count: std sets SO_REUSEADDR, as the programs that will listen do.
        match TcpListener::bind(SocketAddr::new(ip, port)) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::AddrInUse => return PortState::Taken,
            Err(e) if e.kind() == ErrorKind::AddrNotAvailable => return PortState::NotHere,
            Err(e) => return PortState::Refused(e.to_string()),
        }
    }
    PortState::Free
}

/// The members of `wsrep_cluster_address` without this node.
pub(super) fn neighbours(facts: &Facts) -> Vec<Neighbour> {
    let own = Own::of(facts);
    let port = own.group.as_ref().and_then(|(_, port)| *port).unwrap_or(own.base_port);
    let members = members_of(facts.in_files("wsrep_cluster_address").unwrap_or_default());
    let others: Vec<_> = members.into_iter().filter(|(host, at)| *at != port || !is_here(host)).collect();
    std::thread::scope(|scope| {
        let ask = |(host, port): (String, u16)| {
            let address = ListenAddress { host: host.clone(), port: Some(port) }.to_string();
            (address, scoped(scope, Thread::Member, move || Ok(greet(&host, port))))
        };
        let asked: Vec<_> = others.into_iter().map(ask).collect();
        let answered = asked.into_iter().map(|(address, thread)| Neighbour {
            address,
            answers: thread.join().unwrap_or_else(|why| Err(why.to_string())),
        });
        answered.collect()
    })
}

/// `gcomm://a,b:4567?options`.
pub(super) fn members_of(address: &str) -> Vec<(String, u16)> {
    let list = address.strip_prefix("gcomm://").unwrap_or_default();
    let list = list.split('?').next().unwrap_or_default();
    let members = list.split(',').filter_map(host_port);
    members.map(|(host, port)| (host, port.unwrap_or(GROUP_PORT))).collect()
}

/// Whether a name or address belongs to this host: only then can a socket use it.
fn is_here(host: &str) -> bool {
    resolve(host).is_ok_and(|ips| ips.iter().any(|ip| UdpSocket::bind(SocketAddr::new(*ip, 0)).is_ok()))
}

fn greet(host: &str, port: u16) -> Result<(), String> {
    let mut last = "it has no address".to_owned();
    for ip in resolve(host)? {
        match TcpStream::connect_timeout(&SocketAddr::new(ip, port), ANSWER_WITHIN) {
            Ok(_) => return Ok(()),
            Err(e) => last = e.to_string(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_their_forms() {
        assert_eq!(host_port("tcp://0.0.0.0:4567"), Some(("0.0.0.0".to_owned(), Some(4567))));
        assert_eq!(host_port("[::1]:4568"), Some(("::1".to_owned(), Some(4568))));
        assert_eq!(host_port("db1"), Some(("db1".to_owned(), None)));
        assert_eq!((host_port("AUTO"), host_port("")), (None, None));
        let members = members_of("gcomm://10.0.0.1,db2:4577?pc.wait_prim=no");
        assert_eq!(members, [("10.0.0.1".to_owned(), 4567), ("db2".to_owned(), 4577)]);
        assert!(members_of("gcomm://").is_empty());
    }

    #[test]
    fn the_socket_unit_of_debian_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(socket_unit(dir.path()), None);
        std::os::unix::fs::symlink("/lib/systemd/system/mariadb.socket", dir.path().join("mariadb.socket"))
            .unwrap();
        assert_eq!(socket_unit(dir.path()), Some("mariadb.socket"));
    }

    #[test]
    fn a_port_that_somebody_has_is_taken_and_a_strangers_address_is_not_here() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(try_port("127.0.0.1", port), PortState::Taken);
        // 192.0.2.0/24 is reserved for documentation.
        assert_eq!(try_port("192.0.2.1", port), PortState::NotHere);
        assert!(is_here("127.0.0.1") && !is_here("192.0.2.1"));
        assert_eq!(greet("127.0.0.1", port), Ok(()));
        drop(listener);
        assert_eq!(try_port("127.0.0.1", port), PortState::Free);
        assert!(greet("127.0.0.1", port).is_err());
    }
}
