//! What happens to whom, and when.
use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Donor,
    Joiner,
}

/// Which of its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Program,
    Server,
    /// Both, as a host that loses its power or freezes.
    Host,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Kill(Part),
    Terminate(Part),
    Stop(Part, Duration),
    Cut(Duration),
    FillDisk(Duration),
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long after the start of the joiner's program.
    AfterStart(Duration),
    /// So long after the joiner's program has said that it does this.
    InPhase(&'static str, Duration),
    /// So long after the record of the install is there.
    InInstall(Duration),
}

/// The fault of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub side: Side,
    pub what: What,
    pub moment: Moment,
    /// So long afterwards the program on the other side is killed, too.
    pub second: Option<Duration>,
}

/// What the joiner's program says, in this order.
const PHASES: [&str; 5] = [
    "waiting for the donor",
    "checking settings and free space",
    "receiving",
    "verifying the staged files",
    "installing",
];

impl Fault {
    /// One by chance.
    pub fn draw(rng: &mut Rng) -> Fault {
        let side = if rng.bool() { Side::Donor } else { Side::Joiner };
        let part = [Part::Program, Part::Server, Part::Host][rng.usize(0..3)];
        // Much shorter or much longer than a group takes to expel a silent member. One that comes back just then can cost all of
        // them their component for a second, with a transfer or without one.
        let pause = Duration::from_millis([rng.u64(100..3500), rng.u64(7000..12_000)][rng.usize(0..2)]);
        let what = match rng.u32(0..10) {
            0..=3 => What::Kill(part),
            4 => What::Terminate(part),
            5..=6 => What::Stop(part, pause),
            7..=8 => What::Cut(pause),
            _ => What::FillDisk(pause),
        };
        let moment = match rng.u32(0..10) {
            0..=3 => Moment::AfterStart(Duration::from_millis(rng.u64(0..6000))),
            4..=6 => {
                Moment::InPhase(PHASES[rng.usize(0..PHASES.len())], Duration::from_millis(rng.u64(0..400)))
            }
            _ => Moment::InInstall(Duration::from_micros(rng.u64(0..80_000))),
        };
        let fault = Fault { side, what, moment, second: None };
        // With the donor's server lost, the end of the joiner may leave no majority.
        let may = !fault.strikes_donors_server() && rng.u32(0..5) == 0;
        let second = may.then(|| Duration::from_millis(rng.u64(0..1500)));
        Fault { second, ..fault }
    }

    /// Whether the donor's server may be lost, to the group or at all.
    pub fn strikes_donors_server(&self) -> bool {
        self.side == Side::Donor
            && match self.what {
                What::Kill(part) | What::Terminate(part) | What::Stop(part, _) => part != Part::Program,
                What::Cut(_) | What::FillDisk(_) => true,
            }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |part: Part| match part {
            Part::Program => "program of the",
            Part::Server => "server of the",
            Part::Host => "host of the",
        };
        let seconds = |time: Duration| time.as_secs_f64();
        match self.what {
            What::Kill(part) => write!(f, "kill -9: {}", of(part))?,
            What::Terminate(part) => write!(f, "SIGTERM: {}", of(part))?,
            What::Stop(part, time) => write!(f, "stopped for {:.1} s: {}", seconds(time), of(part))?,
            What::Cut(time) => write!(f, "cut off for {:.1} s:", seconds(time))?,
            What::FillDisk(time) => write!(f, "disk full for {:.1} s:", seconds(time))?,
        }
        write!(f, " {}, ", if self.side == Side::Donor { "donor" } else { "joiner" })?;
        match self.moment {
            Moment::AfterStart(time) => write!(f, "{:.2} s after the start", seconds(time)),
            Moment::InPhase(phase, time) => {
                write!(f, "{:.0} ms into {phase:?}", seconds(time) * 1e3)
            }
            Moment::InInstall(time) => write!(f, "{:.1} ms into the install", seconds(time) * 1e3),
        }?;
        let second = self
            .second
            .map(|time| format!(", then kill -9: the other's program, {:.1} s later", seconds(time)));
        f.write_str(&second.unwrap_or_default())
    }
}
