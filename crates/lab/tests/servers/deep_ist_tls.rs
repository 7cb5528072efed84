//! IST through our relay where providers encrypt their sockets, with strangers at the port.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use formats::galera::ist::{Header, Kind};
use rejoin_lab::outage::{CALM, Certificates, Outage, builder, says};
use rejoin_lab::{Node, compare};

/// Clients connect to a node's port of IST as long as `body` runs: some silent, some that send what is no IST, some that
/// answer the greeting as a donor does and send a write-set of their own. Answers how many were let in, and how many of them
/// got an answer.
fn among_strangers<T>(
    node: &Node,
    address: &str,
    body: impl FnOnce() -> Result<T>,
) -> Result<(T, usize, usize)> {
    let at: SocketAddr = format!("{address}:{}", node.ports().ist()).parse()?;
    let (over, connected, answered) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let stranger = |kind: usize| {
        while !over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(10));
            let Ok(mut stream) = TcpStream::connect(at) else { continue };
            connected.fetch_add(1, Ordering::Relaxed);
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let mut first = [0; 24];
            let _ = match kind {
                0 => stream.read(&mut first).map(drop),
                1 => stream.write_all(b"GET / HTTP/1.1\r\n\r\n"),
                // A donor's first words.
                _ => stream.write_all(&Header::plain(11, Kind::HandshakeResponse, 0).encode()),
            };
            answered.fetch_add(usize::from(first != [0; 24]), Ordering::Relaxed);
        }
    };
    let done = std::thread::scope(|scope| {
        (0..9).for_each(|n| drop(scope.spawn(move || stranger(n % 3))));
        let done = body();
        over.store(true, Ordering::Release);
        done
    })?;
    Ok((done, connected.into_inner(), answered.into_inner()))
}

/// A node is away for longer than any cache reaches, where sockets are encrypted.
fn away(certificates: &Certificates) -> Result<Outage> {
    let mut outage = Outage::begin(certificates.used_by(builder(1)).build()?)?;
    outage.write_beyond(None, || Ok(()))?;
    outage.wait_archived()?;
    Ok(outage)
}

/// Ordinary IST through the same relay.
fn takes_ist(donor: &Node, joiner: &Node) -> Result<()> {
    joiner.stop()?;
    donor.exec(&["INSERT INTO sbtest.sbtest1 (k) VALUES (1), (2), (3)"])?;
    joiner.join()?;
    says(joiner, "IST follows from")?;
    compare::assert_equal(donor, joiner)
}

#[test]
fn a_node_comes_back_where_ist_is_encrypted_and_strangers_are_at_its_port() -> Result<()> {
    let certificates = Certificates::make(3)?;
    let mut outage = away(&certificates)?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    let loads = outage.loads(CALM)?;
    let mark = n1.log_mark();
    let (_, connected, answered) = among_strangers(n3, "127.0.0.2", || n3.join())?;
    loads.into_iter().try_for_each(|load| load.stop().map(drop))?;
    outage.came_by_write_sets(n3, mark)?;
    ensure!(connected > 10, "only {connected} strangers reached the port");
    ensure!(answered == 0, "{answered} strangers without a certificate received the provider's greeting");
    outage.all_are_equal()?;

    takes_ist(n1, n3)?;
    outage.stop_archiver()
}

#[test]
fn certificates_that_we_cannot_use_leave_ist_as_it_is() -> Result<()> {
    let certificates = Certificates::make(1)?;
    let mut outage = away(&certificates)?;
    let (n1, n3) = (outage.cluster.node(1), outage.cluster.node(3));
    n3.join()?;
    says(n3, "no deep IST: the provider encrypts IST, and cannot use")?;
    says(n3, "plan: incremental")?;
    compare::assert_equal(n1, n3)?;
    takes_ist(n1, n3)?;
    outage.stop_archiver()
}
