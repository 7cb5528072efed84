//! Real servers on loopback.
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use formats::wsrep::invocation::SstArgs;
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use rejoin_transfer::datadir::layout::Layout;
use rejoin_transfer::server::options::ServerOptions;
use rejoin_transfer::snapshot::online::listing::Roots;

/// The installation to test, when it is not the machine's own: what `scripts/unpack-mariadb-11.8.sh` made, say.
fn other() -> Option<PathBuf> {
    std::env::var_os("NATIVE_ROUNDS_SERVER").map(PathBuf::from)
}

/// A program at that place in the other installation, or the machine's own of that name.
fn program(place: &str, name: &str) -> Command {
    Command::new(other().map_or_else(|| name.into(), |root| root.join(place)))
}

pub struct Server {
    pub dir: PathBuf,
    pub group_port: u16,
    child: Option<Child>,
}

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

pub fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

impl Server {
    /// Writes the option file. `members`: group ports; empty = no cluster.
    pub fn new(dir: &Path, members: &[u16], group_port: u16, more: &[String]) -> Result<Server> {
        fs::create_dir_all(dir.join("tmp"))?;
        let d = dir.display();
        let mut text = format!(
            "[mysqld]\ndatadir={d}/data\nsocket={d}/s.sock\npid-file={d}/pid\nlog-error={d}/error.log\ntmpdir={d}/tmp\n\
             port={}\nbind-address=127.0.0.1\ninnodb_buffer_pool_size=256M\ninnodb_log_file_size=256M\n\
             binlog_format=ROW\ninnodb_autoinc_lock_mode=2\ninnodb_undo_tablespaces=3\n\
             innodb_undo_log_truncate=ON\ninnodb_max_undo_log_size=10M\nskip-name-resolve\n\
             innodb_flush_log_at_trx_commit=2\nmax_connections=200\n",
            free_port()?
        );
        let mut provider = PathBuf::from("/usr/lib/galera/libgalera_smm.so");
        if let Some(root) = other() {
            text += &format!("basedir={}\n", root.display());
            provider = root.join("lib/libgalera_smm.so");
        }
        if !members.is_empty() {
            let provider = provider.display();
            let peers: Vec<_> = members.iter().map(|p| format!("127.0.0.1:{p}")).collect();
            text += &format!(
                "wsrep_on=ON\nwsrep_provider={provider}\nwsrep_cluster_address=gcomm://{}\n\
                 wsrep_node_address=127.0.0.1:{group_port}\nwsrep_sst_receive_address=127.0.0.1:{}\n\
                 wsrep_provider_options=gmcast.listen_addr=tcp://127.0.0.1:{group_port};ist.recv_addr=127.0.0.1:{};gcache.size=512M\n\
                 wsrep_sst_method=rsync\nwsrep_slave_threads=4\n",
                peers.join(","),
                free_port()?,
                free_port()?
            );
        }
        for line in more {
            text += line;
            text.push('\n');
        }
        fs::write(dir.join("my.cnf"), text)?;
        Ok(Server { dir: dir.to_owned(), group_port, child: None })
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where this server keeps what, as a program of its own would find it.
    pub fn roots(&self) -> Result<Roots> {
        let (data, options) = (self.data(), self.dir.join("my.cnf"));
        let words = ["--datadir", &data.to_string_lossy(), "--defaults-file", &options.to_string_lossy()];
        let args = SstArgs::parse(&words.map(str::to_owned));
        let layout = Layout::resolve(&args, &ServerOptions::load(&args)?)?;
        Ok(Roots { layout, skipped: Default::default() })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("s.sock")
    }

    pub fn own(&self) -> Result<()> {
        run(Command::new("chown").args(["-R", "mysql:mysql"]).arg(&self.dir))
    }

    pub fn install(&self) -> Result<()> {
        fs::create_dir_all(self.data())?;
        self.own()?;
        let mut install = program("bin/mariadb-install-db", "mariadb-install-db");
        install.arg(format!("--defaults-file={}", self.dir.join("my.cnf").display()));
        if let Some(root) = other() {
            install.arg(format!("--basedir={}", root.display()));
        }
        run(install.args([
            "--user=mysql",
            "--auth-root-authentication-method=socket",
            "--skip-test-db",
            "--wsrep-on=OFF",
        ]))
    }

    fn command(&self) -> Command {
        let mut command = program("sbin/mariadbd", "mariadbd");
        command.arg(format!("--defaults-file={}", self.dir.join("my.cnf").display())).arg("--user=mysql");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub fn start(&mut self, arguments: &[&str]) -> Result<()> {
        self.child = Some(self.command().args(arguments).spawn()?);
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().context("no child")?.try_wait()? {
                bail!("{} ended ({status}); {}", self.dir.display(), self.log_tail());
            }
            if began.elapsed() > Duration::from_secs(120) {
                bail!("{} not ready; {}", self.dir.display(), self.log_tail());
            }
            if let Ok(mut conn) = self.connect() {
                let state: Option<(String, String)> =
                    conn.query_first("SHOW STATUS LIKE 'wsrep_local_state_comment'")?;
                match state {
                    Some((_, state)) if state != "Synced" && self.group_port != 0 => {}
                    _ => return Ok(()),
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `--wsrep-recover`: crash recovery, then the position found in InnoDB.
    pub fn recover(&self) -> Result<String> {
        let log = self.dir.join("recover.log");
        let status =
            self.command().arg("--wsrep-recover").arg(format!("--log-error={}", log.display())).status()?;
        let text = fs::read_to_string(&log)?;
        let position = text.lines().filter_map(|l| l.split_once("Recovered position: ")).next_back();
        match position {
            Some((_, position)) if status.success() => Ok(position.trim().to_owned()),
            _ => bail!("recovery failed ({status}): {}", errors(&text)),
        }
    }

    pub fn connect(&self) -> Result<Conn> {
        let opts = OptsBuilder::new()
            .socket(Some(self.socket().to_string_lossy()))
            .user(Some("root"))
            .prefer_socket(false)
            .read_timeout(Some(Duration::from_secs(120)));
        Ok(Conn::new(opts)?)
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(self.dir.join("error.log")).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        errors(&self.log_text())
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(40) {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn errors(text: &str) -> String {
    let lines: Vec<_> =
        text.lines().filter(|l| l.contains("[ERROR]") || l.contains("Inconsistency")).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
