//! Every crash point of install, rollback and release, on a simulated and on a real filesystem.
mod content;
mod crash;
mod disk;
mod dry_run;
mod inodes;
mod patched;
mod patching;
mod power;
mod random;
mod refusing;
mod server;
mod sim;
mod staging;
mod unchanged;
mod unsynced;
mod world;
