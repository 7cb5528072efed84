//! Which processes have a provider's cache open.
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files that processes have mapped, by inode and name. The device is not compared: a process may see another
/// number.
pub(super) struct Mapped {
    files: Vec<(u64, String, u32)>,
    /// Every server process that may have the cache open could be inspected.
    pub complete: bool,
}

/// Decides by the name of a process, which every user may read.
fn may_be_a_server(process: &Path) -> bool {
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    ["mariadbd", "mysqld"].iter().any(|server| name.starts_with(server))
}

/// The user and groups of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Acting {
    user: u32,
    groups: Vec<u32>,
}

impl Acting {
    /// Every user may read these of every process.
    fn of(process: &Path) -> Option<Acting> {
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let numbers = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().filter_map(|number| number.parse().ok()).collect())
        };
        let groups = [numbers("Gid:")?, numbers("Groups:").unwrap_or_default()].concat();
        // The fields are: real, effective, saved, filesystem.
        Some(Acting { user: *numbers("Uid:")?.get(1)?, groups })
    }

    /// Whether the process may have opened a file for writing. A server that may not is unrelated to this
    /// cache.
    fn may_write(&self, file: &Metadata) -> bool {
        let (mode, in_group) = (file.mode(), self.groups.contains(&file.gid()));
        self.user == 0 || self.user == file.uid() || mode & 0o002 != 0 || (mode & 0o020 != 0 && in_group)
    }
}

impl Mapped {
    pub fn look(cache: &Path) -> Mapped {
        let file = std::fs::metadata(cache).ok();
        let may_have_it = |process: &Path| {
            let rights = file.as_ref().zip(Acting::of(process)).is_none_or(|(file, who)| who.may_write(file));
            may_be_a_server(process) && rights
        };
        let mut mapped = Mapped { files: Vec::new(), complete: true };
        let Ok(processes) = std::fs::read_dir("/proc") else {
            mapped.complete = false;
            return mapped;
        };
        for process in processes.flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match std::fs::read(process.path().join("maps")) {
                Ok(maps) => mapped.take(pid, &String::from_utf8_lossy(&maps)),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    mapped.complete &= !may_have_it(&process.path());
                }
                // The process has ended.
                Err(_) => {}
            }
        }
        mapped
    }

    /// Takes lines of `/proc/PID/maps`: range, permissions, offset, device, inode, path. The provider's
    /// mappings are writable and shared.
    fn take(&mut self, pid: u32, maps: &str) {
        for line in maps.lines().filter(|line| line.contains(" rw-s ")) {
            let mut words = line.split_ascii_whitespace().skip(4);
            let Some(inode) = words.next().and_then(|word| word.parse().ok()).filter(|&inode| inode != 0)
            else {
                continue;
            };
            let path: String = words.collect::<Vec<_>>().join(" ");
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            self.files.push((inode, name, pid));
        }
    }

    pub fn by(&self, path: &Path) -> Option<u32> {
        let inode = std::fs::metadata(path).ok()?.ino();
        let name = path.file_name()?.to_string_lossy();
        self.files.iter().find(|(i, n, _)| *i == inode && *n == name).map(|(_, _, pid)| *pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_write_to_a_cache_is_not_its_server() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        let mode = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            file.path().metadata().unwrap()
        };
        let own = Acting::of(Path::new("/proc/self")).unwrap();
        assert_eq!(own.user, rustix::process::geteuid().as_raw());
        assert!(own.groups.contains(&rustix::process::getegid().as_raw()));
        let other = Acting { user: own.user + 1, groups: vec![] };
        let fellow = Acting { user: own.user + 1, groups: own.groups.clone() };
        assert!(own.may_write(&mode(0o640)));
        assert!(!other.may_write(&mode(0o660)) && other.may_write(&mode(0o662)));
        assert!(!fellow.may_write(&mode(0o640)) && fellow.may_write(&mode(0o660)));
    }
}
