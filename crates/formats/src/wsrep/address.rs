//! Addresses: where a joiner listens, and the text after `ready ` for the donor.
//!
//! The server cuts the text at its last `@`, gives the donor's program the part after it as `--address` and refuses
//! characters outside `[A-Za-z0-9_.:[]/-]` there; since 10.11.19 it also refuses anything but
//! `[A-Za-z0-9_.-]` on either side of the one `:` before the `@` (sql/wsrep_sst.cc, MariaDB 10.11.18, and
//! a 10.11.19 server). Host, port and fields are separated as scripts/wsrep_sst_common.sh (10.11.19) does it.

use std::fmt;

use thiserror::Error;

use super::report::{BadLine, check_ready};

/// Port of a joiner that names none (scripts/wsrep_sst_common.sh, MariaDB 10.11).
pub const DEFAULT_PORT: u16 = 4444;

/// Which part of an address breaks which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadAddress {
    /// No host.
    #[error("the address has no host")]
    NoHost,
    /// A character the server would refuse in the host, or a bracket out of place.
    #[error("the host has a character outside [A-Za-z0-9_.-] (or [A-Fa-f0-9:.] in brackets)")]
    Host,
    /// The port is not a number of 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A new address needs a module name.
    #[error("the module name is empty")]
    NoModule,
    /// A character the server would refuse in the module name, or a `/`.
    #[error("the module name has a character outside [A-Za-z0-9_.:[]-]")]
    Module,
    /// A character the server would refuse in a field, or a `/`.
    #[error("field {0} has a character outside [A-Za-z0-9_.:[]-]")]
    Field(usize),
    /// A character the server would refuse before the `@`.
    #[error("the authentication part has a character outside [A-Za-z0-9_.-] or more than one ':'")]
    Auth,
    /// The whole is not a line that the server can read.
    #[error(transparent)]
    Line(#[from] BadLine),
}

/// Where to listen, from the server's `--address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// Name or address, without brackets.
    pub host: String,
    /// Port, if the administrator set one.
    pub port: Option<u16>,
}

impl ListenAddress {
    /// Reads `HOST[:PORT]`, `[V6][:PORT]`, or an IPv6 address without brackets (two colons or more, then there
    /// can be no port).
    ///
    /// # Errors
    /// An empty or ill-formed host, a port out of range.
    pub fn parse(text: &str) -> Result<ListenAddress, BadAddress> {
        let (host, port) = split_host_port(text.trim())?;
        Ok(ListenAddress { host: host.to_owned(), port })
    }

    /// The host in the form that precedes a port: IPv6 in brackets.
    pub fn display_host(&self) -> String {
        bracketed(&self.host)
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display_host())?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The text after `ready `: `[USER[:PASS]@]HOST[:PORT][/MODULE[/FIELD...]]`.
#[derive(Clone, PartialEq, Eq)]
pub struct ReadyText {
    /// What the donor's program gets in addition to the address: user and password, each may be empty.
    pub auth: Option<(String, String)>,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of the protocol, `rejoin` for ours; empty if the text has none.
    pub module: String,
    /// What follows the module, separated by `/`; fields may be empty.
    pub fields: Vec<String>,
}

impl fmt::Debug for ReadyText {
    /// Shows everything except the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyText")
            .field("auth", &self.auth.as_ref().map(|(user, _)| (user, "[hidden]")))
            .field("host", &self.host)
            .field("port", &self.port)
            .field("module", &self.module)
            .field("fields", &self.fields)
            .finish()
    }
}

