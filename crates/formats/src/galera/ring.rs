//! Walking from buffer to buffer, to find the history in a ring or page file.
//!
//! A ring holds at most two stretches of buffers: from the start to the end mark (`next`), and behind it the
//! rest of the previous lap, up to the end mark which that lap left near the file's end. The start of the
//! older one is recorded only by a clean end of the server; otherwise it is the first place behind `next`
//! that looks like a buffer followed by another. The provider's own recovery does the same
//! (gcache/src/gcache_rb_store.cpp, Galera 26.4.23).
//!
//! Nothing here reads a file: the caller passes a function that returns the 24 bytes at an offset, or `None`
//! beyond the end. So the same walk serves a mapped file, a moving window, and a test's array.

use super::gcache::{BufferHeader, HEADER_LEN, Order, RING_START, Store};
use super::seqnos::Seqnos;
use crate::ids::Seqno;

/// A buffer becomes a mark for a later visit if at least this many bytes lie between it and the last mark.
pub const MARK_EVERY: u64 = 1 << 20;

/// The layout of the buffers in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The kind of file.
    pub store: Store,
    /// Whether buffers are at multiples of 8 (always, except in ring files of version 0 and 1).
    pub aligned: bool,
    /// Bytes of the file.
    pub len: u64,
}

/// A buffer from which a walk may start, so that a later visit of a file that is being written need not start
/// at its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Where the buffer's header is, in bytes from the file's start.
    pub at: u64,
    /// The order found there. If it is another one later, the place was overwritten.
    pub order: Order,
    /// The highest seqno before it in its stretch: what is newer lies behind the mark.
    pub before: Option<Seqno>,
}

/// Buffers without a break between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Its first buffer, in bytes from the file's start.
    pub from: u64,
    /// The end of its last buffer.
    pub to: u64,
    /// The seqno of its first buffer that is ordered, if any is. Not always the lowest one.
    pub first: Option<Seqno>,
    /// The lowest seqno in it: neighbours may be out of order.
    pub lowest: Option<Seqno>,
    /// The highest seqno in it.
    pub last: Option<Seqno>,
    /// Places where a visit may start: the first buffer, and further ones at least [`MARK_EVERY`] apart.
    pub marks: Vec<Mark>,
}

/// The content of a ring file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// The stretches in the order they were written.
    pub stretches: Vec<Stretch>,
    /// The seqnos of all ordered buffers.
    pub seqnos: Seqnos,
    /// The position of the next buffer.
    pub next: u64,
}

impl Layout {
    /// A ring file of `len` bytes.
    pub fn ring(len: u64, aligned: bool) -> Layout {
        Layout { store: Store::Ring, aligned, len }
    }

    /// A page file of `len` bytes.
    pub fn page(len: u64) -> Layout {
        Layout { store: Store::Page, aligned: true, len }
    }

    /// The limit for the end of a buffer.
    fn limit(&self) -> u64 {
        match self.store {
            // The last 24 bytes can only hold an end mark.
            Store::Ring => self.len.saturating_sub(HEADER_LEN as u64),
            Store::Page => self.len,
        }
    }

    fn plausible(&self, bytes: &[u8; HEADER_LEN]) -> Option<BufferHeader> {
        let header = BufferHeader::parse(bytes)?;
        let fits = header.store == self.store && (!self.aligned || header.size.is_multiple_of(8));
        fits.then_some(header)
    }

