//! What must hold when something goes wrong, or when somebody means harm: with the real program, and with real servers
//! wherever a server has a part in it.
mod channel;
mod contract;
mod ends;
mod fake;
mod fake_transfer;
mod filesystems;
mod manifest;
mod mounted;
mod native;
mod old_state;
mod pair;
mod room;
mod servers_ends;
mod staged;
