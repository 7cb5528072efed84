//! What is said over a link arrives, and every wait on it ends.
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use protocol::chunk::{Chunk, Packing};
use protocol::inventory::FileId;
use protocol::message::Message;
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::failure::Kind;
use rejoin_transfer::peer::Link;

use crate::common::*;

fn chunk(index: u64, len: usize) -> Chunk {
    let len = len as u32;
    Chunk {
        file: FileId(0),
        offset: index << 20,
        len,
        parts: vec![(0, len)],
        same: Vec::new(),
        deltas: Vec::new(),
        packing: Packing::Plain,
        digest: 0,
        whole: None,
    }
}

fn fill(payload: &mut [u8], seed: u64) {
    for (index, word) in payload.chunks_mut(8).enumerate() {
        let value = (seed << 32 | index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
}

#[test]
fn workers_carry_their_chunks() {
    let (listener, mut joiner, mut donor, cancel) = pair();
    let dialer = dialer(&listener, listener.invitation(), &cancel);
    listener.allow_workers(4);
    joiner.link.send(&Message::Ready).unwrap();
    assert_eq!(donor.link.recv().unwrap(), Message::Ready);
    const CHUNKS: u64 = 25;
    std::thread::scope(|scope| {
        for number in 0..4u16 {
            let dialer = &dialer;
            scope.spawn(move || {
                let mut link = dialer.dial_worker(number, SOON).unwrap();
                let mut payload = vec![0; 1 << 20];
                for index in 0..CHUNKS {
                    // Lengths around the borders of records and buffers, the longest last.
                    let len = [1 << 20, 0, 1, 16384, 16385, (1 << 20) + (64 << 10), 131_072, 4096]
                        [(index % 8) as usize];
                    payload.resize(len, 0);
                    fill(&mut payload, u64::from(number) << 8 | index);
                    link.send_chunk(&chunk(index, len), &payload).unwrap();
                }
                link.send(&Message::WorkerDone { chunks: CHUNKS }).unwrap();
                assert_eq!(link.recv().unwrap(), Message::WorkerStored);
                link.close();
            });
        }
        for _ in 0..4 {
            let (number, mut link) = listener.admit_worker(SOON, &cancel).unwrap().unwrap();
            scope.spawn(move || {
                let (mut payload, mut expected) = (Vec::new(), Vec::new());
                for index in 0..CHUNKS {
                    let Message::Chunk(chunk) = link.recv_with_payload(&mut payload).unwrap() else {
                        panic!()
                    };
                    assert_eq!((chunk.offset, chunk.len as usize), (index << 20, payload.len()));
                    expected.resize(payload.len(), 0);
                    fill(&mut expected, u64::from(number) << 8 | index);
                    assert!(payload == expected, "worker {number}, chunk {index}");
                }
                assert!(payload.capacity() <= protocol::limits::PAYLOAD_BYTES_MAX as usize);
                let last = link.recv_with_payload(&mut payload).unwrap();
                assert_eq!((last, payload.len()), (Message::WorkerDone { chunks: CHUNKS }, 0));
                link.send(&Message::WorkerStored).unwrap();
                link.close();
            });
        }
    });
}

#[test]
fn nothing_is_lost_when_reads_and_writes_time_out_in_the_middle() {
    let (_listener, mut joiner, mut donor, _) = pair();
    let sender = std::thread::spawn(move || {
        let mut payload = vec![0; 1 << 20];
        for index in 0..24 {
            fill(&mut payload, index);
            donor.link.send_chunk(&chunk(index, 1 << 20), &payload).unwrap();
            if index % 8 == 7 {
                // The reader's turn to time out.
                std::thread::sleep(Duration::from_millis(500));
            }
        }
        donor
    });
    let (mut payload, mut expected) = (Vec::new(), vec![0; 1 << 20]);
    for index in 0..24 {
        if index % 5 == 2 {
            // The sender's buffers fill and its writes time out several times.
            std::thread::sleep(Duration::from_millis(700));
        }
        joiner.link.recv_with_payload(&mut payload).unwrap();
        fill(&mut expected, index);
        assert!(payload == expected, "chunk {index}");
    }
    sender.join().unwrap();
}

#[test]
fn a_silent_peer_is_noticed() {
    let (_listener, mut joiner, _donor, _) = pair();
    joiner.link.set_stall(Duration::from_secs(1));
    let began = Instant::now();
    let received = joiner.link.recv();
    let words = format!("received nothing from {} for 1 s", joiner.link.peer());
    fails(received, Kind::Timeout, &words);
    assert!((1000..1600).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[test]
fn a_ping_is_a_sign_of_life() {
    let (_listener, mut joiner, mut donor, _) = pair();
    joiner.link.set_stall(Duration::from_secs(1));
    let pinger = std::thread::spawn(move || {
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(400));
            donor.link.ping("thinking").unwrap();
        }
        donor.link.note("done\nthinking").unwrap();
        donor.link.send(&Message::Ready).unwrap();
        donor
    });
    let traffic = joiner.link.traffic();
    let (bytes, messages) = (traffic.total(), traffic.messages());
    assert_eq!(joiner.link.recv().unwrap(), Message::Ready);
    pinger.join().unwrap();
    // Probes count messages, because a side whose work hangs sends pings, too.
    assert!(traffic.total() > bytes + 7 * 20);
    assert_eq!(traffic.messages(), messages + 1);
}

/// Sends chunks until it fails.
fn pour(link: &mut Link) -> anyhow::Result<()> {
    let payload = vec![1; 1 << 20];
    for index in 0..1000 {
        link.send_chunk(&chunk(index, 1 << 20), &payload)?;
    }
    Ok(())
}

#[test]
fn a_peer_that_takes_nothing_is_noticed() {
    let (_listener, joiner, mut donor, _) = pair();
    donor.link.set_stall(Duration::from_secs(1));
    fails(pour(&mut donor.link), Kind::Timeout, "accepted no data for 1 s");
    drop(joiner);
}

fn cancel_in(delay: Duration, cancel: &Cancel) -> std::thread::JoinHandle<Instant> {
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        cancel.cancel(Kind::Server, "the server is gone");
        Instant::now()
    })
}

