//! What must hold when something fails, or when an attacker interferes. Tested with the real program, and with real servers
//! if a server takes part.
mod all_killed;
mod channel;
mod contract;
mod dry_run;
mod ends;
mod fake;
mod fake_transfer;
mod filesystems;
mod gone;
mod holders;
mod hostile;
mod limits;
mod logins;
mod manifest;
mod native;
mod old_state;
mod pair;
mod panics;
mod remembered;
mod remembered_volume;
mod retries;
mod room;
mod server_uses;
mod servers_ends;
mod staged;
mod verbs;
