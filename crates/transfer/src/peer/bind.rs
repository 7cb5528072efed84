//! Resolves an advertised address to listening sockets.
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use anyhow::Result;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::failure::{Failure, Kind};

/// Connections that the kernel queues before we accept them; net.core.somaxconn may lower it. A donor that
/// found the queue full of unknown connections would have to retry after a second.
const BACKLOG: i32 = 4096;
/// A name with more addresses is not that of one host.
const ADDRESSES_MAX: usize = 8;

/// Listens on every address of `host` that belongs to this machine, or on all addresses if none does, because
/// then another device forwards that address to this machine.
pub(super) fn bind(host: &str, port: u16) -> Result<Vec<TcpListener>> {
    let host = bare(host);
    let mut port = port;
    let mut bound: Vec<TcpListener> = Vec::new();
    for address in addresses(host) {
        match listen(SocketAddr::new(address, port)) {
            Ok(listener) => {
                // Port 0 means any port; the other addresses get the same one.
                port = listener.local_addr().map_or(port, |a| a.port());
                bound.push(listener);
            }
            Err(e) if not_here(&e) => {}
            Err(e) => return Err(failure(host, port, &e).into()),
        }
    }
    if bound.is_empty() {
        tracing::info!(
            "{host} is not an address of this machine: listening on all of its addresses, port {port}"
        );
        bound.push(wildcard(port).map_err(|e| failure(host, port, &e))?);
    }
    Ok(bound)
}

/// Strips the brackets of an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// `host:port` in the usual notation.
pub(super) fn join(host: &str, port: u16) -> String {
    let host = bare(host);
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn addresses(host: &str) -> Vec<IpAddr> {
    if let Ok(ip) = host.parse() {
        return vec![ip];
    }
    match (host, 0).to_socket_addrs() {
        Ok(found) => {
            let mut found: Vec<IpAddr> = found.map(|a| a.ip()).collect();
            found.dedup();
            found.truncate(ADDRESSES_MAX);
            found
        }
        // The donor must resolve the name. If we cannot, we can listen nevertheless.
        Err(e) => {
            tracing::warn!("cannot resolve our own name {host}: {e}");
            Vec::new()
        }
    }
}

fn wildcard(port: u16) -> io::Result<TcpListener> {
    match listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
        Err(e) if not_here(&e) => listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        result => result,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Connections of an earlier transfer in TIME_WAIT do not block the port.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Whether the address does not belong to this machine, or its address family is disabled here.
fn not_here(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT, Errno::INVAL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn failure(host: &str, port: u16, error: &io::Error) -> Failure {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {port} is in use on this machine"),
        _ => format!("cannot listen on {}: {error}", join(host, port)),
    };
    Failure::new(Kind::Configuration, text)
        .hint(format!("choose another port: wsrep_sst_receive_address={}:OTHERPORT", bracketed(host)))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