impl ReadyText {
    /// Builds the text, and refuses whatever the donor's server would refuse.
    ///
    /// # Errors
    /// The first part that breaks a rule; the whole longer than the server reads.
    pub fn to_text(&self) -> Result<String, BadAddress> {
        if self.port == 0 {
            return Err(BadAddress::Port);
        }
        if self.module.is_empty() {
            return Err(BadAddress::NoModule);
        }
        check_host(&self.host)?;
        check_parts(&self.module, &self.fields)?;
        let mut text = String::new();
        if let Some((user, pass)) = &self.auth {
            if !user.bytes().chain(pass.bytes()).all(is_auth) {
                return Err(BadAddress::Auth);
            }
            text.push_str(user);
            if !pass.is_empty() {
                text.push(':');
                text.push_str(pass);
            }
            text.push('@');
        }
        text.push_str(&format!("{}:{}/{}", bracketed(&self.host), self.port, self.module));
        for field in &self.fields {
            text.push('/');
            text.push_str(field);
        }
        check_ready(&text)?;
        Ok(text)
    }

    /// Parses the text, or a donor's `--address` (which has no `@` any more). Without a port it is 4444.
    ///
    /// # Errors
    /// The first part that breaks a rule.
    pub fn parse(text: &str) -> Result<ReadyText, BadAddress> {
        check_ready(text)?;
        let (auth, rest) = match text.rsplit_once('@') {
            Some((auth, rest)) => (Some(split_auth(auth)?), rest),
            None => (None, text),
        };
        let mut parts = rest.split('/');
        let (host, port) = split_host_port(parts.next().unwrap_or_default())?;
        let module = parts.next().unwrap_or_default().to_owned();
        let fields: Vec<String> = parts.map(str::to_owned).collect();
        check_parts(&module, &fields)?;
        Ok(ReadyText { auth, host: host.to_owned(), port: port.unwrap_or(DEFAULT_PORT), module, fields })
    }
}

fn is_auth(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn is_field(byte: u8) -> bool {
    is_auth(byte) || matches!(byte, b':' | b'[' | b']')
}

fn split_auth(text: &str) -> Result<(String, String), BadAddress> {
    let (user, pass) = text.split_once(':').unwrap_or((text, ""));
    if !user.bytes().chain(pass.bytes()).all(is_auth) {
        return Err(BadAddress::Auth);
    }
    Ok((user.to_owned(), pass.to_owned()))
}

fn check_parts(module: &str, fields: &[String]) -> Result<(), BadAddress> {
    if !module.bytes().all(is_field) {
        return Err(BadAddress::Module);
    }
    match fields.iter().position(|field| !field.bytes().all(is_field)) {
        Some(at) => Err(BadAddress::Field(at)),
        None => Ok(()),
    }
}

fn check_host(host: &str) -> Result<(), BadAddress> {
    if host.is_empty() {
        return Err(BadAddress::NoHost);
    }
    let v6 = |b: u8| b.is_ascii_hexdigit() || matches!(b, b':' | b'.');
    let fits = if host.contains(':') { host.bytes().all(v6) } else { host.bytes().all(is_auth) };
    // A lone colon would read back as host and port.
    let one_colon = host.bytes().filter(|&b| b == b':').count() == 1;
    if fits && !one_colon { Ok(()) } else { Err(BadAddress::Host) }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn parse_port(text: &str) -> Result<u16, BadAddress> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadAddress::Port);
    }
    text.parse().ok().filter(|&port| port != 0).ok_or(BadAddress::Port)
}

