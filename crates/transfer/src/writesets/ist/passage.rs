//! The relay, the process through which IST reaches our provider: it listens where donors connect, and puts write-sets from the
//! spool in front of what a donor's provider sends.
//!
//! It is a process of its own because IST runs after the joiner's program has ended, and because a running server that was
//! cut off takes IST without any program of ours: this one lives as long as its server. Its orders come on its standard
//! input; the end of that means that nothing is to be inserted. A server that was started without a state transfer has none:
//! there the archiver stands in ([`super::stand_in`]).
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use formats::Seqno;
use formats::galera::ist::HEADER_LEN;
use formats::wsrep::credentials::Account;
use protocol::message::ReplayRate;

use super::callers::{self, Callers};
use super::certificates::SocketTls;
use super::port::{self, accept};
use super::rate;
use super::relay::{self, is_readable};
use super::session::{Donor, Ends, Greeting, Inserted, Session, Verdict, Verdicts, connect};
use super::spool;
use crate::cancel::{Cancel, LOOK_EVERY};
use crate::failure::{Failure, Kind};
use crate::human::size;
use crate::job;
use crate::panics::caught;
use crate::peer::end::End;
use crate::server::companion::Companion;
use crate::server::ist_endpoints::{IstEndpoints, Transport};
use crate::server::log;
use crate::server::synced;
use crate::threads::{self, Thread, lock, scoped};

/// How long the relay of an earlier life of the server may still have a claim to the port ...
const CLAIM_WITHIN: Duration = Duration::from_secs(3);
/// ... and how long another process may still have the port itself.
const PORT_WITHIN: Duration = Duration::from_secs(5);
/// How often to look whether a connection has answered the greeting, while there are any.
const ANSWERS_EVERY: Duration = Duration::from_millis(5);

/// The process itself: `words` are the server's process id and the arguments the server had given the joiner.
///
/// # Errors
/// It cannot listen, or its server has ended.
pub fn run(words: &[String]) -> Result<()> {
    log::begin_without_file();
    let companion = Companion::begin(words)?;
    let Companion { args, options, cancel } = &companion;
    let datadir = job::datadir_of(args)?;
    let endpoints =
        relay::endpoints(options, &datadir).map_err(|why| Failure::new(Kind::Configuration, why))?;
    // Without it an archiver does not leave the port, which then shows.
    let _claim = port::claim(&datadir, CLAIM_WITHIN, cancel).inspect_err(|why| {
        tracing::warn!("cannot claim the port of IST, so the archiver may keep it: {why:#}")
    });
    cancel.check()?;
    let listeners = match port::listen(&endpoints, PORT_WITHIN, cancel) {
        Ok(listeners) => listeners,
        Err(error) => {
            say(&format!("{error:#}"));
            return Ok(());
        }
    };
    let unreadable = is_readable(&endpoints).err();
    match &unreadable {
        None => say(&format!("listening {}:{}", endpoints.advertised.0, endpoints.advertised.1)),
        Some(why) => say(&format!("unread {why}")),
    }
    let (socket, account) = companion.login(&datadir);
    let verdicts = Arc::new(Verdicts::new());
    let orders = Arc::clone(&verdicts);
    threads::spawn(Thread::RelayOrders, move || orders.set(order()))?;
    let last_tls = Mutex::default();
    let first = |seqno: Seqno| say(&format!("first {seqno}"));
    let (verdicts, first) = (&*verdicts, &first);
    let passage = Passage { datadir, socket, account, endpoints, last_tls, verdicts, first, cancel };
    let served = match unreadable {
        None => passage.serve(listeners),
        Some(_) => passage.serve_unread(&listeners),
    };
    match served {
        // Our server's end is ours.
        Err(_) if cancel.is_ended_now() => Ok(()),
        served => served,
    }
}

/// To the joiner's program, which may have ended.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// Waits for the joiner's program to decide, or to end.
fn order() -> Verdict {
    let mut line = String::new();
    let _ = BufReader::new(std::io::stdin().lock()).read_line(&mut line);
    let position = line.strip_prefix("splice ").and_then(|text| text.trim().parse().ok());
    position.map_or(Verdict::Through, Verdict::Splice)
}

