//! Where donors connect for IST, where the provider listens, and whether IST can pass through a process of ours in between.
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use formats::wsrep::address::ListenAddress;

use super::provider_options::{ProviderOptions, is_on};

/// Port of the group unless something else is said.
const GROUP_PORT: u16 = 4567;

/// How to set the two options.
pub const IST_OPTIONS_HINT: &str =
    "ist.recv_addr=ADDRESS OF THIS HOST; ist.recv_bind=127.0.0.1 in wsrep_provider_options of the joiner";

/// Where donors connect for IST, and where the provider listens: on loopback, at the same port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IstEndpoints {
    /// Where donors connect: host and port.
    pub advertised: (String, u16),
    /// The transport that donors use there.
    pub outside: Transport,
    /// Where the provider listens.
    pub provider: SocketAddr,
    /// The transport that it uses there.
    pub inside: Transport,
    /// Its certificates, if it has any.
    pub certificates: Option<SocketCertificates>,
}

/// How a provider transports IST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nothing is encrypted.
    Plain,
    /// TLS only.
    Tls,
    /// TLS with a peer that begins it, otherwise plain (`socket.dynamic`).
    Dynamic,
}

/// The files with which a provider encrypts its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketCertificates {
    /// `socket.ssl_cert`: its certificate, then the intermediates.
    pub cert: PathBuf,
    /// `socket.ssl_key`.
    pub key: PathBuf,
    /// `socket.ssl_ca`; without it `cert` is used.
    pub ca: Option<PathBuf>,
}

impl SocketCertificates {
    /// The file of the certificates that are trusted, and the option that names it.
    pub fn trusted(&self) -> (&Path, &'static str) {
        match &self.ca {
            Some(ca) => (ca, "socket.ssl_ca"),
            None => (&self.cert, "socket.ssl_cert"),
        }
    }
}

/// Reads `ist.recv_addr`, `ist.recv_bind` and `socket.*`; `node_address` is `wsrep_node_address`. Relative file names start
/// at the datadir.
///
/// # Errors
/// Why IST cannot pass through us, in words.
pub fn ist_endpoints(
    options: &ProviderOptions,
    node_address: Option<&str>,
    datadir: &Path,
) -> Result<IstEndpoints, String> {
    let given = |name: &str| options.get(name).map(String::as_str);
    let bind = given("ist.recv_bind").ok_or("ist.recv_bind is not set")?;
    let address = given("ist.recv_addr").ok_or("ist.recv_addr is not set")?;
    let cannot_read = |name: &str, text: &str| format!("{name}={text} is not an address");
    let (bind_host, bind_port) = host_port(bind).ok_or_else(|| cannot_read("ist.recv_bind", bind))?;
    let (host, _) = host_port(address).ok_or_else(|| cannot_read("ist.recv_addr", address))?;
    let ip: IpAddr = bind_host.parse().map_err(|_| format!("ist.recv_bind={bind_host} is no IP address"))?;
    if !ip.is_loopback() {
        return Err(format!("ist.recv_bind={ip} is not on loopback"));
    }
    if host == bind_host || host.eq_ignore_ascii_case("localhost") {
        return Err(format!("ist.recv_addr={host} is where the provider itself listens"));
    }
    let certificates = certificates(options, datadir)?;
    let transport = |address: &str| match (&certificates, scheme(address)) {
        (Some(_), _) if given("socket.dynamic").is_some_and(is_on) => Transport::Dynamic,
        (Some(_), Some("ssl") | None) => Transport::Tls,
        _ => Transport::Plain,
    };
    let (outside, inside) = (transport(address), transport(bind));
    let base = given("base_port").and_then(|port| port.parse::<u16>().ok());
    let base = base.or_else(|| node_address.and_then(host_port)?.1).unwrap_or(GROUP_PORT);
    // The provider replaces a port of ist.recv_addr by the one that it listens on.
    let port = bind_port.unwrap_or(base.saturating_add(1));
    let provider = SocketAddr::new(ip, port);
    Ok(IstEndpoints { advertised: (host, port), outside, provider, inside, certificates })
}

