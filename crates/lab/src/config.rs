//! The option file of a node.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use crate::ports::Ports;

/// What every node starts from: quick on a small machine, otherwise close to the server's defaults. Any of them is
/// overridden by a test's own lines, since the server lets the last one win.
const DEFAULTS: &str = "\
skip-name-resolve
performance_schema=OFF
default_storage_engine=InnoDB
innodb_autoinc_lock_mode=2
binlog_format=ROW
innodb_buffer_pool_size=96M
innodb_log_file_size=48M
innodb_flush_log_at_trx_commit=0
sync_binlog=0
key_buffer_size=8M
aria_pagecache_buffer_size=16M
max_connections=100
lock_wait_timeout=60
innodb_lock_wait_timeout=20
wsrep_on=ON
wsrep_slave_threads=2
";

/// What a test asked for, for one node: raw lines, and provider options by name.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub mysqld: Vec<String>,
    pub sst: Vec<String>,
    pub provider: Vec<(String, String)>,
}

impl Wishes {
    /// These, then `more`.
    pub fn and(&self, more: &Self) -> Self {
        let mut all = self.clone();
        all.mysqld.extend(more.mysqld.iter().cloned());
        all.sst.extend(more.sst.iter().cloned());
        all.provider.extend(more.provider.iter().cloned());
        all
    }

    /// `{dir}` in a line stands for the node's own directory.
    pub fn placed(&self, dir: &Path) -> Self {
        let place = |line: &String| line.replace("{dir}", &dir.to_string_lossy());
        Self {
            mysqld: self.mysqld.iter().map(place).collect(),
            sst: self.sst.iter().map(place).collect(),
            provider: self.provider.clone(),
        }
    }

    /// Directories under `dir` that the lines name as the place of something: they must exist, and hold data.
    pub fn directories(&self, dir: &Path) -> Vec<PathBuf> {
        let named = self.mysqld.iter().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            key.contains("dir").then(|| PathBuf::from(value.trim())).filter(|path| path.starts_with(dir))
        });
        let mut all: Vec<PathBuf> = named.collect();
        all.sort();
        all.dedup();
        all
    }

    /// The lines that shape a new datadir; nodes with the same ones can start from copies of one.
    pub fn shaping(&self) -> Vec<String> {
        const SHAPES: [&str; 8] =
            ["innodb", "aria", "plugin", "file_key", "file-key", "lower_case", "character", "collation"];
        let shapes = |line: &&String| SHAPES.iter().any(|prefix| line.trim_start().starts_with(prefix));
        self.mysqld.iter().filter(shapes).cloned().collect()
    }
}

/// Everything an option file says.
pub struct Config<'a> {
    pub name: &'a str,
    pub cluster: &'a str,
    /// The node's directory.
    pub dir: &'a Path,
    /// What the server takes for its installation; its `bin` comes first when it looks for SST programs.
    pub base: &'a Path,
    pub provider: &'a Path,
    pub method: &'a str,
    /// Where the node's ports are.
    pub address: Ipv4Addr,
    /// Where it receives state transfers.
    pub transfers: Ipv4Addr,
    pub ports: &'a Ports,
    /// Where the group's port of each node is.
    pub members: &'a [SocketAddrV4],
    pub wishes: &'a Wishes,
}

impl Config<'_> {
    /// The text of the file.
    pub fn text(&self) -> String {
        let mut out = String::from("[mysqld]\n");
        let mut line = |key: &str, value: String| {
            let _ = writeln!(out, "{key}={value}");
        };
        let file = |name: &str| self.dir.join(name).display().to_string();
        line("datadir", file("data"));
        line("socket", file("s.sock"));
        line("pid_file", file("pid"));
        line("log_error", file("error.log"));
        line("tmpdir", file("tmp"));
        line("basedir", self.base.display().to_string());
        line("port", self.ports.client().to_string());
        line("wsrep_provider", self.provider.display().to_string());
        line("wsrep_cluster_name", self.cluster.to_owned());
        line("wsrep_cluster_address", self.group());
        line("wsrep_node_name", self.name.to_owned());
        line("bind-address", self.address.to_string());
        line("wsrep_node_address", self.at(self.ports.group()));
        line("wsrep_provider_options", format!("\"{}\"", self.provider_options()));
        line("wsrep_sst_method", self.method.to_owned());
        line("wsrep_sst_receive_address", SocketAddrV4::new(self.transfers, self.ports.sst()).to_string());
        out.push_str(DEFAULTS);
        for wish in &self.wishes.mysqld {
            let _ = writeln!(out, "{wish}");
        }
        // The lab's root has no password; the server's own user, whom a package's datadir lets in, has no account here.
        out.push_str("\n[sst]\nwsrep-sst-auth=root:\n");
        for wish in &self.wishes.sst {
            let _ = writeln!(out, "{wish}");
        }
        out
    }

    fn at(&self, port: u16) -> String {
        SocketAddrV4::new(self.address, port).to_string()
    }

    fn group(&self) -> String {
        let members: Vec<String> = self.members.iter().map(ToString::to_string).collect();
        format!("gcomm://{}", members.join(","))
    }

    fn provider_options(&self) -> String {
        let mut options = vec![
            format!("gmcast.listen_addr=tcp://{}", self.at(self.ports.group())),
            format!("ist.recv_addr={}", self.at(self.ports.ist())),
            "gcache.size=32M".to_owned(),
            // A node that was killed comes back under a new name of its own: once in a while the group takes the old one for
            // one that has left, and never lets it in.
            "pc.recovery=no".to_owned(),
        ];
        // Of two, the first stays primary when the second is killed: what tests kill is the joiner.
        if self.members.len() == 2 && self.members[0].port() == self.ports.group() {
            options.push("pc.weight=2".to_owned());
        }
        options.extend(self.wishes.provider.iter().map(|(key, value)| format!("{key}={value}")));
        options.join(";")
    }
}
