//! Options of the sockets between both hosts.
use std::io;
use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt;
use socket2::SockRef;

/// Bytes that may wait in the kernel before they are sent for the first time.
const UNSENT: u32 = 256 << 10;

/// A host that lost power is detected within 40 s even while neither side sends.
pub(crate) fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(15))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(5))?;
    Ok(sockopt::set_tcp_keepcnt(socket, 5)?)
}

/// Keeps the kernel from taking megabytes that a slow link carries seconds later, so that a writer waits for the link, and the
/// sender learns how fast the link is. Bytes in flight are not limited (TCP_NOTSENT_LOWAT, Linux' ip-sysctl.rst). If the kernel
/// refuses, the transfer works as well, with worse estimates.
pub(crate) fn limit_unsent(socket: &TcpStream) {
    if let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!("what waits unsent in the kernel is not limited: {error}");
    }
}
