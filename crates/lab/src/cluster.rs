//! A cluster: its directory, its nodes, and the program under test as their servers find it.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cleanup::ClusterDir;
use crate::config::{Config, Wishes};
use crate::installation::Installation;
use crate::network::{LOOPBACK, Network, Wire};
use crate::node::{Node, Surroundings};
use crate::places::{self, User};
use crate::ports::Ports;

/// Nodes on loopback, none of them started yet. Dropping it kills everything it started and removes every trace.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    // Goes away with its last process, after the nodes.
    _network: Option<Network>,
    // Dropped after the nodes: what is left of them dies with it.
    dir: ClusterDir,
}

/// What a cluster is to be.
#[derive(Debug, Clone)]
pub struct Builder {
    nodes: usize,
    method: String,
    in_place_of: Option<&'static str>,
    binary: Option<PathBuf>,
    external: bool,
    network: bool,
    transfers: bool,
    installation: Option<Installation>,
    installations: HashMap<usize, Installation>,
    all: Wishes,
    each: HashMap<usize, Wishes>,
}

impl Cluster {
    /// Two nodes with method `rejoin`, until told otherwise.
    pub fn builder() -> Builder {
        Builder {
            nodes: 2,
            method: "rejoin".to_owned(),
            in_place_of: None,
            binary: None,
            external: false,
            network: false,
            transfers: false,
            installation: None,
            installations: HashMap::new(),
            all: Wishes::default(),
            each: HashMap::new(),
        }
    }

    /// Node `n`, counted from 1; its name in the cluster is `n1`, `n2`, ...
    ///
    /// # Panics
    /// When there is no such node.
    pub fn node(&self, n: usize) -> &Node {
        assert!((1..=self.nodes.len()).contains(&n), "nodes are 1 to {}, asked for {n}", self.nodes.len());
        &self.nodes[n - 1]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Bootstraps the first node; the others join one after the other.
    pub fn start_all(&self) -> Result<()> {
        self.node(1).bootstrap()?;
        self.nodes[1..].iter().try_for_each(|node| node.join().map(drop))
    }

    /// The directory everything of this cluster is under.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory at this path is another one for each node; see [`Builder::private_external`].
    pub fn external(&self) -> PathBuf {
        self.dir().join("external")
    }

    /// The directory the first node's server (all, when they run the same) finds SST programs in first; a test may put
    /// its own there.
    pub fn program_dir(&self) -> PathBuf {
        self.node(1).installation().base().join("bin")
    }
}

impl Builder {
    /// How many nodes.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// The SST method of all nodes.
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// The SST method of all nodes is one of the server's own, with rejoin in the place of its script.
    pub fn in_place_of(mut self, method: &'static str) -> Self {
        method.clone_into(&mut self.method);
        self.in_place_of = Some(method);
        self
    }

    /// The program that is copied as `rejoin`; without it the one of this build is found (`places::rejoin_binary`).
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// The server of all nodes; without it the machine's own.
    pub fn installation(mut self, installation: Installation) -> Self {
        self.installation = Some(installation);
        self
    }

    /// The server of node `n`.
    pub fn installation_of(mut self, n: usize, installation: Installation) -> Self {
        self.installations.insert(n, installation);
        self
    }

    /// A line of `[mysqld]` for all nodes. `{dir}` stands for the node's own directory, and a directory named with it
    /// (`innodb_undo_directory={dir}/undo`) is made.
    pub fn mysqld(mut self, line: &str) -> Self {
        self.all.mysqld.push(line.to_owned());
        self
    }

    /// A line of `[mysqld]` for node `n`.
    pub fn mysqld_of(mut self, n: usize, line: &str) -> Self {
        self.each.entry(n).or_default().mysqld.push(line.to_owned());
        self
    }

    /// Every part of the datadir that a server can keep elsewhere lies beside it on node `n`.
    pub fn apart(self, n: usize) -> Self {
        let lines = [
            "innodb_data_home_dir={dir}/home",
            "innodb_log_group_home_dir={dir}/log",
            "innodb_undo_directory={dir}/undo",
            "aria_log_dir_path={dir}/aria",
        ];
        lines.iter().fold(self, |builder, line| builder.mysqld_of(n, line))
    }

    /// A line of `[sst]` for all nodes.
    pub fn sst(mut self, line: &str) -> Self {
        self.all.sst.push(line.to_owned());
        self
    }

    /// A line of `[sst]` for node `n`.
    pub fn sst_of(mut self, n: usize, line: &str) -> Self {
        self.each.entry(n).or_default().sst.push(line.to_owned());
        self
    }

