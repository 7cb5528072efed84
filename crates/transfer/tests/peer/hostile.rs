//! Hundreds of clients that connect again and again from before the port opens, while every processor is busy: each
//! transfer must get all its connections.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::message::Message;
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::peer::{Dialer, Listener, Pin, tls};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::common::*;

const CLIENTS: usize = 400;
const TRANSFERS: usize = 4;
const WORKERS: u16 = 4;
/// Each of them must be in by then. Without strangers it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one client does with each of its connections.
#[derive(Clone, Copy)]
enum Manner {
    Idle,
    Garbage,
    BareHello,
}

/// Clients and busy processors, until it is dropped.
struct Crowd {
    stop: Arc<AtomicBool>,
    connected: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn gather(port: u16, addresses: usize) -> Crowd {
        let (stop, connected) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let hello: Arc<[u8]> = bare_hello().into();
        let clients = (0..CLIENTS).map(|n| {
            let (stop, connected, hello) = (stop.clone(), connected.clone(), hello.clone());
            let manner = [Manner::Idle, Manner::Garbage, Manner::BareHello][n % 3];
            let from = (n % addresses) as u8;
            let from = Ipv4Addr::new(127, 0, from, 1);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match disturb(from, port, manner, &hello, &stop) {
                        Ok(()) => drop(connected.fetch_add(1, Ordering::Relaxed)),
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            })
        });
        let processors = std::thread::available_parallelism().map_or(2, |n| n.get());
        let busy = (0..processors).map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
        });
        let threads = clients.collect::<Vec<_>>().into_iter().chain(busy).collect();
        Crowd { stop, connected, threads }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The first bytes of a TLS client that asks for the right protocol and knows nothing else.
fn bare_hello() -> Vec<u8> {
    let config = tls::client(None, Pin::of_certificate(b"any")).unwrap();
    let name = "stranger.invalid".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// One connection from this address, until the other side ends it.
fn disturb(
    from: Ipv4Addr,
    port: u16,
    manner: Manner,
    hello: &[u8],
    stop: &AtomicBool,
) -> std::io::Result<()> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((from, 0)))?;
    // Closed at once: ports that wait would be ones that nobody on this machine can use.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    match manner {
        Manner::Idle => {}
        Manner::Garbage => socket.write_all(&[0x5a; 64])?,
        Manner::BareHello => socket.write_all(hello)?,
    }
    let mut answer = [0; 1024];
    while !stop.load(Ordering::Relaxed) {
        match socket.read(&mut answer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// Every connection a transfer has, and a word on each of them.
///
/// Answers how long that took, how many strangers were turned away meanwhile, and the processor time that took.
fn transfer(port: u16) -> anyhow::Result<(Duration, u64, Duration)> {
    let cancel = Cancel::new();
    let began = Instant::now();
    let listener = Listener::open("127.0.0.1", port, terms(), &cancel)?;
    let dialer = Dialer::new("127.0.0.1", port, listener.invitation().clone(), terms(), &cancel)?;
    std::thread::scope(|scope| {
        let donor = scope.spawn(|| donate(&dialer));
        let joined = join(&listener, &cancel);
        if let Err(e) = &joined {
            cancel.cancel(rejoin_transfer::failure::Kind::Stopped, format!("the joiner's side: {e:#}"));
        }
        let donated = donor.join().unwrap();
        match (joined, donated) {
            (Ok(()), Ok(())) => Ok((began.elapsed(), listener.refused(), accepting())),
            (joined, donated) => anyhow::bail!("joiner: {joined:?}, donor: {donated:?}"),
        }
    })
}

/// Processor time of the thread that accepts connections.
fn accepting() -> Duration {
    let of_listener = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let time = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        (name.trim() == "listener").then(|| time.split(' ').next()?.parse().ok()).flatten()
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    Duration::from_nanos(tasks.filter_map(of_listener).max().unwrap_or(0))
}

fn donate(dialer: &Dialer) -> anyhow::Result<()> {
    let mut control = dialer.dial_control(PATIENCE)?;
    control.link.send(&Message::Ready)?;
    anyhow::ensure!(control.link.recv()? == Message::Ready);
    std::thread::scope(|scope| {
        let work = |n| move || dialer.dial_worker(n, PATIENCE)?.send(&Message::Stored);
        let workers: Vec<_> = (0..WORKERS).map(|n| scope.spawn(work(n))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap())
    })?;
    anyhow::ensure!(control.link.recv()? == Message::Stored);
    Ok(())
}

fn join(listener: &Listener, cancel: &Cancel) -> anyhow::Result<()> {
    let mut control = listener.admit_control(PATIENCE, cancel)?;
    anyhow::ensure!(control.link.recv()? == Message::Ready);
    listener.allow_workers(WORKERS);
    control.link.send(&Message::Ready)?;
    for n in 0..WORKERS {
        let worker = listener.admit_worker(PATIENCE, cancel)?;
        let (_, mut link) = worker.ok_or_else(|| anyhow::anyhow!("only {n} workers came"))?;
        anyhow::ensure!(link.recv()? == Message::Stored);
    }
    control.link.send(&Message::Stored)
}

/// Not one that the kernel gives to clients: one of ours could get it, and would then be connected with itself.
fn free_port() -> u16 {
    let first = 22_000 + (std::process::id() % 8_000) as u16;
    (first..32_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

#[expect(clippy::print_stderr, reason = "what an attack costs is written down in SECURITY.md")]
fn under_attack(addresses: usize) {
    let port = free_port();
    let crowd = Crowd::gather(port, addresses);
    let mut failed = Vec::new();
    for n in 0..TRANSFERS {
        match transfer(port) {
            Ok((took, refused, accepting)) => eprintln!(
                "transfer {n}: all connections after {took:?}; {refused} strangers turned away in {accepting:?} of processor time"
            ),
            Err(e) => failed.push(format!("transfer {n}: {e:#}")),
        }
    }
    assert!(failed.is_empty(), "{} of {TRANSFERS} failed: {failed:#?}", failed.len());
    let strangers = crowd.connected.load(Ordering::Relaxed);
    assert!(strangers > 1000, "{strangers} connections are no attack");
    eprintln!("{strangers} connections from {addresses} addresses");
}

/// One test, so that the two attacks do not disturb each other.
#[test]
fn four_hundred_clients_cost_nothing() {
    under_attack(1);
    under_attack(200);
}
