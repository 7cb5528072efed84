//! Looks at the donor's server and its host: one [`Sample`] for the time since the last look.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::kernel::{self, CpuTimes, DiskWrites};
use super::strain::Sample;
use crate::server::provider_options;
use crate::sql::{ANSWER_WITHIN, Busyness, Login, Session, SqlError};

/// Log writes that are measured before the transfer reads anything.
const LOG_WRITES_BEFORE: usize = 3;

/// Looks again and again.
pub struct Sampler {
    /// `None` without a login, and once the session is lost: the kernel still tells.
    session: Option<Session>,
    /// The account may have the server write its log.
    may_flush: bool,
    disk: Option<PathBuf>,
    server: Option<u32>,
    queue_limit: Option<u64>,
    last: Counters,
}

/// What was counted until a look.
#[derive(Clone, Copy, Debug)]
struct Counters {
    at: Instant,
    busyness: Busyness,
    disk: Option<DiskWrites>,
    cpu: Option<CpuTimes>,
    cpu_pressure: Option<Duration>,
    io_pressure: Option<Duration>,
}

impl Sampler {
    /// Logs in, and looks for the first time. Returns also how things were before: the means since the kernel, or the
    /// server, was started, and a few log writes now.
    pub fn start(login: &Login, datadir: &Path, server: Option<u32>) -> (Sampler, Sample) {
        let session = Session::open(login, ANSWER_WITHIN);
        let mut session =
            session.inspect_err(|e| tracing::debug!("the load is seen from outside only: {e}")).ok();
        session.iter_mut().for_each(Session::stands_by);
        let now = Counters {
            at: Instant::now(),
            busyness: Busyness::default(),
            disk: None,
            cpu: None,
            cpu_pressure: None,
            io_pressure: None,
        };
        let disk = kernel::disk_file(datadir);
        let mut sampler = Sampler { session, may_flush: true, disk, server, queue_limit: None, last: now };
        sampler.queue_limit = sampler.queue_limit();
        let log_writes: Vec<Duration> = (0..LOG_WRITES_BEFORE).filter_map(|_| sampler.log_write()).collect();
        let busyness = sampler.busyness();
        sampler.last = sampler.count(busyness);
        let before = Sample {
            log_write: log_writes.iter().max().copied(),
            disk_write: sampler.last.disk.and_then(|disk| disk.mean_since(DiskWrites::default())),
            cpu_waits: sampler.last.cpu.and_then(|cpu| cpu.waits_since(CpuTimes::default())),
            ..Sample::default()
        };
        (sampler, before)
    }

    /// What was seen since the last look.
    pub fn look(&mut self) -> Sample {
        let log_write = self.log_write();
        let busyness = self.busyness();
        let (before, now) = (self.last, self.count(busyness));
        self.last = now;
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        let part = |now: Option<Duration>, before: Option<Duration>| {
            Some(now?.checked_sub(before?)?.as_secs_f64() / seconds)
        };
        let more = |now: Option<u64>, before: Option<u64>| now?.checked_sub(before?);
        Sample {
            requests: more(now.busyness.requests, before.busyness.requests).map(|n| n as f64 / seconds),
            flow_control: more(now.busyness.flow_control, before.busyness.flow_control),
            queue: now.busyness.queue,
            queue_limit: self.queue_limit,
            log_write,
            disk_write: now.disk.zip(before.disk).and_then(|(now, then)| now.mean_since(then)),
            cpu_waits: now.cpu.zip(before.cpu).and_then(|(now, then)| now.waits_since(then)),
            cpu_pressure: part(now.cpu_pressure, before.cpu_pressure),
            io_pressure: part(now.io_pressure, before.io_pressure),
        }
    }

    fn count(&self, busyness: Busyness) -> Counters {
        Counters {
            at: Instant::now(),
            busyness,
            disk: self.disk.as_deref().and_then(kernel::disk_writes),
            cpu: self.server.and_then(kernel::cpu_times),
            cpu_pressure: kernel::pressure("cpu"),
            io_pressure: kernel::pressure("io"),
        }
    }

    /// Has the server write its log to the disk, as a commit does. It writes no data, and the server does the same once a
    /// second by itself (`innodb_flush_log_at_timeout`).
    fn log_write(&mut self) -> Option<Duration> {
        if !self.may_flush {
            return None;
        }
        let began = Instant::now();
        let done = self.session.as_mut()?.flush_engine_logs();
        let took = began.elapsed();
        self.known(done).map(|()| took)
    }

    fn busyness(&mut self) -> Busyness {
        let answer = self.session.as_mut().map(Session::busyness);
        answer.and_then(|answer| self.known(answer)).unwrap_or_default()
    }

    /// The length of the receive queue at which this node makes the others wait although it is a donor.
    fn queue_limit(&mut self) -> Option<u64> {
        let options = self.session.as_mut()?.variable("wsrep_provider_options");
        let members = self.session.as_mut()?.status_number("wsrep_cluster_size");
        let (options, members) = (self.known(options)??, self.known(members)??);
        provider_options::queue_limit_of_donor(
            &provider_options::parse(&options),
            u64::try_from(members).ok()?,
        )
    }

    fn known<T>(&mut self, answer: Result<T, SqlError>) -> Option<T> {
        let error = match answer {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        tracing::debug!("the load cannot be asked for: {error}");
        if error.is_denied() {
            self.may_flush = false;
        } else if error.is_lost() {
            self.session = None;
        }
        None
    }
}
