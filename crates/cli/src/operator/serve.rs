//! `rejoin serve`: metrics and probes over HTTP, also while the server that receives its data answers no client.
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use transfer::cancel::Cancel;
use transfer::failure::{Failure, Kind};
use transfer::server::health::Health;
use transfer::server::metrics::Metrics;
use transfer::server::niceness::{be_expendable, be_last};
use transfer::server::{log, parent};
use transfer::threads::{self, Thread, lock};

use super::http::{self, Answer, Handler};
use super::metrics::{Node, Of};
use super::status::STALLED_AFTER;

/// The port beside Galera's own.
const DEFAULT_LISTEN: &str = "127.0.0.1:4570";
/// The type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The metrics are gathered anew after this time, so that many requests do not cost more than one.
const FRESH: Duration = Duration::from_secs(1);
/// The cache is read as a whole: at most this often, and for one part in this many of the time.
const CACHE_EVERY: Duration = Duration::from_secs(60);
const CACHE_SHARE: u32 = 20;

/// Where, and for which node.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    of: Of,
    /// Address to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// For the probes: a transfer has stalled after this long without progress
    #[arg(long, value_name = "SECONDS", default_value_t = STALLED_AFTER)]
    stalled_after: u64,
}

/// Serves until it is told to stop.
pub fn run(options: &Options) -> Result<()> {
    let node = Node::of(&options.of)?;
    log::begin_without_file();
    be_expendable();
    let cancel = Cancel::new();
    parent::stop_on_signals(&cancel)?;
    let listener = TcpListener::bind(options.listen).map_err(|error| {
        Failure::new(Kind::Configuration, format!("cannot listen on {}: {error}", options.listen))
            .hint("--listen names another address and port")
    })?;
    let (datadir, address) = (node.datadir.display(), listener.local_addr()?);
    log::info(&format!("metrics of {datadir} at http://{address}/metrics"));
    let pages = Arc::new(Pages {
        node,
        stalled_after: Duration::from_secs(options.stalled_after),
        cache: Mutex::default(),
        gathered: Mutex::default(),
        warned: Mutex::default(),
    });
    let (of_cache, until) = (Arc::clone(&pages), cancel.clone());
    threads::spawn(Thread::CacheMetrics, move || of_cache.follow_cache(&until))?;
    let handler: Arc<Handler> = Arc::new(move |path| pages.at(path));
    http::serve(&listener, &handler, &cancel)
}

/// What can be asked for.
struct Pages {
    node: Node,
    stalled_after: Duration,
    /// Metrics of the provider's cache.
    cache: Mutex<String>,
    /// All metrics, and when they were gathered.
    gathered: Mutex<Option<(Instant, String)>>,
    /// The last warning: it is not repeated with each request.
    warned: Mutex<String>,
}

impl Pages {
    fn at(&self, path: &str) -> Option<Answer> {
        let outcome = match path {
            "/metrics" => self.metrics(),
            "/healthz" => self.health(&[Health::Progress]),
            "/livez" => self.health(&[Health::Progress, Health::NoTransfer]),
            _ => return None,
        };
        Some(outcome.unwrap_or_else(|error| {
            // Not to the client: the reason may name files of this host.
            self.warn(format!("{path}: {error:#}"));
            Answer::line("500 Internal Server Error", "the log of rejoin serve has the reason")
        }))
    }

    fn warn(&self, text: String) {
        let mut warned = lock(&self.warned);
        if *warned != text {
            log::warning(&text);
            *warned = text;
        }
    }

    fn metrics(&self) -> Result<Answer> {
        let mut gathered = lock(&self.gathered);
        let body = match &*gathered {
            Some((at, text)) if at.elapsed() < FRESH => text.clone(),
            _ => {
                let text = self.gather()?;
                *gathered = Some((Instant::now(), text.clone()));
                text
            }
        };
        Ok(Answer { status: "200 OK", content_type: METRICS_TYPE, body })
    }

    fn gather(&self) -> Result<String> {
        let mut metrics = Metrics::default();
        if let Some(status) = self.node.status()? {
            self.node.add_transfers(&mut metrics, &status);
        }
        // What cannot be read is absent, and the rest is told anyway.
        if let Err(error) = self.node.add_own(&mut metrics) {
            self.warn(format!("there are no metrics of the previous state: {error:#}"));
        }
        Ok(metrics.text() + &lock(&self.cache))
    }

    /// `good`: what is answered with success.
    fn health(&self, good: &[Health]) -> Result<Answer> {
        let status = self.node.status()?;
        let health = Health::of(status.as_ref(), &self.node.datadir, self.stalled_after);
        let status = if good.contains(&health) { "200 OK" } else { "503 Service Unavailable" };
        Ok(Answer::line(
            status,
            match health {
                Health::NoTransfer => "no transfer is running",
                Health::Progress => "a transfer makes progress",
                Health::Stalled => "a transfer has stalled",
            },
        ))
    }

    /// Reads the provider's cache now and then.
    fn follow_cache(&self, cancel: &Cancel) {
        // Of this thread alone: probes are to be answered on a busy host too.
        be_last();
        let mut said = String::new();
        loop {
            let (began, mut metrics) = (Instant::now(), Metrics::default());
            // The server may have been started anew with its cache elsewhere.
            let added =
                self.node.options_now().and_then(|options| self.node.add_cache(&mut metrics, &options));
            let why = added.err().map(|error| format!("{error:#}")).unwrap_or_default();
            if why != said && !why.is_empty() {
                log::warning(&format!("there are no metrics of the write-set cache: {why}"));
            }
            said = why;
            *lock(&self.cache) = metrics.text();
            if cancel.sleep(CACHE_EVERY.max(began.elapsed() * CACHE_SHARE)).is_err() {
                return;
            }
        }
    }
}
