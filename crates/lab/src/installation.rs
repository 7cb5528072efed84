//! The servers a node can run: the machine's own, or another one unpacked beside it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::{places, process, template};

/// Fetching packages over a slow line takes its time.
const UNPACK_TIMEOUT: Duration = Duration::from_secs(1200);

/// The directory of the machine's own installation in a cluster.
const SYSTEM: &str = "base";

/// A server with what belongs to it.
#[derive(Debug, Clone)]
pub struct Installation {
    /// What the directory of its own in a cluster is called.
    name: &'static str,
    /// What `bin`, `lib` and `share` are below, as the packages laid them out.
    root: PathBuf,
    /// What a node's server is told to be its `basedir`: `root`, until a cluster has its own (`placed`).
    base: PathBuf,
    server: PathBuf,
    provider: PathBuf,
    install_db: PathBuf,
    version: String,
}

impl Installation {
    /// The machine's own: `MARIADBD` and `WSREP_PROVIDER` in the environment, or the installed packages.
    pub fn system() -> Result<Self> {
        static FOUND: OnceLock<Result<Installation, String>> = OnceLock::new();
        once(&FOUND, || {
            let server = places::server()?;
            let root =
                server.parent().and_then(Path::parent).context("the server's installation")?.to_owned();
            let (provider, install_db) = (places::provider()?, places::program("mariadb-install-db")?);
            let version = version(&server)?;
            Ok(Self { name: SYSTEM, base: root.clone(), root, version, server, provider, install_db })
        })
    }

    /// MariaDB 11.8 with its Galera, run through its own loader. `scripts/unpack-mariadb-11.8.sh` unpacks it where it
    /// is not there yet; its words stand in the error when that cannot be done.
    pub fn mariadb_11_8() -> Result<Self> {
        static FOUND: OnceLock<Result<Installation, String>> = OnceLock::new();
        once(&FOUND, || {
            let root = places::profile_dir()?.parent().context("target directory")?.join("mariadb-11.8");
            let mut unpack = Command::new("bash");
            unpack.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/unpack-mariadb-11.8.sh"));
            unpack.arg(&root);
            process::run(unpack, UNPACK_TIMEOUT).context("a second server for the tests")?;
            let version = version(&root.join("sbin/mariadbd"))?;
            Ok(Self::at("base-11.8", root, version))
        })
    }

    /// MariaDB 11.8, or the machine's own.
    pub fn of(newer: bool) -> Result<Self> {
        if newer { Self::mariadb_11_8() } else { Self::system() }
    }

    fn at(name: &'static str, root: PathBuf, version: String) -> Self {
        let server = root.join("sbin/mariadbd");
        let (provider, install_db) = (root.join("lib/libgalera_smm.so"), root.join("bin/mariadb-install-db"));
        Self { name, base: root.clone(), root, server, provider, install_db, version }
    }

    /// The server program.
    pub fn server(&self) -> &Path {
        &self.server
    }

    /// The Galera library.
    pub fn provider(&self) -> &Path {
        &self.provider
    }

    /// The directory that a server is told to be its `basedir`; it looks for SST programs in `bin` there before `PATH`.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// What the server says its version is.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `mariadb-install-db`, and its `--basedir`.
    pub(crate) fn install_db(&self) -> (&Path, &Path) {
        (&self.install_db, &self.root)
    }

    /// This installation as the cluster in `cluster` uses it: with a `bin` of the cluster's own, so that an installed
    /// rejoin is never taken for the one under test.
    pub(crate) fn placed(&self, cluster: &Path) -> Result<Self> {
        let base = cluster.join(self.name);
        if self.name == SYSTEM {
            if !base.exists() {
                fs::create_dir_all(base.join("bin"))?;
                let real = ["share", "lib", "lib64"].map(|name| (self.root.join(name), base.join(name)));
                real.iter().filter(|(from, _)| from.exists()).try_for_each(|(from, to)| symlink(from, to))?;
            }
            return Ok(Self { base, ..self.clone() });
        }
        // As a whole: the servers' user may not reach the directory of the build.
        if !base.exists() {
            template::copy_tree(&self.root, &base)?;
        }
        Ok(Self::at(self.name, base, self.version.clone()))
    }
}

fn version(server: &Path) -> Result<String> {
    let mut command = Command::new(server);
    command.args(["--no-defaults", "--version"]);
    Ok(process::run(command, Duration::from_secs(30))?.trim().to_owned())
}

/// Found once for all clusters of this process; so is a failure.
fn once(
    found: &OnceLock<Result<Installation, String>>,
    find: impl FnOnce() -> Result<Installation>,
) -> Result<Installation> {
    found.get_or_init(|| find().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}
