//! The relay of a server that was started without a state transfer. Without it no process would listen where donors connect, and
//! a node that was cut off could not receive IST while its server runs.
//!
//! It is part of the archiver's process. It listens while no state transfer's relay has claimed the port (`port`), and passes IST
//! on unchanged. The options of the running server determine where it listens.
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::passage::Passage;
use super::port;
use super::relay::is_readable;
use super::session::{Verdict, Verdicts};
use crate::cancel::Cancel;
use crate::datadir::server_on;
use crate::failure::{Failure, Kind};
use crate::server::ist_endpoints::IstEndpoints;
use crate::threads::{self, Thread, lock, scoped};

/// How often it checks whether a state transfer's relay has claimed the port, or has left it.
const TURN_EVERY: Duration = Duration::from_millis(200);
/// How often it checks whether another server runs, which may have other options.
const SERVER_EVERY: Duration = Duration::from_secs(1);

/// Finds the endpoints of IST in the options of the node's server, or why IST does not pass through us.
pub type FindEndpoints = dyn Fn() -> Result<IstEndpoints, String> + Send + Sync;

/// What the stand-in does, for other threads to read.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<Option<String>>>);

impl Told {
    /// In words; `None` before anything is known.
    pub fn text(&self) -> Option<String> {
        lock(&self.0).clone()
    }

    fn tell(&self, text: String) {
        let mut told = lock(&self.0);
        if told.as_ref() != Some(&text) {
            tracing::info!("IST {text}");
            *told = Some(text);
        }
    }
}

/// Starts it. It ends, with all connections, when `cancel` says so.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    datadir: PathBuf,
    find: Box<FindEndpoints>,
    told: Told,
    cancel: Cancel,
) -> Result<JoinHandle<()>, Failure> {
    threads::spawn(Thread::RelayStandIn, move || stand_in(Node::new(datadir, &*find), &told, &cancel))
}

fn stand_in(mut node: Node<'_>, told: &Told, cancel: &Cancel) {
    loop {
        // Where IST does not pass through us there is no port to listen at in time.
        if cancel.sleep(if node.endpoints.is_ok() { TURN_EVERY } else { SERVER_EVERY }).is_err() {
            return;
        }
        node.look();
        if port::is_claimed(&node.datadir) {
            told.tell("is received by the relay that a state transfer started".to_owned());
            continue;
        }
        let (endpoints, unread) = match &node.endpoints {
            Ok(found) => found.clone(),
            Err(why) => {
                told.tell(format!("goes directly to the server: {why}"));
                continue;
            }
        };
        match port::listen(&endpoints, Duration::ZERO, cancel) {
            Err(why) => told.tell(format!("has no listener: {why:#}")),
            Ok(listeners) => {
                let (host, port) = &endpoints.advertised;
                let unread = unread.map_or(String::new(), |why| format!(", unread: {why}"));
                told.tell(format!("passes through at {host}:{port}{unread}"));
                if let Err(why) = serve(&mut node, endpoints, unread.is_empty(), listeners, cancel)
                    && why.downcast_ref::<Failure>().is_none_or(|failure| failure.kind != Kind::Stopped)
                {
                    tracing::warn!("IST is interrupted until this process listens again: {why:#}");
                }
            }
        }
    }
}

/// Passes IST on until it is another one's turn, the server has other options, or everything is over.
fn serve(
    node: &mut Node<'_>,
    endpoints: IstEndpoints,
    is_readable: bool,
    listeners: Vec<TcpListener>,
    cancel: &Cancel,
) -> Result<()> {
    let (verdicts, over) = (Verdicts::new(), Cancel::new());
    verdicts.set(Verdict::Through);
    let passage = Passage {
        datadir: node.datadir.clone(),
        // Used only to insert write-sets, which the archiver does not do.
        socket: PathBuf::new(),
        account: None,
        endpoints,
        last_tls: Mutex::default(),
        verdicts: &verdicts,
        first: &|_| (),
        cancel: &over,
    };
    std::thread::scope(|scope| {
        let serving = scoped(scope, Thread::RelayListener, || match is_readable {
            true => passage.serve(listeners),
            false => passage.serve_unread(&listeners),
        });
        while !serving.is_finished() {
            let is_stopped = cancel.sleep(TURN_EVERY).is_err();
            if is_stopped || node.look() || port::is_claimed(&node.datadir) {
                over.end_now(Kind::Stopped, "it is no longer this process's turn");
                break;
            }
        }
        serving.join()
    })
}

/// A node as it is now.
struct Node<'a> {
    datadir: PathBuf,
    find: &'a FindEndpoints,
    /// Its server, if one runs that can be seen.
    server: Option<u32>,
    /// The endpoints, with the reason if IST cannot be read; or why IST does not pass through us.
    endpoints: Result<(IstEndpoints, Option<String>), String>,
    looked: Instant,
}

impl Node<'_> {
    fn new(datadir: PathBuf, find: &FindEndpoints) -> Node<'_> {
        let server = server_of(&datadir);
        Node { server, endpoints: found(find), datadir, find, looked: Instant::now() }
    }

    /// Looks, now and then, whether another server runs. True if the endpoints have changed.
    fn look(&mut self) -> bool {
        if self.looked.elapsed() < SERVER_EVERY {
            return false;
        }
        self.looked = Instant::now();
        // A server keeps to the options with which it was started, whatever is in its files by now.
        if self.server.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            return false;
        }
        self.server = server_of(&self.datadir);
        let endpoints = found(self.find);
        // A server that cannot be seen from here may run. An option file that is being replaced says nothing of it.
        if self.server.is_none() && endpoints.is_err() && self.endpoints.is_ok() {
            return false;
        }
        let before = std::mem::replace(&mut self.endpoints, endpoints);
        self.endpoints != before
    }
}

