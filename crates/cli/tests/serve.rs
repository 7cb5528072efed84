//! `rejoin serve` as Prometheus, a kubelet and a hostile client see it.
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const REJOIN: &str = env!("CARGO_BIN_EXE_rejoin");
/// Long enough for a busy machine; no test waits for it unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A datadir of a server that never ran, and `rejoin serve` for it.
struct Served {
    dir: TempDir,
    server: Child,
    address: String,
    /// Open, so that it can write further lines.
    _log: BufReader<ChildStderr>,
}

impl Served {
    fn new() -> Served {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/ibdata1"), "").unwrap();
        fs::write(dir.path().join("my.cnf"), "[mysqld]\n").unwrap();
        let mut server = Command::new(REJOIN)
            .args(["serve", "--listen", "127.0.0.1:0", "--datadir"])
            .arg(dir.path().join("data"))
            .arg("--defaults-file")
            .arg(dir.path().join("my.cnf"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(server.stderr.take().unwrap());
        let mut address = String::new();
        while address.is_empty() {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, rest)) = line.split_once(" at http://") {
                rest.split('/').next().unwrap().clone_into(&mut address);
            }
        }
        Served { dir, server, address, _log: log }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends these bytes and returns everything that comes back.
    fn send(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may have answered and closed before everything is sent.
        let _ = stream.write_all(request);
        rest(&mut stream)
    }

    fn get(&self, path: &str) -> (u16, String) {
        let answer = self.send(format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {answer:?}"));
        let length = format!("Content-Length: {}", body.len());
        assert!(head.lines().any(|line| line == length), "{path}: {answer}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server), signal).unwrap();
    }

    fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.server.id())).unwrap().count()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset at the end takes nothing from what has arrived.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// A process that looks like a transfer's program on this datadir, until it is dropped.
struct Program(Child);

impl Program {
    fn on(served: &Served) -> Program {
        let name = served.dir.path().join("wsrep_sst_sleep");
        symlink("/bin/sleep", &name).unwrap();
        Program(Command::new(name).arg("600").current_dir(served.data()).spawn().unwrap())
    }

    /// The status of a transfer whose phase and bytes changed this long ago.
    fn write_status(&self, served: &Served, idle: Duration) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let began_ms = (now - Duration::from_secs(2000)).as_millis();
        let status = format!(
            r#"{{"role":"joiner","phase":"receiving","done_bytes":1,"total_bytes":4,"wire_bytes":7,"began_ms":{began_ms},
                "elapsed_ms":2000000,"idle_ms":{},"pid":{},"phases":[["waiting for the donor",5],["receiving",9]]}}"#,
            idle.as_millis(),
            self.0.id()
        );
        fs::write(served.data().join("rejoin-status.json"), status).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn metrics_and_probes_of_a_joiner_without_sql() {
    let served = Served::new();
    let (code, body) = served.get("/metrics");
    assert_eq!(code, 200, "{body}");
    assert!(body.contains("\nrejoin_previous_state_bytes 0\n"), "{body}");
    assert_eq!(served.get("/healthz"), (503, "no transfer is running\n".to_owned()));
    assert_eq!(served.get("/livez").0, 200);

    let program = Program::on(&served);
    program.write_status(&served, Duration::from_secs(1));
    assert_eq!(served.get("/healthz"), (200, "a transfer makes progress\n".to_owned()));
    assert_eq!(served.get("/livez").0, 200);
    // What was gathered a moment ago may be answered once more.
    let running = "rejoin_transfer_running{role=\"joiner\"} 1";
    let until = SystemTime::now() + PATIENCE;
    let mut body = String::new();
    while !body.contains(running) && SystemTime::now() < until {
        body = served.get("/metrics").1;
    }
    for line in [
        running,
        "rejoin_transfer_complete_bytes{role=\"joiner\"} 1",
        "rejoin_transfer_phase{role=\"joiner\",phase=\"receiving\"} 1",
    ] {
        assert!(body.lines().any(|l| l == line), "{line:?} is not in\n{body}");
    }
    program.write_status(&served, Duration::from_secs(601));
    assert_eq!(served.get("/healthz"), (503, "a transfer has stalled\n".to_owned()));
    assert_eq!(served.get("/livez").0, 503);
    drop(program);
    assert_eq!(served.get("/healthz"), (503, "no transfer is running\n".to_owned()));
}

/// A Prometheus that scrapes `rejoin serve` as docs/monitoring.md configures it, with the rules of contrib/.
struct Prometheus {
    server: Child,
    address: String,
}

impl Prometheus {
    fn of(served: &Served) -> Prometheus {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let page = fs::read_to_string(format!("{root}/docs/monitoring.md")).unwrap();
        let blocks = page.split("```\n");
        let scrape = blocks.into_iter().find(|block| block.starts_with("scrape_configs:")).unwrap();
        assert!(scrape.contains("10.0.0.5:4570"), "{scrape}");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [\"{root}/contrib/prometheus/rejoin.rules.yml\"]\n{}",
            scrape.replace("10.0.0.5:4570", &served.address)
        );
        let at = |name: &str| served.dir.path().join(name).display().to_string();
        fs::write(at("prometheus.yml"), config).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let server = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", at("tsdb")))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus: {error}; scripts/install-deps.sh installs it"));
        Prometheus { server, address }
    }

    /// What it answers; nothing while it starts.
    fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        serde_json::from_str(rest(&mut stream).split_once("\r\n\r\n")?.1).ok()
    }

    fn until(&self, path: &str, is_it: impl Fn(&Value) -> bool) {
        let until = SystemTime::now() + PATIENCE;
        let mut said = None;
        while !said.as_ref().is_some_and(&is_it) {
            assert!(SystemTime::now() < until, "{path}: {said:#?}");
            std::thread::sleep(Duration::from_millis(100));
            said = self.ask(path);
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn a_prometheus_scrapes_it_and_an_alert_fires() {
    let served = Served::new();
    let program = Program::on(&served);
    program.write_status(&served, Duration::from_secs(601));
    let prometheus = Prometheus::of(&served);
    let first = |said: &Value| said["data"]["result"][0].clone();
    prometheus.until("/api/v1/query?query=rejoin_transfer_running", |said| {
        let series = first(said);
        series["value"][1] == "1"
            && series["metric"]["role"] == "joiner"
            && series["metric"]["job"] == "rejoin"
    });
    prometheus.until("/api/v1/metadata?metric=rejoin_transfer_bytes_total", |said| {
        said["data"]["rejoin_transfer_bytes_total"][0]["type"] == "counter"
    });
    let fires = |name: &str| {
        prometheus.until("/api/v1/alerts", |said| {
            let alerts = said["data"]["alerts"].as_array();
            alerts.is_some_and(|alerts| {
                alerts.iter().any(|alert| alert["labels"]["alertname"] == name && alert["state"] == "firing")
            })
        });
    };
    fires("RejoinTransferStalled");
    // Its program is killed, and the next scrape knows that.
    drop(program);
    fires("RejoinTransferFailed");
}

#[test]
fn nothing_else_is_answered_and_nothing_is_told() {
    let served = Served::new();
    for path in ["/", "/metrics/x", "/../../etc/passwd", "/rejoin-status.json"] {
        assert_eq!(served.get(path), (404, "there is nothing here\n".to_owned()), "{path}");
    }
    let post = served.send(b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
    assert!(post.starts_with("HTTP/1.1 405 ") && post.contains("\r\nAllow: GET, HEAD\r\n"), "{post}");
    let head = served.send(b"HEAD /livez HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(served.send(b"\x16\x03\x01\x02\x00\r\n\r\n").starts_with("HTTP/1.1 400 "), "a TLS handshake");

    // A link is not followed, and its target is not named.
    let secret = served.dir.path().join("secret");
    fs::write(&secret, "{}").unwrap();
    symlink(&secret, served.data().join("rejoin-status.json")).unwrap();
    let (code, body) = served.get("/healthz");
    assert_eq!((code, body.contains("secret")), (500, false), "{body}");
}

#[test]
fn hostile_clients_cost_little_and_keep_nobody_out() {
    let served = Served::new();
    // Far more connections than there is room for, each with the beginning of a request.
    let mut silent: Vec<TcpStream> = (0..150)
        .map(|_| {
            let mut stream = served.connect();
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n");
            stream
        })
        .collect();
    assert_eq!(served.get("/livez").0, 200, "in between");
    // Its own threads, and one for each connection.
    assert!(served.threads() <= 32 + 4, "{} threads", served.threads());
    assert_eq!(served.get("/metrics").0, 200);
    let last = rest(silent.last_mut().unwrap());
    assert!(last.starts_with("HTTP/1.1 408 "), "{last}");
    drop(silent);

    // An endless header.
    let huge = served.send(&[b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 8 << 20]].concat());
    assert!(huge.starts_with("HTTP/1.1 431 "), "{huge}");

    // One that arrives a byte at a time, and never ends.
    let mut slow = served.connect();
    slow.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut answer = [0; 12];
    while slow.read_exact(&mut answer).is_err() {
        let _ = slow.write_all(b"x");
    }
    assert_eq!(&answer, b"HTTP/1.1 408");

    // One that asks and does not read.
    let deaf: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = served.connect();
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
            stream
        })
        .collect();
    assert_eq!(served.get("/metrics").0, 200);
    drop(deaf);
}

#[test]
fn it_ends_when_it_is_told_to_and_frees_its_port() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut served = Served::new();
        let _open = served.connect();
        let taken = Command::new(REJOIN)
            .args(["serve", "--listen", &served.address, "--datadir"])
            .arg(served.data())
            .arg("--defaults-file")
            .arg(served.dir.path().join("my.cnf"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&taken.stderr).into_owned();
        assert!(!taken.status.success() && text.contains("(hint: --listen names another"), "{text}");
        served.signal(signal);
        assert_eq!(served.server.wait().unwrap().code(), Some(0), "{signal:?}");
        assert!(TcpStream::connect(&served.address).is_err());
    }
}
