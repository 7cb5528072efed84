//! Reading fixed-width numbers out of untrusted bytes, without indexing.

/// Returns `N` bytes at `at`, or `None` if the buffer ends before.
pub(crate) fn array<const N: usize>(buf: &[u8], at: usize) -> Option<[u8; N]> {
    buf.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Big-endian u16 at `at`.
pub(crate) fn be16(buf: &[u8], at: usize) -> Option<u16> {
    array(buf, at).map(u16::from_be_bytes)
}

/// Big-endian u32 at `at`.
pub(crate) fn be32(buf: &[u8], at: usize) -> Option<u32> {
    array(buf, at).map(u32::from_be_bytes)
}

/// Big-endian u64 at `at`.
pub(crate) fn be64(buf: &[u8], at: usize) -> Option<u64> {
    array(buf, at).map(u64::from_be_bytes)
}

/// Little-endian u16 at `at`.
pub(crate) fn le16(buf: &[u8], at: usize) -> Option<u16> {
    array(buf, at).map(u16::from_le_bytes)
}

/// Little-endian u32 at `at`.
pub(crate) fn le32(buf: &[u8], at: usize) -> Option<u32> {
    array(buf, at).map(u32::from_le_bytes)
}

/// Little-endian u64 at `at`.
pub(crate) fn le64(buf: &[u8], at: usize) -> Option<u64> {
    array(buf, at).map(u64::from_le_bytes)
}

/// Copies `bytes` into `buf` at `at`. Does nothing if they do not fit (callers use fixed layouts).
pub(crate) fn put(buf: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = at.checked_add(bytes.len()).and_then(|end| buf.get_mut(at..end)) {
        slot.copy_from_slice(bytes);
    }
}
