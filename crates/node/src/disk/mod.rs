//! Files and directories as a crash leaves them: what is durable, what is on which filesystem, how much room there is.
pub mod durable;
pub mod filesystem;
pub mod holes;
pub mod identity;
pub mod reserve;
