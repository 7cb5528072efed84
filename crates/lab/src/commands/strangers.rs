//! `lab strangers`: full transfers while many clients connect to the joiner's port again and again, and all processors are busy.
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rejoin_lab::{Cluster, compare, data};

/// How long a client says nothing, or waits for an answer.
const PATIENCE: Duration = Duration::from_millis(100);

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Clients that connect again and again.
    #[arg(long, default_value_t = 400)]
    clients: u64,
    /// How many transfers.
    #[arg(long, default_value_t = 6)]
    transfers: u32,
    /// Rows of each of two sysbench tables.
    #[arg(long, default_value_t = 50_000)]
    rows: u32,
    /// Threads that do nothing but keep a processor busy; one for each without this.
    #[arg(long)]
    busy: Option<usize>,
}

/// Runs it. Every transfer must succeed.
pub fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::builder().build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    data::sysbench_tables(donor, 2, options.rows)?;
    let crowd = Crowd::gather(joiner.ports().sst(), options)?;
    let mut failed = Vec::new();
    for number in 1..=options.transfers {
        let before = crowd.connections.load(Relaxed);
        donor.exec(&["UPDATE sbtest.sbtest1 SET c = UUID() WHERE id % 2 = 0"])?;
        joiner.remove_grastate()?;
        let joined = joiner.join().with_context(|| format!("transfer {number}"));
        let strangers = crowd.connections.load(Relaxed) - before;
        match joined {
            Ok(took) => {
                println!("{number:3} joined in {:.1} s, {strangers} strangers meanwhile", took.as_secs_f64());
                compare::assert_equal(donor, joiner)?;
                joiner.stop()?;
            }
            Err(error) => {
                println!("{number:3} FAILED, {strangers} strangers meanwhile: {error:#}");
                failed.push(number);
                joiner.kill();
            }
        }
    }
    crowd.leave();
    ensure!(failed.is_empty(), "{} of {} transfers failed", failed.len(), options.transfers);
    println!("{} transfers among {} clients, all equal", options.transfers, options.clients);
    Ok(())
}

/// The clients, and who keeps the processors busy.
struct Crowd {
    leave: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn gather(port: u16, options: &Options) -> Result<Crowd> {
        let mut crowd = Crowd { leave: Arc::default(), connections: Arc::default(), threads: Vec::new() };
        let processors = std::thread::available_parallelism()?.get();
        for _ in 0..options.busy.unwrap_or(processors) {
            let leave = Arc::clone(&crowd.leave);
            crowd.threads.push(std::thread::Builder::new().spawn(move || {
                while !leave.load(Relaxed) {
                    std::hint::spin_loop();
                }
            })?);
        }
        for number in 0..options.clients {
            let (leave, connections) = (Arc::clone(&crowd.leave), Arc::clone(&crowd.connections));
            let stranger = move || {
                let mut turn = number;
                while !leave.load(Relaxed) {
                    match connect(port, turn) {
                        Ok(()) => connections.fetch_add(1, Relaxed),
                        // Nobody listens, or it was thrown out.
                        Err(_) => {
                            std::thread::sleep(Duration::from_millis(5));
                            0
                        }
                    };
                    turn += 1;
                }
            };
            crowd.threads.push(std::thread::Builder::new().stack_size(128 << 10).spawn(stranger)?);
        }
        Ok(crowd)
    }

    fn leave(self) {
        self.leave.store(true, Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Connects once: says nothing, or nonsense, or begins TLS as anybody would.
fn connect(port: u16, turn: u64) -> std::io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    match turn % 3 {
        0 => std::thread::sleep(PATIENCE),
        1 => stream.write_all(&[b'x'; 200])?,
        _ => stream.write_all(&client_hello())?,
    }
    // Whether it is answered or thrown out is not the question.
    let _ = stream.read(&mut [0; 64]);
    Ok(())
}

/// A first packet of TLS without a server name.
fn client_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, one cipher suite, no compression, no extensions.
    body.extend([0, 0, 2, 0x13, 1, 1, 0, 0, 0]);
    let length = body.len() as u8;
    let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    hello
}
