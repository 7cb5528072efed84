//! Where things are on this machine: the server, the provider, the user to run as, the program under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::process;

const PROVIDERS: [&str; 6] = [
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
    "/usr/lib64/galera/libgalera_smm.so",
    "/usr/lib/galera-4/libgalera_smm.so",
    "/usr/local/lib/libgalera_smm.so",
];

/// The user servers run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Whether we are root and have to change to it.
    pub switch: bool,
}

impl User {
    /// `mysql` when we are root (the server refuses to be root), ourselves otherwise.
    pub fn for_servers() -> Result<Self> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            return Ok(Self { uid: uid.as_raw(), gid: gid.as_raw(), switch: false });
        }
        let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let line = passwd.lines().find(|line| line.starts_with("mysql:"));
        let mut fields = line.context("no user mysql: is mariadb-server installed?")?.split(':').skip(2);
        let mut id = || fields.next().and_then(|id| id.parse().ok()).context("user mysql in /etc/passwd");
        Ok(Self { uid: id()?, gid: id()?, switch: true })
    }

    /// Its name on this host.
    pub fn name(&self) -> Result<String> {
        let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let uid = self.uid.to_string();
        let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let line = lines.find(|fields| fields.get(2) == Some(&uid.as_str()));
        Ok(line.with_context(|| format!("no user {uid} in /etc/passwd"))?[0].to_owned())
    }

    /// Gives `path` and everything below to this user.
    pub fn own(&self, path: &Path) -> Result<()> {
        if !self.switch {
            return Ok(());
        }
        let mut chown = Command::new("chown");
        chown.args(["-hR", &format!("{}:{}", self.uid, self.gid)]).arg(path);
        process::run(chown, Duration::from_secs(120)).map(drop)
    }

    /// A command run as this user that the kernel kills when we die.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        if self.switch {
            command.args(["--reuid", &self.uid.to_string(), "--regid", &self.gid.to_string()]);
            command.arg("--clear-groups");
        }
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }
}

/// The Galera library.
pub fn provider() -> Result<PathBuf> {
    let found = std::env::var_os("WSREP_PROVIDER").map(PathBuf::from);
    let mut candidates = found.into_iter().chain(PROVIDERS.iter().map(PathBuf::from));
    candidates
        .find(|path| path.is_file())
        .context("libgalera_smm.so not found: install galera-4 or set WSREP_PROVIDER")
}

/// The full path of a program, looked for in `PATH` and the `sbin` directories.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    let mut dirs = std::env::split_paths(&path).chain(extra);
    dirs.find_map(|dir| Some(dir.join(name)).filter(|file| file.is_file()))
        .with_context(|| format!("{name} not found: scripts/install-deps.sh installs what the lab needs"))
}

/// The server program: `MARIADBD` in the environment, or the installed one.
pub fn server() -> Result<PathBuf> {
    match std::env::var_os("MARIADBD") {
        Some(path) => Ok(path.into()),
        None => program("mariadbd"),
    }
}

/// The rejoin program under test: `REJOIN_BIN`, or the one of the build this program belongs to.
///
/// Under `cargo test` and `cargo run` it is brought up to date first: cargo does not build another package's program
/// for a test, and a test of yesterday's program is worse than none.
pub fn rejoin_binary() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| find_rejoin().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
}

fn find_rejoin() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("REJOIN_BIN") {
        return Ok(path.into());
    }
    let profile = profile_dir()?;
    let binary = profile.join("rejoin");
    match std::env::var_os("CARGO") {
        Some(cargo) => build_rejoin(cargo.as_ref(), &profile)?,
        None if !binary.is_file() => build_rejoin("cargo".as_ref(), &profile)?,
        None => {}
    }
    if !binary.is_file() {
        bail!("{} was not built; set REJOIN_BIN", binary.display());
    }
    Ok(binary)
}

fn build_rejoin(cargo: &std::ffi::OsStr, profile: &Path) -> Result<()> {
    let target = profile.parent().context("target directory")?;
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let mut command = Command::new(cargo);
    // The whole workspace: with the features that everything else here is built with, so that nothing is built twice.
    command.args(["build", "--quiet", "--workspace", "--bin", "rejoin", "--profile", name]);
    command.arg("--target-dir").arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    process::run(command, Duration::from_secs(1800)).context("building rejoin").map(drop)
}

/// `target/debug` or `target/release`: where the running program was built.
pub fn profile_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("our own path")?;
    let dir = exe.parent().context("our own directory")?;
    let dir = if dir.ends_with("deps") || dir.ends_with("examples") { dir.parent() } else { Some(dir) };
    Ok(dir.context("the build's directory")?.to_owned())
}
