//! The thread that steers the speed of a donor's transfer: once a second it carries out what `rejoin set` asks for, looks at the
//! server's load, and sets how fast files are read.
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::controller::Strain;
use super::sampler::Sampler;
use super::steering::Steering;
use crate::disk::durable::remove_if_there;
use crate::failure::Failure;
use crate::human::size;
use crate::job::Job;
use crate::send::throttle::Throttle;
use crate::server::changes::{self, Change, changes_file};
use crate::server::progress::{Progress, Slowed};
use crate::sql::Login;
use crate::threads::{self, Thread};

/// How often the load is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long the end of a transfer waits for a statement of this thread.
const ENDS_WITHIN: Duration = Duration::from_millis(300);

/// Steers until it is dropped.
pub struct Governor {
    throttle: Arc<Throttle>,
    datadir: PathBuf,
    ended: Arc<AtomicBool>,
    /// Is closed when the thread has ended.
    over: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Governor {
    /// Begins with the options under `[sst]`. The load is not looked at where IST follows, or where that is switched off.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(job: &Job, login: Login) -> Result<Governor, Failure> {
        Governor::begin(job, Some(login))
    }

    /// For a transfer that cannot give way to its server: only `rlimit` counts.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn of_limits(job: &Job) -> Result<Governor, Failure> {
        Governor::begin(job, None)
    }

    fn begin(job: &Job, login: Option<Login>) -> Result<Governor, Failure> {
        let (throttle, ended) =
            (Arc::new(Throttle::new(job.settings.rlimit)), Arc::new(AtomicBool::new(false)));
        let (running, over) = channel();
        let adaptive = login.is_some() && job.settings.adaptive_throttle;
        let watch = Watch {
            throttle: Arc::clone(&throttle),
            progress: Arc::clone(&job.progress),
            ended: Arc::clone(&ended),
            datadir: job.datadir.clone(),
            server: job.server.map(|server| server.pid),
            login,
            adaptive: adaptive && !job.args.bypass,
            load: None,
            seen: Seen { at: Instant::now(), read: 0, points: 0 },
            complaint: String::new(),
        };
        job.progress.set_limits(throttle.rate(), watch.login.is_some().then_some(adaptive));
        throttle.set_adaptive(adaptive);
        let thread = threads::spawn(Thread::Governor, move || watch.run(&running))?;
        Ok(Governor { throttle, datadir: job.datadir.clone(), ended, over, thread })
    }

    /// What it steers.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }
}

impl Drop for Governor {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // A session that is not closed would be a warning in the server's log.
        let _ = self.over.recv_timeout(ENDS_WITHIN);
        // What was asked for too late is not for the next transfer.
        let _ = remove_if_there(&changes_file(&self.datadir));
    }
}

/// What the thread works with.
struct Watch {
    throttle: Arc<Throttle>,
    progress: Arc<Progress>,
    ended: Arc<AtomicBool>,
    datadir: PathBuf,
    /// The server's process.
    server: Option<u32>,
    /// How to log in to the server; `None` if its load does not count.
    login: Option<Login>,
    adaptive: bool,
    load: Option<Load>,
    seen: Seen,
    /// What was last said about a file that cannot be taken.
    complaint: String,
}

/// What is known of the load.
struct Load {
    sampler: Sampler,
    steering: Steering,
    /// Why reading is slowed.
    reason: String,
}

/// What the throttle had counted at the last look.
struct Seen {
    at: Instant,
    read: u64,
    points: u64,
}

impl Load {
    fn start(login: &Login, datadir: &Path, server: Option<u32>) -> Load {
        let (sampler, before) = Sampler::start(login, datadir, server);
        tracing::debug!("the load before the transfer: {before:?}");
        Load { sampler, steering: Steering::new(&before), reason: String::new() }
    }
}

