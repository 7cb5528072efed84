//! The options for a link that transfers pass instead of loopback.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use rejoin_lab::link::{Link, TransferPath};
use rejoin_lab::{Builder, Node};

/// What the link is like.
#[derive(Args, Clone)]
pub struct LinkOptions {
    /// Transfers pass a link of so many megabytes a second (125 is 1 Gbit/s) instead of loopback. Needs root.
    #[arg(long, value_name = "MB/s")]
    link: Option<f64>,
    /// The link's round trip in milliseconds, as between distant hosts: packets are delayed by half of it in each direction.
    /// Needs /dev/net/tun.
    #[arg(long, value_name = "MS", requires = "link")]
    latency: Option<u64>,
}

impl LinkOptions {
    /// These, as if they had been given.
    pub fn of(link: Option<f64>, latency: Option<u64>) -> Self {
        Self { link, latency }
    }

    /// `None` where transfers pass loopback.
    pub fn link(&self) -> Result<Option<Link>> {
        let is_rate = |rate: f64| rate.is_finite() && rate > 0.0;
        ensure!(self.link.is_none_or(is_rate), "nothing passes a link of {} MB/s", self.link.unwrap_or(0.0));
        ensure!(self.latency != Some(0), "a link without a round trip has no --latency");
        let round_trip = self.latency.map(Duration::from_millis);
        Ok(self.link.map(|megabytes| Link { rate: (megabytes * 1e6) as u64, round_trip }))
    }

    /// With a network for transfers alone, if these pass a link.
    pub fn prepare(&self, builder: Builder) -> Builder {
        if self.link.is_some() { builder.transfer_network() } else { builder }
    }

    /// From now on transfers between these nodes pass the link, if there is one.
    pub fn put_between(&self, ends: [&Node; 2]) -> Result<Option<TransferPath>> {
        self.link()?.map(|link| TransferPath::between(ends, link)).transpose()
    }
}
