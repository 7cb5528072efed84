//! The host's user database, as far as `/etc/passwd` has it.

/// The name of our operating system user, from the user database: `unix_socket` authentication uses it.
pub(crate) fn own_user_name() -> Option<String> {
    name_of_user(rustix::process::geteuid().as_raw())
}

/// The name of a user of this host.
pub(crate) fn name_of_user(uid: u32) -> Option<String> {
    user(|fields| fields.get(2) == Some(&uid.to_string().as_str())).map(|fields| fields.0)
}

/// User and group id of a user of this host, by name or number.
pub(crate) fn user_of_name(name: &str) -> Option<(u32, u32)> {
    let found = user(|fields| fields.first() == Some(&name) || fields.get(2) == Some(&name));
    found.map(|(_, uid, gid, _)| (uid, gid))
}

/// The group of a user of this host.
pub(crate) fn group_of_user(uid: u32) -> Option<u32> {
    user(|fields| fields.get(2) == Some(&uid.to_string().as_str())).map(|fields| fields.2)
}

/// The home directory of a user of this host.
pub(crate) fn home_of_user(uid: u32) -> Option<String> {
    user(|fields| fields.get(2) == Some(&uid.to_string().as_str())).map(|fields| fields.3)
}

/// Name, user id, group id and home directory of the first user for whom `wanted` is true.
fn user(wanted: impl Fn(&[&str]) -> bool) -> Option<(String, u32, u32, String)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields =
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| wanted(fields))?;
    match fields.as_slice() {
        [name, _, uid, gid, _, home, ..] => {
            Some(((*name).to_owned(), uid.parse().ok()?, gid.parse().ok()?, (*home).to_owned()))
        }
        _ => None,
    }
}