/// None if the provider encrypts nothing.
fn certificates(options: &ProviderOptions, datadir: &Path) -> Result<Option<SocketCertificates>, String> {
    let file = |name: &str| options.get(name).filter(|path| !path.is_empty()).map(|path| datadir.join(path));
    if options.get("socket.ssl").is_some_and(|value| !is_on(value)) {
        return Ok(None);
    }
    match (file("socket.ssl_cert"), file("socket.ssl_key")) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(SocketCertificates { cert, key, ca: file("socket.ssl_ca") })),
        _ => Err("socket.ssl_cert and socket.ssl_key are not both set".to_owned()),
    }
}

fn scheme(address: &str) -> Option<&str> {
    address.split_once("://").map(|(scheme, _)| scheme)
}

/// `[tcp://]HOST[:PORT]`.
fn host_port(text: &str) -> Option<(String, Option<u16>)> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let address = ListenAddress::parse(text.trim().trim_end_matches('/')).ok()?;
    Some((address.host, address.port))
}

#[cfg(test)]
mod tests {
    use super::super::provider_options::parse;
    use super::*;

    const BOTH: &str = "ist.recv_addr=10.0.0.1;ist.recv_bind=127.0.0.1";

    fn endpoints(text: &str) -> Result<IstEndpoints, String> {
        ist_endpoints(&parse(text), Some("10.0.0.1:5567"), Path::new("/data"))
    }

    #[test]
    fn the_endpoints_of_ist() {
        let open = endpoints("ist.recv_addr=tcp://10.0.0.1:9;ist.recv_bind=127.0.0.1").unwrap();
        assert_eq!(open.advertised, ("10.0.0.1".to_owned(), 5568));
        assert_eq!(open.provider.to_string(), "127.0.0.1:5568");
        let given = endpoints("base_port=1;ist.recv_addr=n1;ist.recv_bind=127.0.0.1:4999").unwrap();
        assert_eq!((given.advertised.1, given.provider.port()), (4999, 4999));
        let alone = parse("ist.recv_addr=n1;ist.recv_bind=[::1]");
        let alone = ist_endpoints(&alone, None, Path::new("/data")).unwrap();
        assert_eq!(alone.provider.to_string(), "[::1]:4568");
        for (text, says) in [
            ("ist.recv_addr=10.0.0.1", "ist.recv_bind is not set"),
            ("ist.recv_bind=127.0.0.1", "ist.recv_addr is not set"),
            ("ist.recv_addr=10.0.0.1;ist.recv_bind=0.0.0.0", "not on loopback"),
            ("ist.recv_addr=127.0.0.1;ist.recv_bind=127.0.0.1", "where the provider itself listens"),
            ("ist.recv_addr=n1;ist.recv_bind=127.0.0.1;socket.ssl_key=k.pem", "not both set"),
        ] {
            let why = endpoints(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn what_is_encrypted() {
        let speaks = |more: &str| {
            let endpoints = endpoints(&format!("{BOTH};{more}")).unwrap();
            (endpoints.outside, endpoints.inside)
        };
        let keys = "socket.ssl_cert=c.pem;socket.ssl_key=/k.pem";
        assert_eq!(speaks(""), (Transport::Plain, Transport::Plain));
        assert_eq!(speaks(keys), (Transport::Tls, Transport::Tls));
        assert_eq!(speaks(&format!("{keys};socket.ssl=no")), (Transport::Plain, Transport::Plain));
        assert_eq!(speaks(&format!("{keys};socket.dynamic=yes")), (Transport::Dynamic, Transport::Dynamic));
        assert_eq!(speaks("socket.dynamic=yes"), (Transport::Plain, Transport::Plain));
        let schemes = "ist.recv_addr=tcp://10.0.0.1;ist.recv_bind=ssl://127.0.0.1";
        assert_eq!(speaks(&format!("{keys};{schemes}")), (Transport::Plain, Transport::Tls));
        let files = endpoints(&format!("{BOTH};{keys}")).unwrap().certificates.unwrap();
        assert_eq!((files.cert.as_path(), files.key.as_path()), ("/data/c.pem".as_ref(), "/k.pem".as_ref()));
        assert_eq!(files.trusted(), ("/data/c.pem".as_ref(), "socket.ssl_cert"));
        let with_ca = endpoints(&format!("{BOTH};{keys};socket.ssl_ca=ca")).unwrap().certificates.unwrap();
        assert_eq!(with_ca.trusted(), ("/data/ca".as_ref(), "socket.ssl_ca"));
    }
}