    /// Returns the buffer at `at`, if there is one: a plausible header, enough room for its size, and behind
    /// it an end mark or another plausible header.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn buffer<E>(
        &self,
        at: u64,
        read: &mut impl FnMut(u64) -> Result<Option<[u8; HEADER_LEN]>, E>,
    ) -> Result<Option<BufferHeader>, E> {
        let Some(header) = read(at)?.and_then(|bytes| self.plausible(&bytes)) else { return Ok(None) };
        let Some(end) = at.checked_add(u64::from(header.size)).filter(|&end| end <= self.limit()) else {
            return Ok(None);
        };
        let follows = match read(end)? {
            Some(bytes) => BufferHeader::is_end_mark(&bytes) || self.plausible(&bytes).is_some(),
            // A page may end with its last buffer.
            None => self.store == Store::Page,
        };
        Ok(follows.then_some(header))
    }

    /// Visits buffer after buffer from `from` up to `to`, and returns where it stopped. The visitor returns
    /// whether to continue.
    ///
    /// # Errors
    /// Those of `read` and `visit`.
    pub fn walk<E>(
        &self,
        from: u64,
        to: u64,
        read: &mut impl FnMut(u64) -> Result<Option<[u8; HEADER_LEN]>, E>,
        visit: &mut impl FnMut(u64, BufferHeader) -> Result<bool, E>,
    ) -> Result<u64, E> {
        let mut at = from;
        while at < to {
            let Some(header) = self.buffer(at, read)? else { break };
            if !visit(at, header)? {
                break;
            }
            // The buffer ends within the file, so this cannot overflow; and it has at least 24 bytes, so this
            // terminates.
            at = at.saturating_add(u64::from(header.size));
        }
        Ok(at)
    }
}

/// Finds the content of a ring file of this layout. `oldest` is the position of the oldest buffer, if the
/// preamble has it.
///
/// This also works for a file that a server is writing: buffers that it has written behind the end of the
/// first stretch in the meantime count as that stretch's continuation.
///
/// # Errors
/// Those of `read`.
pub fn scan<E>(
    layout: Layout,
    oldest: Option<u64>,
    read: &mut impl FnMut(u64) -> Result<Option<[u8; HEADER_LEN]>, E>,
) -> Result<Ring, E> {
    let mut seqnos = Seqnos::default();
    let limit = layout.limit();
    if let Some(oldest) = oldest.filter(|at| (RING_START..limit).contains(at)) {
        let mut stretches = vec![stretch(layout, oldest, limit, read, &mut seqnos)?];
        if oldest > RING_START {
            stretches.push(stretch(layout, RING_START, oldest, read, &mut seqnos)?);
        }
        let next = stretches.last().map_or(RING_START, |newest| newest.to);
        return Ok(Ring { stretches, seqnos, next });
    }
    let mut newer = vec![stretch(layout, RING_START, limit, read, &mut seqnos)?];
    let mut last = newer.iter().find_map(|stretch| stretch.last);
    let mut next = newer.iter().map(|stretch| stretch.to).max().unwrap_or(RING_START);
    while let Some(at) = find(layout, next, read)? {
        let found = stretch(layout, at, limit, read, &mut seqnos)?;
        let continues = last.is_some() && found.first > last;
        if !continues {
            newer.insert(0, found);
            break;
        }
        (last, next) = (found.last, found.to);
        newer.push(found);
    }
    Ok(Ring { stretches: newer, seqnos, next })
}

/// Finds the first buffer behind the end mark at `next`.
fn find<E>(
    layout: Layout,
    next: u64,
    read: &mut impl FnMut(u64) -> Result<Option<[u8; HEADER_LEN]>, E>,
) -> Result<Option<u64>, E> {
    let step = if layout.aligned { 8 } else { 1 };
    let mut at = next.saturating_add(HEADER_LEN as u64);
    while at < layout.limit() {
        if layout.buffer(at, read)?.is_some() {
            return Ok(Some(at));
        }
        at = at.saturating_add(step);
    }
    Ok(None)
}

/// Walks one stretch and records its seqnos.
///
/// # Errors
/// Those of `read`.
pub fn stretch<E>(
    layout: Layout,
    from: u64,
    limit: u64,
    read: &mut impl FnMut(u64) -> Result<Option<[u8; HEADER_LEN]>, E>,
    seqnos: &mut Seqnos,
) -> Result<Stretch, E> {
    let mut found = Stretch { from, to: from, first: None, lowest: None, last: None, marks: Vec::new() };
    found.to = layout.walk(from, limit, read, &mut |at, header| {
        if found.marks.last().is_none_or(|mark| at.saturating_sub(mark.at) >= MARK_EVERY) {
            found.marks.push(Mark { at, order: header.order, before: found.last });
        }
        if let Some(seqno) = header.seqno() {
            seqnos.insert(seqno);
            found.first.get_or_insert(seqno);
            found.lowest = Some(found.lowest.map_or(seqno, |lowest| lowest.min(seqno)));
            found.last = found.last.max(Some(seqno));
        }
        Ok(true)
    })?;
    Ok(found)
}
