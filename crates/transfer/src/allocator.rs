//! How the C library hands out memory to us.
//!
//! Left alone, glibc gives each thread an arena of its own, up to eight for each processor, and what is freed in one is not used in
//! another: one thread lists the files for the offer, another one lists them for the snapshot. With 100,000 tables the first list
//! stayed in memory as 90 MB of nothing beside the second.
use std::ffi::c_int;

/// From `malloc.h`.
const M_TRIM_THRESHOLD: c_int = -1;
const M_MMAP_THRESHOLD: c_int = -3;
const M_ARENA_MAX: c_int = -8;

/// One for all threads. They hardly ever wait for each other: small values come from a cache that each thread has, and between two
/// large ones a thread works on a mebibyte.
const ARENAS: c_int = 1;
/// Lists that grow beyond this are moved by the kernel instead of being copied. A range and what packing adds to it stay below:
/// the same buffers come and go all the time.
const LARGE: c_int = 2 << 20;
/// So much may be free at the end of the heap before it is given back.
const FREE: c_int = 4 << 20;

/// Has the C library keep little memory that is free. Must run before the first thread starts. Other libraries than glibc are left
/// as they are.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, FREE)] {
        // A refusal costs memory and nothing else.
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