#[test]
fn cancel_ends_a_blocked_receive_and_a_blocked_send() {
    let (_listener, joiner, _, mut donor, donors) = pair_with_cancels();
    let stopper = cancel_in(Duration::from_millis(1200), &donors);
    fails(pour(&mut donor.link), Kind::Server, "the server is gone");
    assert!(stopper.join().unwrap().elapsed() < Duration::from_millis(500));
    drop(joiner);

    let (_listener, mut joiner, joiners, donor, _) = pair_with_cancels();
    let stopper = cancel_in(Duration::from_millis(500), &joiners);
    fails(joiner.link.recv(), Kind::Server, "the server is gone");
    assert!(stopper.join().unwrap().elapsed() < Duration::from_millis(500));
    drop(donor);
}

#[test]
fn the_reason_of_an_abort_arrives_although_we_are_cancelled() {
    let (_listener, mut joiner, _, mut donor, donors) = pair_with_cancels();
    donors.cancel(Kind::Disk, "read error");
    let began = Instant::now();
    let aborting = std::thread::spawn(move || donor.link.abort("cannot read ibdata1: Input/output error"));
    fails(joiner.link.recv(), Kind::Peer, "the donor gave up: cannot read ibdata1: Input/output error");
    drop(joiner);
    aborting.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// A ping is due at the moment of the cancellation: it is not sent, and the reason follows it.
#[test]
fn the_reason_of_an_abort_arrives_although_a_message_was_cut_short() {
    let (_listener, mut joiner, _, mut donor, donors) = pair_with_cancels();
    donors.cancel(Kind::Internal, "a thread panicked");
    fails(donor.link.ping("sending"), Kind::Internal, "a thread panicked");
    let aborting = std::thread::spawn(move || donor.link.abort("a thread panicked"));
    fails(joiner.link.recv(), Kind::Peer, "the donor gave up: a thread panicked");
    drop(joiner);
    aborting.join().unwrap();
}

#[test]
fn an_abort_reaches_a_sender() {
    let (_listener, mut joiner, mut donor, _) = pair();
    let aborting = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(600));
        joiner.link.abort("no space left");
    });
    fails(pour(&mut donor.link), Kind::Peer, "the joiner gave up: no space left");
    aborting.join().unwrap();
}

#[test]
fn an_abort_does_not_wait_for_a_peer_that_is_stuck() {
    let (_listener, _joiner, _, mut donor, donors) = pair_with_cancels();
    let stopper = cancel_in(Duration::from_millis(800), &donors);
    pour(&mut donor.link).unwrap_err();
    stopper.join().unwrap();
    let began = Instant::now();
    donor.link.abort("stop");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    fails(donor.link.send(&Message::Ready), Kind::Peer, "has ended");
}

