//! `rejoin metrics`: what is known of a node's transfers, cache and archive, for Prometheus.
use std::path::{Path, PathBuf};

use anyhow::Result;
use transfer::advisor::check::wanted::Wanted;
use transfer::advisor::node_metrics::{of_archive, of_gcache, of_previous_state, of_retries};
use transfer::datadir::owner::become_owner_of;
use transfer::datadir::recognise::require_datadir;
use transfer::disk::small_file;
use transfer::server::health::{as_of_now, is_running};
use transfer::server::metrics::{self, Metrics, names, of_history, of_transfer};
use transfer::server::options::ServerOptions;
use transfer::server::status::{STATUS_FILE, Status};
use transfer::settings::{self, metrics_dir};
use transfer::writesets::archive::default_dir;

use super::answer::say;
use super::complain;
use super::status::read;
use super::which::Which;

/// Where they go.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    of: Of,
    /// Write rejoin_*.prom in DIR instead of printing
    #[arg(long, value_name = "DIR")]
    textfile: Option<PathBuf>,
}

/// Whose metrics.
#[derive(clap::Args)]
pub struct Of {
    #[command(flatten)]
    node: Which,
    /// Archive of write-sets; default: archive under [sst], else DATADIR-archive
    #[arg(long, value_name = "DIR")]
    archive: Option<PathBuf>,
}

/// Both roles of a node.
const ROLES: [&str; 2] = ["donor", "joiner"];
/// More than a file of metrics has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Prints or writes them.
pub fn run(options: &Options) -> Result<()> {
    let node = Node::of(&options.of)?;
    let mut own = Metrics::default();
    // What cannot be read is absent, and the rest is told anyway.
    if let Err(error) = node.add_own(&mut own) {
        complain(&format!("there are no metrics of the previous state: {error:#}"));
    }
    if let Err(error) = node.add_cache(&mut own, &node.options) {
        complain(&format!("there are no metrics of the write-set cache: {error:#}"));
    }
    let status = node.status()?;
    if let Some(dir) = &options.textfile {
        if let Some(status) = &status {
            node.write_roles(dir, status)?;
        }
        return metrics::write(dir, "node", &own.text());
    }
    let mut all = Metrics::default();
    if let Some(status) = &status {
        node.add_transfers(&mut all, status);
    }
    say((all.text() + &own.text()).trim_end());
    Ok(())
}

/// A node whose metrics are asked for.
pub struct Node {
    /// Its datadir.
    pub datadir: PathBuf,
    wanted: Wanted,
    /// What its option files contained when it was found.
    options: ServerOptions,
    archive: PathBuf,
}

impl Node {
    /// Finds the node, and becomes the owner of its datadir.
    ///
    /// # Errors
    /// It is no datadir, or belongs to another user.
    pub fn of(of: &Of) -> Result<Node> {
        let (wanted, options) = of.node.wanted_with_options()?;
        let datadir = wanted.layout_by(&options)?.datadir;
        let wanted = Wanted { datadir: Some(datadir.clone()), ..wanted };
        become_owner_of(&datadir)?;
        require_datadir(&datadir)?;
        let set = || settings::archive(&options);
        let archive = of.archive.clone().or_else(set).unwrap_or_else(|| default_dir(&datadir));
        Ok(Node { datadir, wanted, options, archive })
    }

    /// What its option files contain now.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn options_now(&self) -> Result<ServerOptions> {
        self.wanted.options()
    }

    /// The status of its current or last transfer, as of now.
    ///
    /// # Errors
    /// The status file cannot be read.
    pub fn status(&self) -> Result<Option<Status>> {
        let status = read(&self.datadir.join(STATUS_FILE))?;
        Ok(status.map(|status| if self.runs(&status) { as_of_now(&status) } else { status }))
    }

    fn runs(&self, status: &Status) -> bool {
        is_running(status, &self.datadir)
    }

    /// Its last transfer, and what is known of earlier ones of both roles.
    pub fn add_transfers(&self, metrics: &mut Metrics, status: &Status) {
        of_transfer(metrics, status, self.runs(status));
        for role in ROLES {
            of_history(metrics, status, role);
        }
    }

    /// What does not come from a transfer and is read quickly.
    ///
    /// # Errors
    /// A record of an install cannot be read.
    pub fn add_own(&self, metrics: &mut Metrics) -> Result<()> {
        metrics.add(names::BUILD_INFO, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        of_retries(metrics, &self.datadir);
        of_archive(metrics, &self.archive);
        of_previous_state(metrics, &self.datadir)
    }

    /// The provider's cache where these options have it, which is read as a whole.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn add_cache(&self, metrics: &mut Metrics, options: &ServerOptions) -> Result<()> {
        of_gcache(metrics, &self.wanted.cache_file_by(options)?)
    }

    /// Writes the transfers of each role to the file that a transfer of this role writes too: a series that came from two files
    /// would make the collector fail.
    fn write_roles(&self, dir: &Path, status: &Status) -> Result<()> {
        let runs = self.runs(status);
        let by_itself = runs && metrics_dir(&self.options).is_some();
        for role in ROLES {
            let mut metrics = Metrics::default();
            if role == status.role {
                // A running transfer is ahead of us.
                if by_itself {
                    continue;
                }
                of_transfer(&mut metrics, status, runs);
            } else if told_an_end(dir, role) {
                continue;
            } else {
                metrics.add(names::RUNNING, &[("role", role)], 0.0);
            }
            of_history(&mut metrics, status, role);
            metrics::write(dir, role, &metrics.text())?;
        }
        Ok(())
    }
}

/// Whether the file of a role tells how its last transfer ended: the status file knows only the newer one of the other role.
fn told_an_end(dir: &Path, role: &str) -> bool {
    let text = small_file::read(&metrics::file_of(dir, role), FILE_BYTES_MAX).ok().flatten();
    let ended = format!("{}{{role=\"{role}\"}}", names::SUCCESS.name);
    text.is_some_and(|text| String::from_utf8_lossy(&text).contains(&ended))
}
