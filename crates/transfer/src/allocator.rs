//! Limits the free memory that the C library keeps.
//!
//! By default glibc gives each thread an arena of its own, up to eight for each processor, and memory that is freed
//! in one arena is not used in another. One thread lists the files for the offer, another one lists them for the
//! snapshot: with 100,000 tables the first list left 90 MB of unused memory beside the second.
#![cfg_attr(not(target_env = "gnu"), allow(dead_code, reason = "other C libraries have no such settings"))]
use std::ffi::c_int;

/// From `malloc.h`.
const M_TRIM_THRESHOLD: c_int = -1;
const M_MMAP_THRESHOLD: c_int = -3;
const M_ARENA_MAX: c_int = -8;

/// One arena for all threads. They hardly ever wait for each other: small values come from a cache of each thread,
/// and between two large ones a thread works on a mebibyte.
const ARENAS: c_int = 1;
/// In bytes. Lists that grow beyond this are moved by the kernel instead of being copied. A range and what packing
/// adds to it stay below, because such buffers are allocated and freed all the time.
const LARGE: c_int = 2 << 20;
/// Bytes that may be free at the end of the heap before they are given back.
const FREE: c_int = 4 << 20;

/// Makes glibc keep little free memory. Call this before the first thread starts. Other C libraries are left as they
/// are.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, FREE)] {
        // A refusal only costs memory.
        let _ = mallopt(parameter, value);
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's own settings have no safe interface")]
fn mallopt(parameter: c_int, value: c_int) -> c_int {
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    // SAFETY: it takes two numbers, and no other thread of this process runs yet.
    unsafe { mallopt(parameter, value) }
}
