//! How many bytes a second one connection carries over loopback: `cargo run --release --example peer_throughput`.
//!
//! Both ends share the machine; `taskset -c 0` gives the figure for one core that encrypts and decrypts.
#![allow(clippy::print_stdout)]
use std::time::{Duration, Instant};

use protocol::chunk::{Chunk, Packing};
use protocol::inventory::FileId;
use protocol::message::Message;
use rejoin_node::cancel::Cancel;
use rejoin_node::peer::{Dialer, Door, Terms};

const CHUNKS: u64 = 4096;

fn main() -> anyhow::Result<()> {
    let (cancel, wait) = (Cancel::new(), Duration::from_secs(5));
    let door = Door::open("127.0.0.1", 0, Terms::of_this_program(), &cancel)?;
    let (port, invitation) = (door.address().port(), door.invitation().clone());
    let dialer = Dialer::new("127.0.0.1", port, invitation, Terms::of_this_program(), &cancel)?;
    let mut donor = dialer.dial_control(wait)?.link;
    let mut joiner = door.admit_control(wait, &cancel)?.link;
    let began = Instant::now();
    let sender = std::thread::spawn(move || -> anyhow::Result<()> {
        let payload = vec![0x5a; 1 << 20];
        for index in 0..CHUNKS {
            let chunk = Chunk {
                file: FileId(0),
                offset: index << 20,
                len: 1 << 20,
                parts: vec![(0, 1 << 20)],
                same: Vec::new(),
                deltas: Vec::new(),
                packing: Packing::Plain,
                digest: 0,
                whole: None,
            };
            donor.send_chunk(&chunk, &payload)?;
        }
        donor.send(&Message::WorkerDone { chunks: CHUNKS })?;
        donor.recv()?;
        Ok(())
    });
    let mut payload = Vec::new();
    while !matches!(joiner.recv_with_payload(&mut payload)?, Message::WorkerDone { .. }) {}
    let elapsed = began.elapsed();
    joiner.send(&Message::WorkerStored)?;
    if let Ok(result) = sender.join() {
        result?;
    }
    println!(
        "{CHUNKS} MiB in {:.2} s: {:.0} MB/s",
        elapsed.as_secs_f64(),
        (CHUNKS << 20) as f64 / 1e6 / elapsed.as_secs_f64()
    );
    Ok(())
}
