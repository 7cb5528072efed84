//! A filesystem of its own under a node's datadir.
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::mount::{MountFlags, mount, mount_remount};

use crate::cleanup::ClusterDir;
use crate::places::{self, User};
use crate::skipped::with_own_mounts;
use crate::{copy_tree, process};

/// A mount that goes away with this.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// One in memory, that a few megabytes fill.
    pub fn small(datadir: &Path, megabytes: u64, user: User) -> Result<Mounted> {
        let options = format!("size={megabytes}M,mode=0750,uid={},gid={}", user.uid, user.gid);
        Mounted::over(datadir, || {
            // The command wants root, also where another may mount.
            Ok(mount("tmpfs", datadir, "tmpfs", MountFlags::empty(), &*CString::new(options)?)?)
        })
    }

    /// Why this machine cannot have one of this kind.
    pub fn what_is_missing_for(kind: &str, user: User) -> Result<Option<&'static str>> {
        let known = std::fs::read_to_string("/proc/filesystems")?;
        Ok(match () {
            () if !user.switch => Some("only root mounts"),
            () if !known.lines().any(|line| line.trim() == kind) => Some("the kernel does not know it"),
            () if !Path::new("/dev/loop-control").exists() => Some("there are no loop devices"),
            () => None,
        })
    }

    /// One that `mkfs.KIND` makes in a file beside the datadir. What is never written takes no room.
    pub fn made(kind: &str, datadir: &Path, gigabytes: u64, user: User) -> Result<Mounted> {
        Mounted::made_with(kind, &[], datadir, gigabytes, user)
    }

    fn made_with(
        kind: &str,
        options: &[&str],
        datadir: &Path,
        gigabytes: u64,
        user: User,
    ) -> Result<Mounted> {
        let image = datadir.with_extension(kind);
        std::fs::File::create(&image)?.set_len(gigabytes << 30)?;
        let mut make = Command::new(places::program(&format!("mkfs.{kind}"))?);
        make.arg("-q").args(options).arg(&image);
        process::run(make, Duration::from_secs(30))?;
        let mounted = Mounted::over(datadir, || mount_image(kind, datadir))?;
        user.own(datadir)?;
        Ok(mounted)
    }

    /// A made one of this kind, mounted again. `between` gets its image while it is not mounted.
    pub fn again(self, kind: &str, between: impl FnOnce(&Path) -> Result<()>) -> Result<Mounted> {
        let datadir = self.0.clone();
        let image = datadir.with_extension(kind);
        drop(self);
        // The device goes when the filesystem has written everything.
        let (losetup, began) = (places::program("losetup")?, Instant::now());
        let in_use = || -> Result<bool> {
            let mut list = Command::new(&losetup);
            list.arg("-j").arg(&image);
            Ok(!process::run(list, Duration::from_secs(10))?.is_empty())
        };
        while in_use()? {
            ensure!(began.elapsed() < Duration::from_secs(20), "{} is still mounted", image.display());
            std::thread::sleep(Duration::from_millis(50));
        }
        between(&image)?;
        mount_image(kind, &datadir)?;
        Ok(Mounted(datadir))
    }

    /// What is in the datadir is on it then.
    fn over(datadir: &Path, mount: impl FnOnce() -> Result<()>) -> Result<Mounted> {
        let aside = datadir.with_extension("aside");
        std::fs::rename(datadir, &aside)?;
        std::fs::create_dir(datadir)?;
        mount().context(
            "this test mounts a filesystem of its own: that needs CAP_SYS_ADMIN (in a container: --cap-add SYS_ADMIN, and \
             --device /dev/loop-control with loop devices for a made one)",
        )?;
        let mounted = Mounted(datadir.to_owned());
        copy_tree(&aside, datadir).context("the old datadir on it")?;
        std::fs::remove_dir_all(aside)?;
        Ok(mounted)
    }

    /// Another size of one in memory.
    pub fn resize(&self, megabytes: u64) -> Result<()> {
        let size = CString::new(format!("size={megabytes}M"))?;
        mount_remount(&self.0, MountFlags::empty(), &*size).context("another size of the small filesystem")
    }

    /// Bytes in use, once everything has its place on the disk.
    pub fn used(&self) -> Result<u64> {
        let root = std::fs::File::open(&self.0)?;
        rustix::fs::syncfs(&root)?;
        let stat = rustix::fs::fstatvfs(&root)?;
        Ok((stat.f_blocks - stat.f_bfree) * stat.f_frsize)
    }
}

/// A filesystem that all clusters of this program are on, as long as this lives.
#[derive(Debug)]
pub struct ClusterFilesystem {
    _mounted: Mounted,
    // After what is mounted in it.
    _dir: ClusterDir,
}

impl ClusterFilesystem {
    /// One that `mkfs.KIND` makes with these options, in a file that may grow as long as there is room. Before any cluster is made.
    pub fn make(kind: &str, options: &[&str]) -> Result<Self> {
        let user = User::for_servers()?;
        if let Some(missing) = Mounted::what_is_missing_for(kind, user)? {
            return Err(anyhow!("a filesystem of its own needs {kind} in a file: {missing}"));
        }
        let dir = ClusterDir::new()?;
        let stat = rustix::fs::statvfs(dir.path())?;
        let gigabytes = (stat.f_bavail * stat.f_frsize) >> 30;
        let at = dir.path().join("fs");
        std::fs::create_dir(&at)?;
        let mounted = Mounted::made_with(kind, options, &at, gigabytes, user)?;
        past_the_page_cache(&at.with_extension(kind))?;
        tempfile::env::override_temp_dir(&at)
            .map_err(|other| anyhow!("clusters are in {} already", other.display()))?;
        Ok(Self { _mounted: mounted, _dir: dir })
    }
}

/// Has the loop device of a mounted image read and write past the page cache: else the host's memory is taken for its disk.
fn past_the_page_cache(image: &Path) -> Result<()> {
    let losetup = |args: &[&str], what: &Path| {
        let mut losetup = Command::new(places::program("losetup")?);
        losetup.args(args).arg(what);
        process::run(losetup, Duration::from_secs(10))
    };
    let device = losetup(&["--noheadings", "--output", "NAME", "--associated"], image)?;
    losetup(&["--direct-io=on"], Path::new(device.trim())).context("a loop device past the page cache")?;
    Ok(())
}

/// Mounts the image of a filesystem that lies beside this directory.
fn mount_image(kind: &str, datadir: &Path) -> Result<()> {
    let mut mount = Command::new("mount");
    mount.args(["-t", kind, "-o", "loop"]).args([&datadir.with_extension(kind), datadir]);
    process::run(mount, Duration::from_secs(10)).map(drop)
}

/// Runs a test's body where it may mount: here for root, else the whole test once more in a user namespace of its own.
pub fn where_we_may_mount(test: &str, body: impl FnOnce(User) -> Result<()>) -> Result<()> {
    let user = User::for_servers()?;
    if user.switch { body(user) } else { with_own_mounts(test, || body(user)) }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        process::unmount(&self.0);
    }
}
