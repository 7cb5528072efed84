//! The link that state transfers pass between two nodes, as if these were on hosts of their own: a rate, and the round trip of
//! a distant one.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::network::Wire;
use crate::node::Node;

mod delay_line;
mod in_flight;

use delay_line::DelayLine;

/// What a link is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Bytes a second, in each direction.
    pub rate: u64,
    /// Without one, as near as programs on one machine are.
    pub round_trip: Option<Duration>,
}

/// A link in its place. Dropping it ends the nodes' connections for transfers where it has a round trip.
#[derive(Debug)]
pub struct TransferPath {
    link: Link,
    wires: [Wire; 2],
    delay: Option<DelayLine>,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MB/s", self.rate as f64 / 1e6)?;
        match self.round_trip {
            Some(time) => write!(f, " with a round trip of {} ms", time.as_secs_f64() * 1e3),
            None => Ok(()),
        }
    }
}

impl TransferPath {
    /// From now on transfers between these nodes pass a link like that: needs a cluster with a network for them
    /// ([`crate::Builder::transfer_network`]), and no transfer under way.
    pub fn between(ends: [&Node; 2], link: Link) -> Result<Self> {
        let wire = |node: &Node| node.surroundings.wire.context("the cluster has no network of its own");
        Self::over([wire(ends[0])?, wire(ends[1])?], link)
    }

    fn over(wires: [Wire; 2], link: Link) -> Result<Self> {
        let line = |time| DelayLine::between(&wires, link.rate, time);
        let delay = link.round_trip.map(line).transpose().context("a delay line")?;
        wires.iter().try_for_each(|wire| wire.shape(link.rate))?;
        Ok(Self { link, wires, delay })
    }

    /// What it is like.
    pub fn link(&self) -> Link {
        self.link
    }

    /// How many times so far a packet had to wait because the link was full. As long as it is none, the link's rate was no limit.
    pub fn times_full(&self) -> Result<u64> {
        self.wires.iter().map(|wire| Ok(wire.bucket()?.times_full)).sum()
    }

    /// One line: what the link is like, what is known of connections over it, and whether it limited anything so far.
    pub fn report(&self) -> Result<String> {
        let limited = match self.times_full()? {
            0 => "Its rate was never the limit: no packet had to wait for it.".to_owned(),
            times => {
                let dropped =
                    self.wires.iter().map(|wire| Ok(wire.bucket()?.dropped)).sum::<Result<u64>>()?;
                format!(
                    "It was full {times} times, when packets had to wait; {dropped} were dropped before it."
                )
            }
        };
        let mut text = format!("Link: {}; {}. {limited}", self.link, self.connections()?);
        if let Some(delay) = &self.delay {
            let record = delay.record()?;
            let [mean, most] = record.late.map(|late| late.as_secs_f64() * 1e3);
            text += &format!(
                " Delay line: {} packets arrived, {mean:.2} ms late on average and {most:.1} ms at most; {} were lost; at \
                 most {:.1} of {:.1} MB were under way in one direction.",
                record.delivered,
                record.lost,
                record.most_in_flight as f64 / 1e6,
                record.capacity as f64 / 1e6
            );
        }
        Ok(text)
    }

    /// What limits one connection over a distance, beside the link.
    fn connections(&self) -> Result<String> {
        self.wires[0].within(|| {
            let setting = |name: &str| {
                let path = format!("/proc/sys/net/ipv4/{name}");
                fs::read_to_string(&path).with_context(|| path)
            };
            let megabytes = |name: &str| -> Result<f64> {
                let all = setting(name)?;
                let most = all.split_whitespace().last().context("no sizes of a buffer")?;
                Ok(most.parse::<f64>()? / 1e6)
            };
            Ok(format!(
                "TCP is {}, with buffers of at most {:.1} MB to send and {:.1} MB to receive",
                setting("tcp_congestion_control")?.trim(),
                megabytes("tcp_wmem")?,
                megabytes("tcp_rmem")?
            ))
        })
    }
}

#[cfg(test)]
mod tests;