/// What passes IST on.
pub(super) struct Passage<'a> {
    pub datadir: PathBuf,
    /// The server's socket for clients, and an account there.
    pub socket: PathBuf,
    pub account: Option<Account>,
    pub endpoints: IstEndpoints,
    pub last_tls: Mutex<Option<SocketTls>>,
    pub verdicts: &'a Verdicts,
    /// Called with the first seqno that a donor sends by itself.
    pub first: &'a (dyn Fn(Seqno) + Sync),
    pub cancel: &'a Cancel,
}

impl Passage<'_> {
    /// Greets every client that connects, and passes on what the first one sends that answers as a donor's provider does: one
    /// donor at a time, until it is cancelled. The port is free then, even before the last connection has ended.
    pub fn serve(&self, mut listeners: Vec<TcpListener>) -> Result<()> {
        let (tell, greeted) = channel::<(SocketAddr, Result<Donor>)>();
        let mut callers = Callers::default();
        // Our provider, until a donor has answered its greeting; and whether one has.
        let mut greeting: Option<Greeting> = None;
        let passing = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let listeners = std::mem::take(&mut listeners);
            loop {
                self.cancel.check()?;
                for (from, donor) in greeted.try_iter() {
                    callers.remove(from);
                    match donor {
                        // If there is no greeting, another one was first.
                        Ok(donor) => {
                            if let Some(greeting) = greeting.take() {
                                callers.dismiss();
                                let is_passing = Passing::begin(&passing);
                                scoped(scope, Thread::RelaySession, move || {
                                    let passed = caught(|| self.pass(greeting, donor));
                                    drop(is_passing);
                                    self.end(from, passed);
                                    Ok(())
                                });
                            }
                        }
                        Err(why) if greeting.is_some() => callers.refuse(from, &format!("{why:#}")),
                        Err(_) => {}
                    }
                }
                let wait = if callers.are_none() { LOOK_EVERY } else { ANSWERS_EVERY };
                if !callers.have_room() {
                    self.cancel.sleep(ANSWERS_EVERY)?;
                    continue;
                }
                let Some((stream, from)) = accept(&listeners, wait)? else { continue };
                // A provider that wakes its own listener, which is closed already: it needs no answer.
                if passing.load(Ordering::Acquire) {
                    continue;
                }
                if greeting.as_mut().is_none_or(Greeting::is_stale) {
                    greeting = self.provider().unwrap_or_else(|error| {
                        tracing::warn!("cannot pass IST on to this node's provider: {error:#}");
                        None
                    });
                }
                let Some(hello) = greeting.as_ref().map(|greeting| greeting.hello) else {
                    tracing::debug!("{from} connected, but no IST is expected");
                    continue;
                };
                let stream = Arc::new(stream);
                let spoke = callers.admit(from, &stream);
                let tell = tell.clone();
                scoped(scope, Thread::RelayCaller, move || {
                    let donor = caught(|| self.greet(stream, &hello, &spoke));
                    let _ = tell.send((from, donor));
                    Ok(())
                });
            }
        })
    }

    /// A donor's connection is over.
    fn end(&self, from: SocketAddr, passed: Result<Option<Inserted>>) {
        match passed {
            Ok(Some(inserted)) => self.when_synced(&inserted),
            Ok(None) => {}
            Err(error) => tracing::warn!("IST from {from} ended: {error:#}"),
        }
    }

    /// What is in the files of the provider's certificates now: they may have been renewed. While they are being replaced,
    /// what was in them before.
    fn tls(&self) -> Result<Option<SocketTls>> {
        let Some(files) = &self.endpoints.certificates else { return Ok(None) };
        let mut last = lock(&self.last_tls);
        match (SocketTls::load(files), last.as_ref()) {
            (Ok(tls), _) => *last = Some(tls),
            (Err(error), Some(_)) => tracing::warn!("using the certificate that was read before: {error:#}"),
            (Err(error), None) => return Err(error),
        }
        Ok(last.clone())
    }

    /// Our provider's greeting, if it expects IST.
    fn provider(&self) -> Result<Option<Greeting>> {
        let tls = self.tls()?.filter(|_| self.endpoints.inside != Transport::Plain);
        Greeting::of(self.endpoints.provider, tls.as_ref(), self.cancel)
    }

    fn greet(&self, stream: Arc<TcpStream>, hello: &[u8; HEADER_LEN], spoke: &AtomicBool) -> Result<Donor> {
        callers::greet(stream, self.endpoints.outside, self.tls()?.as_ref(), hello, spoke, self.cancel)
    }

    /// One donor's connection. Answers what was inserted when all of it went to the server.
    fn pass(&self, greeting: Greeting, donor: Donor) -> Result<Option<Inserted>> {
        let Passage { datadir, verdicts, cancel, first, .. } = self;
        let session = Session { datadir, verdicts, cancel, first: *first };
        let inserted = session.run(greeting, donor)?;
        // What follows in this server's life is its own business.
        self.verdicts.set(Verdict::Through);
        Ok(inserted)
    }

    /// What our provider encrypts is passed on as it is, because we cannot: donor and provider agree with each other.
    pub fn serve_unread(&self, listeners: &[TcpListener]) -> Result<()> {
        loop {
            self.cancel.check()?;
            let Some((stream, from)) = accept(listeners, LOOK_EVERY)? else { continue };
            if let Err(error) = self.pass_unread(stream) {
                self.cancel.check()?;
                tracing::warn!("IST from {from} ended: {error:#}");
            }
        }
    }

    /// One connection of those.
    fn pass_unread(&self, stream: TcpStream) -> Result<()> {
        let Some(provider) = connect(self.endpoints.provider, None, self.cancel)? else { return Ok(()) };
        let donor = End::plain(Arc::new(stream), self.cancel)?;
        let mut ends = Ends { provider, donor, cancel: self.cancel };
        let passed = ends.pass();
        ends.provider.close();
        ends.donor.close();
        passed
    }

    /// Waits until the server has applied what was inserted, then remembers how fast that was, and removes the spool: until
    /// then a crash may need it again.
    fn when_synced(&self, inserted: &Inserted) {
        let account = self.account.as_ref();
        if synced::wait_until_synced(&self.socket, account, self.cancel).is_err() {
            return;
        }
        let took = inserted.since.elapsed();
        let applied =
            synced::last_committed(&self.socket, account).and_then(|last| rate_of(inserted, last, took));
        if let Some(rate) = applied {
            let ReplayRate { write_sets, bytes } = rate;
            tracing::info!("deep IST: the server applied {write_sets} write-sets ({}) a second", size(bytes));
            if let Err(error) = rate::remember(&self.datadir, rate) {
                tracing::warn!("cannot store how fast the server applied them: {error:#}");
            }
        }
        let removed = crate::disk::durable::remove_if_there(&spool::path(&self.datadir, inserted.history));
        if let Err(error) = removed {
            tracing::warn!("the write-sets of the deep IST could not be removed: {error:#}");
        }
    }
}

/// How fast a server was that took what was inserted, then what its donor sent, and then what the group wrote meanwhile.
fn rate_of(inserted: &Inserted, last: Seqno, took: Duration) -> Option<ReplayRate> {
    let count = |to: Seqno| u64::try_from(to.0 - inserted.from.0 + 1).ok();
    let bytes_each = inserted.bytes as f64 / count(inserted.to)? as f64;
    rate::measured(count(last)?, bytes_each, took)
}

/// A donor's connection is being passed on, until this is dropped: also by a thread that cannot be started.
struct Passing<'a>(&'a AtomicBool);

impl Passing<'_> {
    fn begin(passing: &AtomicBool) -> Passing<'_> {
        passing.store(true, Ordering::Release);
        Passing(passing)
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "passage_tests.rs"]
mod tests;