impl Watch {
    /// `_running` is dropped at the end.
    fn run(mut self, _running: &Sender<()>) {
        // How things are without a transfer is seen before it reads anything.
        if self.adaptive {
            self.start_load();
        }
        while !self.ended.load(Ordering::Acquire) {
            self.carry_out_changes();
            self.steer();
            thread::park_timeout(EVERY);
        }
    }

    fn carry_out_changes(&mut self) {
        match changes::take(&self.datadir, std::process::id()) {
            Ok(None) => {}
            Ok(Some((uid, asked))) => asked.into_iter().for_each(|change| self.change(change, uid)),
            Err(error) => {
                let complaint = format!("{error:#}");
                if complaint != self.complaint {
                    tracing::warn!("a change of this transfer's options is ignored: {complaint}");
                    self.complaint = complaint;
                }
            }
        }
    }

    fn start_load(&mut self) {
        self.load = self.login.as_ref().map(|login| Load::start(login, &self.datadir, self.server));
    }

    fn change(&mut self, change: Change, uid: u32) {
        match change {
            Change::Rlimit(rate) => self.throttle.set_rate(rate),
            Change::AdaptiveThrottle(_) if self.login.is_none() => {
                return tracing::warn!("a change is ignored: this transfer has no {}", change.name());
            }
            Change::AdaptiveThrottle(on) => {
                self.adaptive = on;
                self.throttle.set_adaptive(on);
            }
        }
        self.progress.set_limits(self.throttle.rate(), self.login.is_some().then_some(self.adaptive));
        self.progress.ledger.changed(change.as_option(), uid);
        self.progress.tell(&format!("{}, for this transfer (rejoin set, user {uid})", change.in_words()));
    }

    /// Looks at the time since the last look, and sets the rate for the next second.
    fn steer(&mut self) {
        let now = Seen {
            at: Instant::now(),
            read: self.throttle.read_bytes(),
            points: self.throttle.consistency_points(),
        };
        let before = std::mem::replace(&mut self.seen, now);
        if !self.throttle.gives_way() {
            return self.let_go();
        }
        if self.load.is_none() {
            self.start_load();
        }
        let Some(load) = &mut self.load else { return };
        // The locks of a consistency point make commits wait, and nothing is slowed then.
        if self.seen.points % 2 == 1 {
            return;
        }
        let sample = load.sampler.look();
        self.throttle.set_busy(sample.is_busy());
        if self.seen.points != before.points {
            return;
        }
        let seconds = (self.seen.at - before.at).as_secs_f64().max(1e-3);
        let read = ((self.seen.read - before.read) as f64 / seconds) as u64;
        let step = load.steering.next(&sample, read);
        // A transfer may take days.
        if step.is_remarkable() {
            tracing::debug!("{step:?}, {sample:?}, {} read per second", size(read));
        }
        self.throttle.set_reading(step.rate);
        self.throttle.set_strained(step.verdict.strain >= Strain::High);
        if step.slows() {
            load.reason.clone_from(&step.verdict.reason);
        }
        match (step.was, step.rate) {
            (None, Some(rate)) => self.progress.tell(&format!(
                "the transfer is slowed for the donor's server, to {}/s of files for now: {}",
                size(rate),
                load.reason
            )),
            (Some(_), None) if step.in_vain => self.progress.tell(&format!(
                "slowing the transfer has not helped the donor's server, so it is no longer slowed unless that becomes worse: {}",
                step.verdict.reason
            )),
            (Some(_), None) => self.progress.tell("the transfer is no longer slowed for the donor's server"),
            _ => {}
        }
        let rate = step.rate;
        self.progress
            .set_slowed(rate.map(|reading_limit| Slowed { reading_limit, reason: load.reason.clone() }));
    }

    /// Files are read without a limit.
    fn let_go(&mut self) {
        let Some(load) = &mut self.load else { return };
        if load.steering.let_go() {
            self.throttle.set_reading(None);
            self.progress.set_slowed(None);
            self.progress.tell("the transfer is no longer slowed for the donor's server");
        }
        if !self.adaptive {
            self.load = None;
        }
    }
}
