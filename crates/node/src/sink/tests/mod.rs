//! Every crash point of install, rollback and release, on a simulated and on a real filesystem.
mod asked;
mod crash;
mod disk;
mod patched;
mod patching;
mod power;
mod random;
mod server;
mod sim;
mod staging;
mod staying;
mod world;
