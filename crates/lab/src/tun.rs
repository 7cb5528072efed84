//! TUN devices: network interfaces whose IP packets a program reads and writes.

use std::ffi::c_int;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};

/// Where programs get TUN devices.
pub const DEVICE: &str = "/dev/net/tun";
/// Bytes in front of each packet, read or written: `struct virtio_net_hdr`. It says how the kernel cuts a long packet into
/// segments, and which checksum is still missing. Who passes packets on from one device to another leaves it as it is.
pub const HEADER: usize = 10;
/// Bytes of the longest packet, with its header. The kernel puts segments of a TCP connection together up to this length.
pub const LONGEST: usize = HEADER + (64 << 10);

/// `TUNSETIFF`.
const SET_INTERFACE: Opcode = opcode::write::<c_int>(b'T', 202);
/// `TUNSETOFFLOAD`.
const SET_OFFLOAD: Opcode = opcode::write::<c_int>(b'T', 208);

/// `IFF_TUN`, `IFF_NO_PI` and `IFF_VNET_HDR`: IP packets, and only the one header in front of them.
const FLAGS: i16 = 0x0001 | 0x1000 | 0x4000;
/// `TUN_F_CSUM`, `TUN_F_TSO4` and `TUN_F_TSO6`: checksums may be missing, and packets may be longer than the interface's MTU.
const OFFLOAD: usize = 1 | 2 | 4;

/// Bytes of `struct ifreq`, and of the name at its beginning. The flags follow.
const REQUEST: usize = 40;
const NAME: usize = 16;

/// Makes the device `name` in the network namespace of the calling thread. It goes away with the descriptor, which never
/// blocks.
#[expect(unsafe_code, reason = "ioctls have no safe interface")]
pub fn create(name: &str) -> Result<OwnedFd> {
    ensure!(name.len() < NAME, "{name} is too long for the name of an interface");
    let mut request = [0; REQUEST];
    request[..name.len()].copy_from_slice(name.as_bytes());
    request[NAME..NAME + 2].copy_from_slice(&FLAGS.to_ne_bytes());
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let device = options.open(DEVICE).context(DEVICE)?;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which `request` is as long as.
    unsafe { ioctl(&device, Updater::<SET_INTERFACE, _>::new(&mut request)) }.context("TUNSETIFF")?;
    // SAFETY: TUNSETOFFLOAD takes an integer.
    unsafe { ioctl(&device, IntegerSetter::<SET_OFFLOAD>::new_usize(OFFLOAD)) }.context("TUNSETOFFLOAD")?;
    Ok(device.into())
}
