//! A small HTTP/1.1 server for requests without a body: one request for each connection, everything bounded.
//!
//! A client can cost it at most a thread and some KiB for a few seconds. A connection beyond the limit ends the oldest one, so
//! a client that sends its request at once is answered even if many others send nothing.
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use transfer::cancel::{Cancel, LOOK_EVERY};
use transfer::threads::{self, Thread, lock};

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request up to its empty line.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long a client may take to send its request, and to receive its answer.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long we wait for an ended connection to make room.
const ROOM_WITHIN: Duration = Duration::from_millis(500);
/// A client that still sends gets this long to read its answer, and this much is read from it: a connection that is closed with
/// unread bytes is reset, and the answer may be lost with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 256 << 10;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its code and the words for it.
    pub status: &'static str,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A line of text.
    pub fn line(status: &'static str, text: &str) -> Answer {
        Answer { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }
}

/// What answers a path; `None` if there is nothing at it.
pub type Handler = dyn Fn(&str) -> Option<Answer> + Send + Sync;

/// Answers requests until `cancel` ends it.
///
/// # Errors
/// The listener fails.
pub fn serve(listener: &TcpListener, handler: &Arc<Handler>, cancel: &Cancel) -> Result<()> {
    listener.set_nonblocking(true).context("cannot poll the listener")?;
    let open = Arc::new(Connections::default());
    while cancel.check().is_ok() {
        let wait = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&wait)) {
            Ok(1..) => {}
            Ok(_) | Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("cannot wait for connections"),
        }
        match listener.accept() {
            Ok((stream, _)) => admit(stream, &open, handler),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The client has gone, or descriptors have run out: others may be freed.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
    Ok(())
}

/// Starts a thread for a connection. What cannot be admitted is closed.
fn admit(stream: TcpStream, open: &Arc<Connections>, handler: &Arc<Handler>) {
    let Some(place) = open.enter(&stream) else { return };
    let handler = Arc::clone(handler);
    // If there are no more threads, the connection is closed with the closure.
    let _ = threads::spawn(Thread::HttpConnection, move || {
        let _place = place;
        converse(stream, &*handler);
    });
}

/// The open connections, the oldest first.
#[derive(Default)]
struct Connections {
    open: Mutex<(u64, VecDeque<(u64, TcpStream)>)>,
    left: Condvar,
}

/// A connection's place among them, until it is dropped.
struct Place(Arc<Connections>, u64);

impl Connections {
    /// Makes room by ending the oldest connection, if there is none.
    fn enter(self: &Arc<Connections>, stream: &TcpStream) -> Option<Place> {
        let copy = stream.try_clone().ok()?;
        let mut open = lock(&self.open);
        if open.1.len() >= CONNECTIONS_MAX {
            if let Some((_, oldest)) = open.1.front() {
                let _ = oldest.shutdown(Shutdown::Both);
            }
            let waited =
                self.left.wait_timeout_while(open, ROOM_WITHIN, |(_, all)| all.len() >= CONNECTIONS_MAX);
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if open.1.len() >= CONNECTIONS_MAX {
            return None;
        }
        open.0 += 1;
        let id = open.0;
        open.1.push_back((id, copy));
        Some(Place(Arc::clone(self), id))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0.open).1.retain(|(id, _)| *id != self.1);
        self.0.left.notify_all();
    }
}

/// Reads a request, answers it and closes the connection. Whatever fails ends this connection only.
fn converse(mut stream: TcpStream, handler: &Handler) {
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    let (answer, with_body) = match read_request(&mut stream) {
        Ok(request) => (answer(&request, handler), !request.starts_with(b"HEAD ")),
        Err(Some(refusal)) => (refusal, true),
        Err(None) => return,
    };
    let Answer { status, content_type, body } = &answer;
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{allow}\
         Connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if with_body {
        bytes.extend_from_slice(body.as_bytes());
    }
    if write_within(&mut stream, &bytes, ANSWER_WITHIN).is_some() {
        linger(&mut stream);
    }
}

