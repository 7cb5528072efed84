//! How fast files are read, from what each second was like for the server: [`Judge`] and [`Controller`] together. No I/O and no
//! clock.
use super::controller::{Controller, Strain};
use super::strain::{Judge, Sample, Verdict};

/// Judges seconds and sets the rate.
#[derive(Debug, Default)]
pub struct Steering {
    judge: Judge,
    controller: Controller,
}

/// The result of one second.
#[derive(Debug)]
pub struct Step {
    /// How it was for the server.
    pub verdict: Verdict,
    /// Bytes of files per second that could be read in it; `None` without a limit.
    pub was: Option<u64>,
    /// The same for the next second.
    pub rate: Option<u64>,
    /// Reading slowly has not helped the server, so it is read at full speed again.
    pub in_vain: bool,
}

impl Steering {
    /// `before`: how things were before the transfer began to read.
    pub fn new(before: &Sample) -> Steering {
        let mut judge = Judge::default();
        judge.before(before);
        Steering { judge, controller: Controller::default() }
    }

    /// The rate after a second in which `read` bytes were read.
    pub fn next(&mut self, sample: &Sample, read: u64) -> Step {
        let verdict = self.judge.judge(sample);
        let was = self.controller.rate();
        if was.is_none() {
            self.judge.take_as_unslowed();
        }
        let mut rate = self.controller.next(verdict.strain, read);
        let in_vain = self.controller.slows_in_vain() && !self.judge.is_better_slowed();
        if in_vain {
            // What the server bears anyway has other causes, and is what later seconds are compared with.
            self.judge.take_as_before();
            self.controller.start_over();
            rate = None;
        }
        Step { verdict, was, rate, in_vain }
    }

    /// Reads without a limit from now on. Returns whether there was one.
    pub fn let_go(&mut self) -> bool {
        std::mem::take(&mut self.controller).rate().is_some()
    }
}

impl Step {
    /// True if reading became slower.
    pub fn slows(&self) -> bool {
        self.rate.is_some() && self.rate < self.was.or(Some(u64::MAX))
    }

    /// True if there is something to learn from this second.
    pub fn is_remarkable(&self) -> bool {
        self.rate != self.was || self.verdict.strain >= Strain::High
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    /// A donor that can read so many bytes per second. Its server's threads wait for a processor as `waits` tells by what is
    /// read.
    fn run(steering: &mut Steering, seconds: u32, waits: impl Fn(u64) -> f64) -> Vec<Step> {
        let mut rate = None;
        let second = |_| {
            let read = rate.unwrap_or(400 * MB).min(400 * MB);
            let sample = Sample { cpu_waits: Some(waits(read)), ..Sample::default() };
            let step = steering.next(&sample, read);
            rate = step.rate;
            step
        };
        (0..seconds).map(second).collect()
    }

    fn calm() -> Steering {
        Steering::new(&Sample { cpu_waits: Some(0.3), ..Sample::default() })
    }

    /// Other programs of the host took the processors from the server after a transfer of 2.5 GB had begun: it was read at
    /// 24 MB/s to its end, and the server waited anyway.
    #[test]
    fn a_strain_that_has_other_causes_slows_nothing_for_long() {
        let steps = run(&mut calm(), 120, |_| 0.9);
        let slowed = steps.iter().filter(|step| step.rate.is_some()).count();
        assert!(steps.iter().any(Step::slows), "it was tried");
        assert!(slowed <= 20, "{slowed} of 120 seconds");
        assert!(steps.last().is_some_and(|step| step.rate.is_none()));
        assert_eq!(steps.iter().filter(|step| step.in_vain).count(), 1);
    }

    /// Beside such a strain, what the transfer adds to it still counts.
    #[test]
    fn a_transfer_that_makes_it_worse_is_still_slowed() {
        let steps = run(&mut calm(), 300, |read| 0.9 + read as f64 / (200 * MB) as f64);
        let last = &steps[100..];
        assert!(last.iter().filter(|step| step.rate.is_some()).count() > 150, "most of the time");
        let mean =
            last.iter().map(|step| step.was.unwrap_or(400 * MB) as f64).sum::<f64>() / last.len() as f64;
        assert!(mean > (60 * MB) as f64 && mean < (300 * MB) as f64, "{mean}");
    }

    /// The beginning of a transfer reads little, while pages wait for a checkpoint: what strains the server then is something
    /// else.
    #[test]
    fn a_second_in_which_hardly_anything_is_read_does_not_count() {
        let mut steering = calm();
        let strained = Sample { cpu_waits: Some(2.3), ..Sample::default() };
        for read in [0, 600_000, 400 * MB] {
            assert_eq!(steering.next(&strained, read).rate, None, "{read}");
        }
        assert!(steering.next(&strained, 400 * MB).slows());
    }
}
