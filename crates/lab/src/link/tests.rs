//! Two namespaces with a link between them: what a connection over it feels. Bounds are wide, and of what can only be longer on
//! a busy machine the shortest of several counts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use super::*;
use crate::cleanup::ClusterDir;
use crate::network::Network;
use crate::skipped::{missing_for_own_network, skip};
use crate::tun;

const ROUND_TRIP: Duration = Duration::from_millis(40);
/// Bytes a second.
const SLOW: u64 = 10_000_000;
/// What no connection of a test fills: 10 Gbit/s.
const FAST: u64 = 1_250_000_000;
/// Bytes of a bulk transfer, and those after which its rate is measured: a connection starts slowly.
const BULK: usize = 9_000_000;
const WARM: usize = 3_000_000;
const CONNECTIONS: usize = 3;
const ECHOES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// Two hosts. In the order in which they have to go.
struct Hosts {
    path: TransferPath,
    _network: Network,
    _dir: ClusterDir,
}

/// How long a connection and its echoes took.
struct Trips {
    connects: Vec<Duration>,
    echoes: Vec<Duration>,
}

/// What has to be there and is not.
fn missing() -> Option<&'static str> {
    let device = || {
        let device = fs::File::options().read(true).write(true).open(tun::DEVICE);
        device.is_err().then_some("the device /dev/net/tun")
    };
    missing_for_own_network().or_else(device)
}

impl Hosts {
    fn with(rate: u64, round_trip: Option<Duration>) -> Result<Self> {
        let dir = ClusterDir::new()?;
        let network = Network::new(dir.path(), 2, true)?;
        let path = TransferPath::over([network.wire(1), network.wire(2)], Link { rate, round_trip })?;
        Ok(Self { path, _network: network, _dir: dir })
    }

    fn listen(&self) -> Result<(TcpListener, SocketAddr)> {
        let wire = self.path.wires[1];
        let listener = wire.within(|| Ok(TcpListener::bind((wire.transfer_address(), 0))?))?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    fn connect(&self, address: SocketAddr) -> Result<(TcpStream, Duration)> {
        let connect = || {
            let began = Instant::now();
            Ok((TcpStream::connect_timeout(&address, PATIENCE)?, began.elapsed()))
        };
        let (stream, took) = self.path.wires[0].within(connect)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok((stream, took))
    }

    fn trips(&self) -> Result<Trips> {
        let (listener, address) = self.listen()?;
        std::thread::spawn(move || {
            listener.incoming().take(CONNECTIONS).try_for_each(|stream| echo(stream?))
        });
        let mut trips = Trips { connects: Vec::new(), echoes: Vec::new() };
        for _ in 0..CONNECTIONS {
            let (mut stream, took) = self.connect(address)?;
            trips.connects.push(took);
            for _ in 0..ECHOES {
                let began = Instant::now();
                stream.write_all(b"?")?;
                stream.read_exact(&mut [0])?;
                trips.echoes.push(began.elapsed());
            }
        }
        Ok(trips)
    }

    /// Bytes a second of a bulk transfer.
    fn rate(&self) -> Result<f64> {
        let (listener, address) = self.listen()?;
        let receiver = std::thread::spawn(move || receive(&listener));
        let (mut stream, _) = self.connect(address)?;
        stream.write_all(&vec![7; BULK])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        receiver.join().expect("the receiver")
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn receive(listener: &TcpListener) -> Result<f64> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut room, mut received, mut warm) = (vec![0; 64 << 10], 0, None);
    loop {
        match stream.read(&mut room)? {
            0 => break,
            bytes => received += bytes,
        }
        if received >= WARM {
            warm.get_or_insert((received, Instant::now()));
        }
    }
    assert_eq!(received, BULK);
    let (before, since) = warm.context("too little was received")?;
    Ok((received - before) as f64 / since.elapsed().as_secs_f64())
}

#[test]
fn a_distant_link_takes_a_round_trip_and_keeps_its_rate() -> Result<()> {
    if let Some(needs) = missing() {
        return skip(needs);
    }
    let hosts = Hosts::with(SLOW, Some(ROUND_TRIP))?;
    let trips = hosts.trips()?;
    for times in [&trips.connects, &trips.echoes] {
        let shortest = times.iter().min().context("nothing was measured")?;
        assert!((ROUND_TRIP..ROUND_TRIP * 3 / 2).contains(shortest), "{times:?}");
    }
    let rate = hosts.rate()? / SLOW as f64;
    assert!((0.7..1.3).contains(&rate), "{rate} of the link's rate\n{}", hosts.path.report()?);
    let record = hosts.path.delay.as_ref().context("no delay line")?.record()?;
    assert_eq!(record.lost, 0, "{record:?}");
    // A quarter of what the link holds in both directions together: half of what one of them does.
    let in_flight = (SLOW as f64 * ROUND_TRIP.as_secs_f64() / 4.0) as u64;
    assert!((in_flight..=record.capacity).contains(&record.most_in_flight), "{record:?}");
    assert!(hosts.path.times_full()? > 0);
    Ok(())
}

#[test]
fn a_near_link_has_a_rate_alone_and_says_whether_it_was_full() -> Result<()> {
    if let Some(needs) = missing() {
        return skip(needs);
    }
    let hosts = Hosts::with(SLOW, None)?;
    let shortest = hosts.trips()?.echoes.into_iter().min().context("nothing was measured")?;
    assert!(shortest < ROUND_TRIP / 2, "{shortest:?}");
    assert_eq!(hosts.path.times_full()?, 0);
    assert!(hosts.path.report()?.contains("never the limit"));
    let rate = hosts.rate()? / SLOW as f64;
    assert!((0.7..1.3).contains(&rate), "{rate} of the link's rate");
    assert!(hosts.path.times_full()? > 0);
    assert!(hosts.path.report()?.contains("It was full"));
    Ok(())
}

#[test]
fn a_link_that_is_faster_than_what_is_sent_is_never_the_limit() -> Result<()> {
    if let Some(needs) = missing() {
        return skip(needs);
    }
    let hosts = Hosts::with(FAST, None)?;
    // Less than the token bucket lets pass at once, whatever the machine's speed.
    assert!(hosts.rate()? > SLOW as f64);
    assert_eq!(hosts.path.times_full()?, 0);
    assert!(hosts.path.delay.is_none());
    Ok(())
}

#[test]
fn a_link_is_described_with_its_units() {
    let near = Link { rate: 125_000_000, round_trip: None };
    assert_eq!(near.to_string(), "125 MB/s");
    let distant = Link { round_trip: Some(ROUND_TRIP), ..near };
    assert_eq!(distant.to_string(), "125 MB/s with a round trip of 40 ms");
}
