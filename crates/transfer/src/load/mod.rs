//! The load on the donor's server, and how fast a transfer may read its files meanwhile (`adaptive-throttle`).
//!
//! | module | owns |
//! |---|---|
//! | [`governor`] | the thread that looks once a second, and carries out changes of `rejoin set` |
//! | [`sampler`] | what the server and the kernel tell about one second |
//! | [`kernel`] | the kernel's files: pressure, a disk's statistics, a process's waits for a processor |
//! | [`strain`] | whether such a second was hard for the server, and why |
//! | [`controller`] | how fast files may be read |
//! | [`steering`] | both together, and what to do where slowing does not help |
pub mod controller;
pub mod governor;
pub mod kernel;
pub mod sampler;
pub mod steering;
pub mod strain;