/// Everything up to the first empty line, or the refusal; no refusal if the client is gone.
fn read_request(stream: &mut TcpStream) -> Result<Vec<u8>, Option<Answer>> {
    let until = Instant::now() + REQUEST_WITHIN;
    let mut request = Vec::new();
    let mut part = [0; 2048];
    loop {
        match read_before(stream, &mut part, until) {
            Ok(0) => return Err(None),
            Ok(read) => request.extend_from_slice(&part[..read]),
            Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Some(Answer::line("408 Request Timeout", "the request did not arrive in time")));
            }
            Err(_) => return Err(None),
        }
        if let Some(end) = end_of_head(&request) {
            request.truncate(end);
            return Ok(request);
        }
        if request.len() > REQUEST_BYTES_MAX {
            let status = "431 Request Header Fields Too Large";
            return Err(Some(Answer::line(status, "the request is too long")));
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let end = |mark: &[u8]| bytes.windows(mark.len()).position(|window| window == mark);
    end(b"\r\n\r\n").or_else(|| end(b"\n\n"))
}

/// Answers a request from its first line; nothing else in it matters.
fn answer(request: &[u8], handler: &Handler) -> Answer {
    let bad = || Answer::line("400 Bad Request", "this is no HTTP/1.1 request");
    let line = request.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return bad() };
    let words: Vec<&str> = line.trim_end_matches('\r').split(' ').collect();
    let [method, target, version] = words[..] else { return bad() };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return bad();
    }
    let path = target.split('?').next().unwrap_or_default();
    if !matches!(method, "GET" | "HEAD") {
        return Answer::line("405 Method Not Allowed", "only GET and HEAD are answered");
    }
    handler(path).unwrap_or_else(|| Answer::line("404 Not Found", "there is nothing here"))
}

/// Reads what is there, waiting at most until then.
fn read_before(stream: &mut TcpStream, part: &mut [u8], until: Instant) -> Result<usize, ErrorKind> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // A timeout of zero would be none at all.
        if left.is_zero() {
            return Err(ErrorKind::TimedOut);
        }
        stream.set_read_timeout(Some(left)).map_err(|error| error.kind())?;
        match stream.read(part) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => return read.map_err(|error| error.kind()),
        }
    }
}

/// `None` if the client is gone, or too slow.
fn write_within(stream: &mut TcpStream, mut bytes: &[u8], within: Duration) -> Option<()> {
    let until = Instant::now() + within;
    while !bytes.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        stream.set_write_timeout(Some(left)).ok()?;
        match stream.write(bytes) {
            Ok(0) => return None,
            Ok(written) => bytes = bytes.get(written..)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(())
}

/// Waits for the client to close its end.
fn linger(stream: &mut TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let until = Instant::now() + LINGER;
    let (mut part, mut read) = ([0; 4096], 0);
    while read < LINGER_BYTES_MAX {
        match read_before(stream, &mut part, until) {
            Ok(0) | Err(_) => return,
            Ok(bytes) => read += bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(request: &[u8]) -> &'static str {
        answer(request, &|path| (path == "/metrics").then(|| Answer::line("200 OK", "x 1"))).status
    }

    #[test]
    fn only_what_is_there_is_answered() {
        for (request, status) in [
            ("GET /metrics HTTP/1.1\r\nHost: a", "200 OK"),
            ("HEAD /metrics?x=/ HTTP/1.0", "200 OK"),
            ("GET /metrics/ HTTP/1.1", "404 Not Found"),
            ("GET /../metrics HTTP/1.1", "404 Not Found"),
            ("GET /%6Detrics HTTP/1.1", "404 Not Found"),
            ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
            ("get /metrics HTTP/1.1", "405 Method Not Allowed"),
            ("GET /metrics HTTP/2.0", "400 Bad Request"),
            ("GET  /metrics HTTP/1.1", "400 Bad Request"),
            ("GET metrics HTTP/1.1", "400 Bad Request"),
            ("GET /metrics", "400 Bad Request"),
            ("", "400 Bad Request"),
        ] {
            assert_eq!(status_of(request.as_bytes()), status, "{request:?}");
        }
        assert_eq!(status_of(b"GET /\xff HTTP/1.1"), "400 Bad Request");
    }

    #[test]
    fn a_request_ends_with_an_empty_line() {
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\n\r\nmore"), Some(14));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\n\n"), Some(14));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\nHost: a\r\n"), None);
    }
}