#[test]
fn a_closed_connection_is_named() {
    let (_listener, mut joiner, donor, _) = pair();
    drop(donor);
    let words = format!("{} closed the connection", joiner.link.peer());
    fails(joiner.link.recv(), Kind::Peer, &words);
    let (_listener, mut joiner, donor, _) = pair();
    donor.link.close();
    let words = format!("{} closed the connection", joiner.link.peer());
    fails(joiner.link.recv(), Kind::Peer, &words);
}

#[test]
fn the_last_message_arrives_although_we_leave_with_unread_input() {
    let (_listener, joiner, mut donor, _) = pair();
    donor.link.ping("waiting").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let leaving = std::thread::spawn(move || {
        let mut link = joiner.link;
        // More than the peer's window: most of it is still in our kernel when we leave.
        link.send_chunk(&chunk(0, 1 << 20), &vec![3; 1 << 20]).unwrap();
        link.close();
    });
    std::thread::sleep(Duration::from_millis(150));
    donor.link.ping("still waiting").unwrap();
    let mut payload = Vec::new();
    donor.link.recv_with_payload(&mut payload).unwrap();
    assert!(payload == vec![3; 1 << 20]);
    fails(donor.link.recv(), Kind::Peer, "closed the connection");
    drop(donor);
    leaving.join().unwrap();
}

#[test]
fn work_keeps_the_link_alive() {
    let (_listener, mut joiner, mut donor, _) = pair();
    donor.link.set_stall(Duration::from_secs(3));
    let waiting = std::thread::spawn(move || (donor.link.recv().unwrap(), donor));
    let worked = joiner.link.keep_alive_while("verifying", || {
        std::thread::sleep(Duration::from_secs(5));
        Ok(42)
    });
    assert_eq!(worked.unwrap(), 42);
    joiner.link.send(&Message::Stored).unwrap();
    let (message, mut donor) = waiting.join().unwrap();
    assert_eq!(message, Message::Stored);

    // Short work is not held up, its error is its own, and a message that comes meanwhile is kept.
    donor.link.send(&Message::Ready).unwrap();
    donor.link.send(&Message::Complete { chunks: 1 }).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let began = Instant::now();
    let worked = joiner.link.keep_alive_while::<()>("", || {
        std::thread::sleep(Duration::from_millis(50));
        anyhow::bail!("my own trouble")
    });
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(worked.unwrap_err().to_string(), "my own trouble");
    assert_eq!(joiner.link.recv().unwrap(), Message::Ready);
    assert_eq!(joiner.link.recv().unwrap(), Message::Complete { chunks: 1 });
}

#[test]
fn work_ends_when_the_peer_gives_up_or_goes() {
    for abort in [true, false] {
        let (_listener, mut joiner, joiners, mut donor, _) = pair_with_cancels();
        let leaving = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            if abort {
                donor.link.abort("killed");
            }
        });
        let ended = AtomicBool::new(false);
        let began = Instant::now();
        let worked = joiner.link.keep_alive_while("copying", || {
            let result = joiners.sleep(SOON);
            ended.store(true, Ordering::SeqCst);
            Ok(result?)
        });
        let words = if abort { "the donor gave up: killed" } else { "closed the connection" };
        fails(worked, Kind::Peer, words);
        assert!(ended.load(Ordering::SeqCst));
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        leaving.join().unwrap();
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_named() {
    use std::io::Write;
    for (bytes, words) in [
        (vec![255; 8], "announced a header of"),
        (vec![1, 0, 0, 0, 255, 255, 255, 0, 0], "announced a payload of"),
        (vec![1, 0, 0, 0, 0, 0, 0, 0, 250], "not a message of protocol version 1"),
        (vec![1, 0, 0, 0, 9, 0, 0, 0, 9], "a payload behind Ready"),
    ] {
        let (listener, cancel) = open();
        let mut raw = Raw::new(&listener);
        let hello = raw.hello(&listener, protocol::hello::Connection::Control);
        assert_eq!(raw.greet(&hello.encode()), None);
        let mut joiner = listener.admit_control(SOON, &cancel).unwrap();
        raw.0.write_all(&bytes).unwrap();
        raw.0.flush().unwrap();
        fails(joiner.link.recv(), Kind::Peer, words);
    }
}

#[test]
fn a_listener_that_never_answers_is_noticed() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (listener, cancel) = open();
    let port = socket.local_addr().unwrap().port();
    let dialer = rejoin_transfer::peer::Dialer::new(
        "127.0.0.1",
        port,
        listener.invitation().clone(),
        terms(),
        &cancel,
    )
    .unwrap();
    let began = Instant::now();
    fails(dialer.dial_control(SOON), Kind::Timeout, "did not send its greeting in time");
    assert!((9..13).contains(&began.elapsed().as_secs()));
}
