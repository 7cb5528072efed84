//! Files and directories as they are after a crash: durability, filesystems, free space.
pub mod copy;
pub mod direct;
pub mod direct_write;
pub mod durable;
pub mod filesystem;
pub mod holes;
pub mod identity;
pub mod lock;
pub mod nameless;
pub mod probe;
pub mod reserve;
pub mod small_file;
pub mod watch;