fn server_of(datadir: &Path) -> Option<u32> {
    server_on::process_in(datadir)?.pid
}

fn found(find: &FindEndpoints) -> Result<(IstEndpoints, Option<String>), String> {
    let endpoints = find()?;
    let unread = is_readable(&endpoints).err();
    Ok((endpoints, unread))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};

    use formats::galera::ist;

    use super::super::session::tests::{donor, plain, provider};
    use super::*;
    use crate::server::ist_endpoints::Transport;

    const SOON: Duration = Duration::from_secs(20);

    /// Where nobody listens at the moment.
    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn endpoints(advertised: SocketAddr, provider: SocketAddr) -> IstEndpoints {
        IstEndpoints {
            advertised: (advertised.ip().to_string(), advertised.port()),
            outside: Transport::Plain,
            provider,
            inside: Transport::Plain,
            certificates: None,
        }
    }

    fn wait(what: &str, is: impl Fn() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// One that is ended with the test.
    struct Running(Cancel, Option<JoinHandle<()>>, Told);

    impl Running {
        fn beside(datadir: &Path, find: Box<FindEndpoints>) -> Running {
            let (cancel, told) = (Cancel::new(), Told::default());
            let thread = start(datadir.to_owned(), find, told.clone(), cancel.clone()).unwrap();
            Running(cancel, Some(thread), told)
        }

        fn says(&self, text: &str) -> bool {
            self.2.text().is_some_and(|told| told.contains(text))
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.end_now(Kind::Stopped, "the test is over");
            self.1.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn ist_passes_one_after_the_other_and_what_is_for_nobody_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (at, inside) = (free(), TcpListener::bind("127.0.0.1:0").unwrap());
        let of_provider = inside.local_addr().unwrap();
        let stand_in = Running::beside(dir.path(), Box::new(move || Ok(endpoints(at, of_provider))));
        wait("it listens", || stand_in.says(&format!("passes through at {at}")));
        for from in [8, 30] {
            let read = std::thread::scope(|scope| {
                let reading = scope.spawn(|| provider(&inside, None));
                scope.spawn(move || donor(TcpStream::connect(at).unwrap(), None, from));
                reading.join().unwrap()
            });
            assert_eq!(read, (from..from + 5).collect::<Vec<i64>>());
        }
        // The provider expects no IST any more.
        drop(inside);
        let mut early = TcpStream::connect(at).unwrap();
        early.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(early.read(&mut [0]).unwrap_or(0), 0);
    }

    /// Even while a client is being greeted that does not answer.
    #[test]
    fn the_relay_of_a_state_transfer_gets_the_port_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let (at, inside) = (free(), TcpListener::bind("127.0.0.1:0").unwrap());
        let of_provider = inside.local_addr().unwrap();
        let stand_in = Running::beside(dir.path(), Box::new(move || Ok(endpoints(at, of_provider))));
        wait("it listens", || stand_in.says("passes through"));
        let over = AtomicBool::new(false);
        let longest = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut greeted = Vec::new();
                for mut socket in inside.incoming().map_while(Result::ok) {
                    let _ = socket.write_all(&plain(ist::Kind::Handshake, 0));
                    greeted.push(socket);
                    if over.load(Ordering::Acquire) {
                        break;
                    }
                }
            });
            let watching = scope.spawn(|| longest_silence(at, &over));
            for _ in 0..3 {
                let mut silent = TcpStream::connect(at).unwrap();
                silent.read_exact(&mut [0; 24]).unwrap();
                let cancel = Cancel::new();
                let claim = port::claim(dir.path(), SOON, &cancel).unwrap();
                let listeners = port::listen(&endpoints(at, of_provider), SOON, &cancel).unwrap();
                wait("it says so", || stand_in.says("is received by the relay"));
                drop((listeners, claim));
                wait("it listens again", || stand_in.says("passes through"));
            }
            over.store(true, Ordering::Release);
            drop(TcpStream::connect(of_provider));
            watching.join().unwrap()
        });
        assert!(longest < Duration::from_secs(1), "nobody listened for {longest:?}");
    }

    /// The longest time during which no process listened there.
    fn longest_silence(at: SocketAddr, over: &AtomicBool) -> Duration {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while !over.load(Ordering::Acquire) {
            if TcpStream::connect_timeout(&at, SOON).is_ok() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        longest.max(last.elapsed())
    }

    #[test]
    fn another_server_with_other_options_is_followed_and_a_foreign_program_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second, inside) = (free(), TcpListener::bind("127.0.0.1:0").unwrap(), free());
        let (then, moved) = (second.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let has_moved = moved.clone();
        let find = move || match has_moved.load(Ordering::Acquire) {
            false => Ok(endpoints(first, inside)),
            true => Ok(endpoints(then, inside)),
        };
        let stand_in = Running::beside(dir.path(), Box::new(find));
        wait("it listens", || stand_in.says(&first.to_string()));
        moved.store(true, Ordering::Release);
        wait("it says who is in its way", || stand_in.says("cannot listen at"));
        assert!(TcpStream::connect(first).is_err(), "it has left the first one");
        drop(second);
        wait("it listens there", || stand_in.says(&format!("passes through at {then}")));
        drop(stand_in);
        assert!(TcpStream::connect(then).is_err(), "it has ended");
        let none = Running::beside(dir.path(), Box::new(|| Err("ist.recv_bind is not set".to_owned())));
        wait("it says why not", || none.says("goes directly to the server: ist.recv_bind is not set"));
    }
}
