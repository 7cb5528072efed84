//! Two datadirs, and transfers between them under fake parents.
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rejoin_lab::places::User;
use rejoin_lab::{Builder, Cluster, Node, process};

use super::fake::{Call, Ended, Run, as_server};
use super::pair::{set_sst, until};

/// The history the fake donor is at where nobody looks into its files.
pub const UUID: &str = "0f0eaefd-1111-11f0-a0a0-000000000000";
pub const SOON: Duration = Duration::from_secs(30);

/// Two nodes whose servers are never started: the first node's files go to the second.
pub struct Fakes {
    pub cluster: Cluster,
    /// Where the donor's server says it stands still.
    pub still_at: String,
    /// Whom the programs run as, where it is not us.
    pub user: Option<User>,
    server: std::process::Child,
}

impl Fakes {
    pub fn new() -> Result<Fakes> {
        Fakes::of(Cluster::builder().nodes(2))
    }

    pub fn of(builder: Builder) -> Result<Fakes> {
        // There is no group here that a joiner's failure could be kept from.
        let soon =
            [("suspect_timeout", "PT0.5S"), ("inactive_timeout", "PT0.5S"), ("keepalive_period", "PT0.1S")];
        let soon = soon.into_iter().chain([("inactive_check_period", "PT0.1S")]);
        let builder =
            soon.fold(builder, |all, (name, value)| all.provider_of(2, &format!("evs.{name}"), value));
        let cluster = builder.build()?;
        let mut server = as_server(cluster.node(2).installation().server(), "sleep");
        server.arg("600");
        Ok(Fakes { cluster, still_at: format!("{UUID}:18"), user: None, server: process::spawn(server)? })
    }

    /// With a donor that was a node once: its files say where they stand, which the joiner holds against what it is told.
    pub fn with_history() -> Result<Fakes> {
        let mut fakes = Fakes::new()?;
        fakes.live_on(|_| Ok(()))?;
        Ok(fakes)
    }

    /// The donor is a node for a while.
    pub fn live_on(&mut self, write: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
        let donor = self.donor();
        donor.bootstrap()?;
        write(donor)?;
        let status = |name| donor.status(name);
        let still_at = format!("{}:{}", status("wsrep_cluster_state_uuid")?, status("wsrep_last_committed")?);
        donor.stop()?;
        self.still_at = still_at;
        Ok(())
    }

    pub fn donor(&self) -> &Node {
        self.cluster.node(1)
    }

    pub fn joiner(&self) -> &Node {
        self.cluster.node(2)
    }

    /// The joiner's server: a process that is there.
    pub fn server(&mut self) -> &mut std::process::Child {
        &mut self.server
    }

    /// `[sst]` of both.
    pub fn set_sst(&self, lines: &[&str]) -> Result<()> {
        set_sst(self.donor(), lines)?;
        set_sst(self.joiner(), lines)
    }

    /// The command line a 10.11 server makes for its joiner.
    pub fn joiner_line(&self, address: &str, progress: u8) -> String {
        let (data, options) = (self.joiner().datadir(), self.joiner().option_file());
        let (data, options) = (data.display(), options.display());
        format!(
            "wsrep_sst_rejoin --role 'joiner' --address '{address}' --datadir '{data}/' --defaults-file '{options}' \
             --parent {} --progress {progress} --mysqld-args --defaults-file={options} --wsrep_start_position={UUID}:-1",
            self.server.id()
        )
    }

    /// Starts the joiner as 10.11 does and waits for its `ready`: the run, its invitation, its address.
    pub fn joiner_ready(&self) -> Result<(Run, String, String)> {
        self.joiner_ready_at(&format!("127.0.0.1:{}", self.joiner().ports().sst()))
    }

    pub fn joiner_ready_at(&self, address: &str) -> Result<(Run, String, String)> {
        let line = self.joiner_line(address, 0);
        let call = Call::new(line, &self.joiner().datadir()).env("WSREP_SST_OPT_AUTH", "").user(self.user);
        let mut run = call.start()?;
        let (auth, address) = run.ready()?;
        Ok((run, auth, address))
    }

    /// The command line a 10.11 server makes for its donor.
    pub fn donor_line(&self, address: &str, progress: u8, bypass: &str) -> String {
        let (data, options) = (self.donor().datadir(), self.donor().option_file());
        let (data, options, socket) = (data.display(), options.display(), self.donor().socket());
        format!(
            "wsrep_sst_rejoin --role 'donor' --address '{address}' --local-port {} --socket '{}' --progress {progress} \
             --datadir '{data}/' --defaults-file '{options}' --gtid '{UUID}:17' --gtid-domain-id 0 {bypass} \
             --mysqld-args --defaults-file={options}",
            self.donor().ports().client(),
            socket.display()
        )
    }

    pub fn donor_call(&self, line: String, auth: &str) -> Call {
        let call = Call::new(line, &self.donor().datadir()).env("WSREP_SST_OPT_AUTH", "");
        call.env("WSREP_SST_OPT_REMOTE_AUTH", auth)
            .user(self.user)
            .server(self.donor().installation().server())
    }

    pub fn bypass(&self, address: &str, auth: &str) -> Result<Run> {
        self.donor_call(self.donor_line(address, 0, "--bypass"), auth).start()
    }

    pub fn full(&self, address: &str, auth: &str) -> Result<Run> {
        self.donor_call(self.donor_line(address, 0, ""), auth).start()
    }

    /// What the donor's server does after `flush tables`: it says where it stands still.
    pub fn stand_still(&self) -> Result<()> {
        self.stand_still_at(&self.still_at)
    }

    /// The same, at this position.
    pub fn stand_still_at(&self, position: &str) -> Result<()> {
        let part = self.donor().datadir().join("tables_flushed.tmp");
        fs::write(&part, format!("{position} 0\n"))?;
        fs::rename(part, self.donor().datadir().join("tables_flushed")).context("tables_flushed")
    }

    /// Plays the donor's server until the end of a full transfer.
    pub fn serve(&self, mut donor: Run) -> Result<Ended> {
        self.stand_still_for(&mut donor)?;
        donor.end(SOON)
    }

    /// The donor's server stands still when it is asked to, before files are read.
    pub fn stand_still_for(&self, donor: &mut Run) -> Result<()> {
        while donor.line(SOON)? != "flush tables" {}
        self.stand_still()
    }

    /// Nothing of a run is left on either side.
    pub fn nothing_is_left(&self) -> Result<()> {
        for node in [self.donor(), self.joiner()] {
            for mark in ["sst_in_progress", "wsrep_sst.pid", "tables_flushed"] {
                // A database may have this name.
                if node.datadir().join(mark).is_dir() {
                    continue;
                }
                anyhow::ensure!(!node.datadir().join(mark).exists(), "{mark} is left on {}", node.name());
            }
        }
        let port = self.joiner().ports().sst();
        until("the port is free", Duration::from_secs(1), || Ok(!rejoin_lab::ports::is_busy(port)))
    }
}

impl Drop for Fakes {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