    /// A provider option for all nodes (`gcache.size`, `evs.suspect_timeout`, ...).
    pub fn provider(mut self, key: &str, value: &str) -> Self {
        self.all.provider.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A provider option for node `n`.
    pub fn provider_of(mut self, n: usize, key: &str, value: &str) -> Self {
        self.each.entry(n).or_default().provider.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Gives each node a directory of its own at the one path [`Cluster::external`], as if on hosts of their own:
    /// `DATA DIRECTORY` clauses replicate with absolute paths. Needs root (a mount namespace for each server).
    pub fn private_external(mut self) -> Self {
        self.external = true;
        self
    }

    /// Gives each node a network interface of its own, which can be cut ([`Node::cut`]). Needs root.
    pub fn own_network(mut self) -> Self {
        self.network = true;
        self
    }

    /// As [`Builder::own_network`], with a second network for state transfers alone, whose rate can be set
    /// ([`Node::shape_transfers`]).
    pub fn transfer_network(mut self) -> Self {
        (self.network, self.transfers) = (true, true);
        self
    }

    /// Makes directories, option files and fresh datadirs. Starts nothing.
    pub fn build(self) -> Result<Cluster> {
        ensure!(self.nodes > 0, "a cluster has at least one node");
        let user = User::for_servers()?;
        ensure!(!self.external || user.switch, "a private external directory needs root");
        let dir = ClusterDir::new()?;
        ensure!(dir.path().as_os_str().len() < 80, "{} is too long for unix sockets", dir.path().display());
        fs::create_dir(dir.path().join("external"))?;
        let ports = (0..self.nodes).map(|_| Ports::reserve()).collect::<Result<Vec<_>>>()?;
        let network =
            self.network.then(|| Network::new(dir.path(), self.nodes, self.transfers)).transpose()?;
        let wire = |n: usize| network.as_ref().map(|network| network.wire(n));
        let address = |n: usize| wire(n).map_or(LOOPBACK, |wire| wire.address());
        let members =
            ports.iter().enumerate().map(|(i, ports)| SocketAddrV4::new(address(i + 1), ports.group()));
        let members: Vec<SocketAddrV4> = members.collect();
        let nodes = ports.into_iter().enumerate();
        let nodes = nodes.map(|(i, ports)| self.make_node(dir.path(), i + 1, ports, &members, wire(i + 1)));
        Ok(Cluster { nodes: nodes.collect::<Result<_>>()?, _network: network, dir })
    }

    fn make_node(
        &self,
        cluster: &Path,
        n: usize,
        ports: Ports,
        members: &[SocketAddrV4],
        wire: Option<Wire>,
    ) -> Result<Node> {
        let (name, user) = (format!("n{n}"), User::for_servers()?);
        let installation = self.place_installation(n, cluster)?;
        let dir = cluster.join(&name);
        let wishes = self.all.and(self.each.get(&n).unwrap_or(&Wishes::default())).placed(&dir);
        let own = wishes.directories(&dir);
        for path in own.iter().cloned().chain(["tmp", "external"].map(|sub| dir.join(sub))) {
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        let config = Config {
            name: &name,
            cluster: &cluster.file_name().unwrap_or_default().to_string_lossy(),
            dir: &dir,
            base: installation.base(),
            provider: installation.provider(),
            method: &self.method,
            address: *members[n - 1].ip(),
            transfers: match &wire {
                Some(wire) if self.transfers => wire.transfer_address(),
                _ => *members[n - 1].ip(),
            },
            ports: &ports,
            members,
            wishes: &wishes,
        };
        fs::write(dir.join("my.cnf"), config.text())?;
        user.own(&dir)?;
        let external = self.external.then(|| cluster.join("external"));
        let node =
            Node::new(name, dir, ports, user, installation, Surroundings { external, wire, own_dirs: own });
        node.fresh_datadir(&wishes.shaping())?;
        Ok(node)
    }

    /// The installation node `n` runs, with the program under test in its `bin`.
    fn place_installation(&self, n: usize, cluster: &Path) -> Result<Installation> {
        let wished = self.installations.get(&n).or(self.installation.as_ref());
        let placed = wished.cloned().map_or_else(Installation::system, Ok)?.placed(cluster)?;
        let copy = placed.base().join("bin/rejoin");
        if copy.exists() {
            return Ok(placed);
        }
        let given = self.binary.clone().map(Ok);
        let wanted = || (self.method == "rejoin" || self.in_place_of.is_some()).then(places::rejoin_binary);
        if let Some(binary) = given.or_else(wanted).transpose()? {
            fs::copy(&binary, &copy).with_context(|| format!("copying {}", binary.display()))?;
            symlink("rejoin", placed.base().join("bin/wsrep_sst_rejoin"))?;
            if let Some(method) = self.in_place_of {
                let script = placed.base().join(format!("bin/wsrep_sst_{method}"));
                fs::remove_file(&script)
                    .or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
                symlink("rejoin", script)?;
            }
        }
        Ok(placed)
    }
}
