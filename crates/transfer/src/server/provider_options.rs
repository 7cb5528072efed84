//! `wsrep_provider_options`: `name = value; name = value`.
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use formats::wsrep::address::ListenAddress;

/// Options by name, of several settings the last.
pub type ProviderOptions = BTreeMap<String, String>;

/// Parses the text from an option file, or as the server shows it (then with every option there is).
pub fn parse(text: &str) -> ProviderOptions {
    let pairs = text.split(';').filter_map(|part| part.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// A switch as the provider reads it.
pub fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "yes" | "on" | "true" | "1" | "y")
}

/// A size: a number with `K`, `M`, `G` or `T` behind it.
pub fn size(value: &str) -> Option<u64> {
    formats::mariadb::option_file::parse_size(value)
}

/// A period such as `PT5S`, `PT1M30S`, `P1DT2H` or plain seconds; in seconds.
pub fn period_s(value: &str) -> Option<f64> {
    let Some(mut rest) = value.trim().strip_prefix('P') else { return value.trim().parse().ok() };
    let (mut total, mut in_time) = (0.0, false);
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T') {
            (rest, in_time) = (time, true);
            continue;
        }
        let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(at);
        let seconds = match (unit.chars().next()?, in_time) {
            ('D', false) => 86_400.0,
            ('H', true) => 3600.0,
            ('M', true) => 60.0,
            ('S', true) => 1.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = unit.get(1..)?;
    }
    Some(total)
}

/// The directory of the provider's write-set cache.
pub fn cache_dir(provider: &ProviderOptions, datadir: &Path) -> PathBuf {
    let dir = provider.get("gcache.dir").or_else(|| provider.get("base_dir")).map(PathBuf::from);
    // `join` returns an absolute path unchanged.
    datadir.join(dir.unwrap_or_default())
}

/// Port of the group unless something else is said.
const GROUP_PORT: u16 = 4567;

/// Where IST comes in, when what comes can pass through a process of ours: donors are told an address of this host, and
/// the provider listens behind it on loopback, at the same port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IstDoor {
    /// Where donors connect: host and port.
    pub advertised: (String, u16),
    /// Where the provider listens.
    pub provider: SocketAddr,
}

/// What the two options must be.
pub const IST_DOOR_HINT: &str =
    "ist.recv_addr=ADDRESS OF THIS HOST; ist.recv_bind=127.0.0.1 in wsrep_provider_options of the joiner";

/// Reads `ist.recv_addr` and `ist.recv_bind`; `node_address` is `wsrep_node_address`.
///
/// # Errors
/// In words why nothing can pass through us.
pub fn ist_door(options: &ProviderOptions, node_address: Option<&str>) -> Result<IstDoor, String> {
    if options.keys().any(|name| name == "socket.ssl_key" || name == "socket.ssl_cert") {
        return Err("the provider encrypts its connections (socket.ssl_key): only it can read IST".to_owned());
    }
    let given = |name: &str| options.get(name).map(String::as_str).and_then(host_port);
    let bind = given("ist.recv_bind").ok_or("ist.recv_bind is not set")?;
    let (host, _) = given("ist.recv_addr").ok_or("ist.recv_addr is not set")?;
    let ip: IpAddr = bind.0.parse().map_err(|_| format!("ist.recv_bind={} is no IP address", bind.0))?;
    if !ip.is_loopback() {
        return Err(format!("ist.recv_bind={ip} is not on loopback"));
    }
    if host == bind.0 || host.eq_ignore_ascii_case("localhost") {
        return Err(format!("ist.recv_addr={host} is where the provider itself listens"));
    }
    let base = options.get("base_port").and_then(|port| port.parse::<u16>().ok());
    let base = base.or_else(|| node_address.and_then(host_port)?.1).unwrap_or(GROUP_PORT);
    // The provider replaces a port of ist.recv_addr by the one that it listens on.
    let port = bind.1.unwrap_or(base.saturating_add(1));
    Ok(IstDoor { advertised: (host, port), provider: SocketAddr::new(ip, port) })
}

/// `[tcp://]HOST[:PORT]`.
fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let address = ListenAddress::parse(text.trim().trim_end_matches('/')).ok()?;
    Some((address.host, address.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_of_ist() {
        let door = |text: &str| ist_door(&parse(text), Some("10.0.0.1:5567"));
        let open = door("ist.recv_addr=tcp://10.0.0.1:9;ist.recv_bind=127.0.0.1").unwrap();
        assert_eq!(open.advertised, ("10.0.0.1".to_owned(), 5568));
        assert_eq!(open.provider.to_string(), "127.0.0.1:5568");
        let given = door("base_port=1;ist.recv_addr=n1;ist.recv_bind=127.0.0.1:4999").unwrap();
        assert_eq!((given.advertised.1, given.provider.port()), (4999, 4999));
        let alone = ist_door(&parse("ist.recv_addr=n1;ist.recv_bind=[::1]"), None).unwrap();
        assert_eq!(alone.provider.to_string(), "[::1]:4568");
        for (text, says) in [
            ("ist.recv_addr=10.0.0.1", "ist.recv_bind is not set"),
            ("ist.recv_bind=127.0.0.1", "ist.recv_addr is not set"),
            ("ist.recv_addr=10.0.0.1;ist.recv_bind=0.0.0.0", "not on loopback"),
            ("ist.recv_addr=127.0.0.1;ist.recv_bind=127.0.0.1", "where the provider itself listens"),
            ("ist.recv_addr=n1;ist.recv_bind=127.0.0.1;socket.ssl_key=k.pem", "encrypts"),
        ] {
            let why = door(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn reads_both_forms() {
        let options = parse("gcache.size=32M;gcs.fc_limit = 16; pc.recovery = true; gcs.fc_limit=20;");
        assert_eq!(options.get("gcs.fc_limit").map(String::as_str), Some("20"));
        assert_eq!(options.get("gcache.size").map(String::as_str), Some("32M"));
        assert_eq!(options.len(), 3);
        assert!(is_on("YES") && is_on("1") && !is_on("no"));
    }

    #[test]
    fn periods_and_sizes() {
        assert_eq!(period_s("PT5S"), Some(5.0));
        assert_eq!(period_s("PT1M30S"), Some(90.0));
        assert_eq!(period_s("P1DT0.5S"), Some(86_400.5));
        assert_eq!(period_s("12"), Some(12.0));
        for bad in ["PX", "PT5", "P5S", "x"] {
            assert_eq!(period_s(bad), None, "{bad}");
        }
        assert_eq!(size("128M"), Some(128 << 20));
    }
}
