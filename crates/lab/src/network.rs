//! A network of a cluster's own: each node has an interface, and a switch joins them. The kernel's namespaces, so that
//! nothing is configured outside, and nothing is left when the processes that hold them are gone.
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{process, tun};

/// Where nodes are that have no network of their own.
pub const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Bytes that may pass a shaped interface at once, at least: a packet that the kernel has put together is that long.
const SHAPED_BURST: u64 = 128 << 10;
/// Packets that wait in a TUN device until a program reads them. A program that waits for a processor must not lose any.
const TUNNEL_QUEUE: u32 = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// The namespaces, held by a process each. They end with the cluster, whose mark they carry.
#[derive(Debug)]
pub struct Network {
    switch: Holder,
    nodes: Vec<Holder>,
}

/// A node's connection to the switch.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    switch: u32,
    holder: u32,
    number: usize,
}

/// What a token bucket did.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// How many times a packet had to wait.
    pub times_full: u64,
    /// Packets that would have waited too long.
    pub dropped: u64,
}

impl Network {
    /// A switch, and an interface for each node. With `transfers` a second one of both, for state transfers alone.
    pub fn new(cluster: &Path, nodes: usize, transfers: bool) -> Result<Network> {
        let hold = || Holder::new(cluster).context("a network of its own needs root and network namespaces");
        let network = Network { switch: hold()?, nodes: (0..nodes).map(|_| hold()).collect::<Result<_>>()? };
        // One switch for both would let a node's second interface answer for the address of its first.
        for switch in ["switch", "transfers"].into_iter().take(1 + usize::from(transfers)) {
            ip(network.switch.pid(), &format!("link add {switch} type bridge"))?;
            ip(network.switch.pid(), &format!("link set {switch} up"))?;
        }
        for number in 1..=nodes {
            let wire = network.wire(number);
            let (port, holder) = (wire.port(), wire.holder);
            ip(wire.switch, &format!("link add {port} type veth peer name eth0 netns {holder}"))?;
            ip(wire.switch, &format!("link set {port} up"))?;
            ip(holder, &format!("addr add {}/24 dev eth0", wire.address()))?;
            ip(holder, "link set eth0 up")?;
            ip(holder, "link set lo up")?;
            wire.reconnect()?;
            if transfers {
                wire.add_transfers()?;
            }
        }
        Ok(network)
    }

    /// The wire of node `n`, counted from 1.
    pub fn wire(&self, n: usize) -> Wire {
        Wire { switch: self.switch.pid(), holder: self.nodes[n - 1].pid(), number: n }
    }
}

impl Wire {
    /// The node's address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.number as u8)
    }

    /// Where the node receives state transfers, where these have a network to themselves.
    pub fn transfer_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 1, self.number as u8)
    }

    /// From now on this node sends state transfers at `rate` bytes a second at most: a token bucket in front of its second
    /// interface. The group's traffic has the first one, so that what clients write does not wait behind a transfer.
    pub fn shape(&self, rate: u64) -> Result<()> {
        let (bits, burst) = (rate * 8, burst(rate));
        let words = format!("qdisc replace dev eth1 root tbf rate {bits}bit burst {burst} latency 100ms");
        tool(self.holder, "tc", &words).map(drop)
    }

    /// What [`Wire::shape`]'s token bucket did so far.
    pub fn bucket(&self) -> Result<Bucket> {
        let text = tool(self.holder, "tc", "-s -j qdisc show dev eth1")?;
        let all: serde_json::Value = serde_json::from_str(&text).context("JSON of tc")?;
        let count = |key: &str| all[0][key].as_u64().with_context(|| format!("no token bucket: {text}"));
        Ok(Bucket { times_full: count("overlimits")?, dropped: count("drops")? })
    }

    /// In place of its connection to the switch this node's second interface gets a program that reads what the node sends,
    /// and writes what it receives: IP packets, as [`tun`] has them.
    pub fn tunnel(&self) -> Result<OwnedFd> {
        ip(self.holder, "link del eth1")?;
        let device = self.within(|| tun::create("eth1"))?;
        ip(self.holder, &format!("link set eth1 txqueuelen {TUNNEL_QUEUE}"))?;
        ip(self.holder, &format!("addr add {}/24 dev eth1", self.transfer_address()))?;
        ip(self.holder, "link set eth1 up")?;
        Ok(device)
    }

    /// Calls `work` on a thread at this end of the wire. Sockets and devices stay where they were made.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/proc/{}/ns/net", self.holder);
        let namespace = fs::File::open(&path).with_context(|| path.clone())?;
        let enter_and_work = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).context(path)?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter_and_work).join())
            .map_err(|_| anyhow!("a thread in a network namespace panicked"))?
    }

    fn add_transfers(&self) -> Result<()> {
        let (port, holder) = (self.transfer_port(), self.holder);
        ip(self.switch, &format!("link add {port} type veth peer name eth1 netns {holder}"))?;
        ip(self.switch, &format!("link set {port} up"))?;
        self.reconnect_transfers()?;
        ip(holder, &format!("addr add {}/24 dev eth1", self.transfer_address()))?;
        ip(holder, "link set eth1 up")
    }

    /// `command` at this end of the wire.
    pub fn inside(&self, command: &Command) -> Command {
        let mut outer = enter(self.holder);
        outer.arg(command.get_program()).args(command.get_args());
        outer
    }

    /// Nothing passes any more, and nobody is told: the interfaces stay up.
    pub fn cut(&self) -> Result<()> {
        ip(self.switch, &format!("link set {} nomaster", self.port()))
    }

    /// What is sent passes again.
    pub fn reconnect(&self) -> Result<()> {
        ip(self.switch, &format!("link set {} master switch", self.port()))
    }

    /// The same as [`Wire::cut`] for state transfers alone, where these have a network to themselves.
    pub fn cut_transfers(&self) -> Result<()> {
        ip(self.switch, &format!("link set {} nomaster", self.transfer_port()))
    }

    /// Ends [`Wire::cut_transfers`].
    pub fn reconnect_transfers(&self) -> Result<()> {
        ip(self.switch, &format!("link set {} master transfers", self.transfer_port()))
    }

    fn port(&self) -> String {
        format!("port{}", self.number)
    }

    fn transfer_port(&self) -> String {
        format!("transfer{}", self.number)
    }
}

/// Bytes that pass an interface with this rate at once.
pub fn burst(rate: u64) -> u64 {
    (rate / 100).max(SHAPED_BURST)
}

/// A process that does nothing but keep a network namespace.
#[derive(Debug)]
struct Holder(Child);

impl Holder {
    fn new(cluster: &Path) -> Result<Holder> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "sleep", "infinity"]);
        command.env(process::MARK, cluster).stdin(Stdio::null());
        let holder = Holder(process::spawn(command)?);
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
        let (began, ours) = (Instant::now(), namespace("self")?);
        while namespace(&holder.pid().to_string())? == ours {
            ensure!(began.elapsed() < PATIENCE, "no network namespace was made");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(holder)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn enter(holder: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{holder}/ns/net")).arg("--");
    command
}

fn ip(holder: u32, words: &str) -> Result<()> {
    tool(holder, "ip", words).map(drop)
}

fn tool(holder: u32, program: &str, words: &str) -> Result<String> {
    let mut command = enter(holder);
    command.arg(program).args(words.split(' '));
    process::run(command, PATIENCE).with_context(|| format!("{program} {words}"))
}