fn split_host_port(text: &str) -> Result<(&str, Option<u16>), BadAddress> {
    let (host, port) = if let Some(inner) = text.strip_prefix('[') {
        let (host, rest) = inner.split_once(']').ok_or(BadAddress::Host)?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(BadAddress::Host),
        }
    } else if text.bytes().filter(|&b| b == b':').count() > 1 {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    check_host(host)?;
    Ok((host, port.map(parse_port).transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listen_addresses() {
        let read = |text| ListenAddress::parse(text).map(|a| (a.display_host(), a.port));
        assert_eq!(read("10.0.0.1"), Ok(("10.0.0.1".into(), None)));
        assert_eq!(read("node-1.lan:4000"), Ok(("node-1.lan".into(), Some(4000))));
        assert_eq!(read("[fe80::1]:4000"), Ok(("[fe80::1]".into(), Some(4000))));
        assert_eq!(read("[::1]"), Ok(("[::1]".into(), None)));
        assert_eq!(read("::1"), Ok(("[::1]".into(), None)));
        for bad in ["", ":4444", "[]:1", "[::1", "[::1]x", "a b", "h:0", "h:65536", "h:+1", "h:", "[a:b]:1"] {
            assert!(ListenAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_shipped_methods_texts_read() {
        let read = ReadyText::parse("10.0.0.1:4444/xtrabackup_sst//1").unwrap();
        assert_eq!((read.module.as_str(), read.fields), ("xtrabackup_sst", vec![String::new(), "1".into()]));
        let read = ReadyText::parse("user:secret@[::1]/rsync_sst").unwrap();
        assert_eq!(read.auth, Some(("user".into(), "secret".into())));
        assert_eq!((read.host.as_str(), read.port), ("::1", DEFAULT_PORT));
        assert_eq!(ReadyText::parse("h:1").unwrap().module, "");
        assert_eq!(ReadyText::parse(":s@h:1").unwrap().auth, Some((String::new(), "s".into())));
        assert_eq!(ReadyText::parse("@h:1").unwrap().auth, Some((String::new(), String::new())));
    }

    #[test]
    fn what_the_server_would_refuse_is_named() {
        assert_eq!(ReadyText::parse("a@b@h:1"), Err(BadAddress::Auth));
        assert_eq!(ReadyText::parse("a:b:c@h:1"), Err(BadAddress::Auth));
        assert_eq!(ReadyText::parse("h:1/m;x"), Err(BadAddress::Module));
        assert_eq!(ReadyText::parse("h:1/m/a/b=c"), Err(BadAddress::Field(1)));
        assert_eq!(ReadyText::parse("h:99999/m"), Err(BadAddress::Port));
        assert_eq!(ReadyText::parse("/m"), Err(BadAddress::NoHost));
        assert_eq!(ReadyText::parse(""), Err(BadAddress::Line(BadLine::Empty)));
        let text = |module: &str, fields: Vec<String>| {
            ReadyText { auth: None, host: "h".into(), port: 1, module: module.into(), fields }.to_text()
        };
        assert_eq!(text("", vec![]), Err(BadAddress::NoModule));
        assert_eq!(text("m", vec!["a/b".into()]), Err(BadAddress::Field(0)));
        assert_eq!(text("m", vec!["x".repeat(600)]), Err(BadAddress::Line(BadLine::TooLong { bytes: 606 })));
    }

    #[test]
    fn debug_hides_the_password() {
        let read = ReadyText::parse("user:hunter2@h:1/rejoin").unwrap();
        assert!(!format!("{read:?}").contains("hunter2"));
    }

    fn host() -> impl Strategy<Value = String> {
        prop_oneof!["[A-Za-z0-9_.-]{1,20}", "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}", "::[0-9a-f]{0,4}"]
    }

    proptest! {
        #[test]
        fn round_trip(
            auth in prop::option::of(("[A-Za-z0-9_.-]{0,9}", "[A-Za-z0-9_.-]{0,50}")),
            host in host(),
            port in 1u16..,
            module in "[A-Za-z0-9_.:-]{1,10}",
            fields in prop::collection::vec("[A-Za-z0-9_.:\\[\\]-]{0,20}", 0..8),
        ) {
            let ready = ReadyText { auth, host, port, module, fields };
            let text = ready.to_text().unwrap();
            prop_assert!(text.len() <= super::super::report::READY_MAX);
            prop_assert_eq!(ReadyText::parse(&text), Ok(ready));
        }

        #[test]
        fn listen_round_trip(host in host(), port in prop::option::of(1u16..)) {
            let address = ListenAddress { host, port };
            prop_assert_eq!(ListenAddress::parse(&address.to_string()), Ok(address));
        }

        #[test]
        fn never_panics(text in "(?s).{0,60}", odd in "[a-z@:/\\[\\].0-9]{0,30}") {
            for text in [&text, &odd] {
                let _ = ListenAddress::parse(text);
                let _ = ReadyText::parse(text);
            }
        }
    }
}
