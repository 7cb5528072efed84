//! The installed method, provider and server, and whether they are compatible (docs/policy.md).
use protocol::policy::series;

use super::super::Findings;
use super::super::facts::{Facts, Program};
use crate::snapshot::online::log_file::CIRCULAR_SINCE;

/// Server series that every release is tested with.
const TESTED: [(u32, u32); 2] = [(10, 11), (11, 8)];
/// The provider that is tested: 26.4, or 4 without the API's number in front.
const PROVIDER: &str = "4.";
/// Version of the wsrep API.
const API: &str = "26";

/// Adds the findings.
pub(super) fn judge(facts: &Facts, findings: &mut Findings) {
    program(facts, findings);
    server(facts, findings);
    provider(facts, findings);
}

fn program(facts: &Facts, findings: &mut Findings) {
    const FIX: &str = "install the same release on every node: make install PREFIX=/usr";
    let own = env!("CARGO_PKG_VERSION");
    match &facts.program {
        Program::Missing { searched } => {
            let places: Vec<String> = searched.iter().map(|dir| dir.display().to_string()).collect();
            findings.error(
                "program",
                format!(
                    "wsrep_sst_rejoin is in none of the directories that the server searches: {}",
                    places.join(", ")
                ),
                FIX,
            );
        }
        Program::Found { path, executable: false, .. } => findings.error(
            "program",
            format!("{} exists, but the server's user may not run it", path.display()),
            format!("chmod 755 {}, and check who may enter its directory", path.display()),
        ),
        Program::Found { path, same: true, .. } => {
            findings.ok("program", format!("{} is this one, {own}", path.display()))
        }
        Program::Found { path, version: None, .. } => findings.error(
            "program",
            format!("the server finds {} first, which is not rejoin", path.display()),
            "move it away: the server searches basedir/bin, then its PATH",
        ),
        Program::Found { path, version: Some(version), .. } => findings.warning(
            "program",
            format!("{} is another build, {version}; this is {own}", path.display()),
            FIX,
        ),
    }
}

fn server(facts: &Facts, findings: &mut Findings) {
    let Some(text) = &facts.version else {
        return findings.note(
            "version",
            "the server program was not found, so its version is not known",
            "set basedir to the server's installation, or check again while it runs",
        );
    };
    match series(&facts.version) {
        Some(series) if TESTED.contains(&series) => findings.ok("version", format!("MariaDB {text}")),
        Some(series) if series < CIRCULAR_SINCE => findings.warning(
            "version",
            format!(
                "MariaDB {text}: its redo log cannot be followed, so it can donate only with the blocking snapshot"
            ),
            "upgrade to 10.11",
        ),
        _ => findings.warning(
            "version",
            format!("rejoin is not tested with {text}, only with 10.11 and 11.8"),
            "try a join on a test cluster first; see compatible versions in docs/policy.md",
        ),
    }
}

fn provider(facts: &Facts, findings: &mut Findings) {
    const FIX: &str = "wsrep_provider = /usr/lib/galera/libgalera_smm.so (package galera-4)";
    let path = match &facts.provider {
        None => {
            return findings.error(
                "provider",
                "wsrep_provider is not set: the server is not a member of a cluster",
                FIX,
            );
        }
        Some((path, Some(why))) => {
            return findings.error("provider", format!("wsrep_provider = {}: {why}", path.display()), FIX);
        }
        Some((path, None)) => path,
    };
    let Some(live) = facts.live() else { return findings.ok("provider", path.display().to_string()) };
    let version = live.status.get("wsrep_provider_version").map_or("", String::as_str);
    let plain = version.strip_prefix("26.").unwrap_or(version);
    if !plain.starts_with(PROVIDER) {
        findings.warning(
            "provider",
            format!("wsrep_provider_version is {version:?}; rejoin is tested with Galera 26.4"),
            "upgrade to galera-4",
        );
    }
    let api = live.variables.get("wsrep_patch_version").map_or("", String::as_str);
    if !api.trim_start_matches("wsrep_").starts_with(API) {
        findings.warning(
            "provider",
            format!("wsrep_patch_version is {api:?}; rejoin is tested with the wsrep API {API}"),
            "try a join on a test cluster first",
        );
    }
    findings.ok_if_clean("provider", format!("Galera {version}, {api}"));
}

#[cfg(test)]
mod tests {
    use super::super::super::Level::{Error, Note, Warning};
    use super::super::fixture::{found, live, running, set, stopped};
    use super::*;
    use std::path::PathBuf;

    fn with(program: Program) -> Facts {
        Facts { program, ..stopped() }
    }

    #[test]
    fn the_program_the_server_finds() {
        let path = PathBuf::from("/usr/bin/wsrep_sst_rejoin");
        let other = |executable, version: Option<&str>| {
            let version = version.map(str::to_owned);
            with(Program::Found { path: path.clone(), executable, same: false, version })
        };
        let missing = with(Program::Missing { searched: vec!["/usr/bin".into(), "/bin".into()] });
        assert!(found(&missing, "program", Error).contains("/usr/bin, /bin"));
        assert!(found(&other(false, None), "program", Error).contains("may not run it"));
        assert!(found(&other(true, None), "program", Error).contains("not rejoin"));
        assert!(found(&other(true, Some("0.0.9")), "program", Warning).contains("0.0.9"));
    }

    #[test]
    fn versions() {
        let of = |text: &str| Facts { version: Some(text.to_owned()), ..stopped() };
        assert!(found(&of("10.6.20-MariaDB"), "version", Warning).contains("blocking snapshot"));
        assert!(found(&of("12.1.2-MariaDB"), "version", Warning).contains("not tested with"));
        assert!(found(&Facts { version: None, ..stopped() }, "version", Note).contains("not known"));
    }

    #[test]
    fn providers() {
        assert!(found(&Facts { provider: None, ..stopped() }, "provider", Error).contains("not set"));
        let gone = Some((PathBuf::from("/x.so"), Some("No such file".to_owned())));
        assert!(found(&Facts { provider: gone, ..stopped() }, "provider", Error).contains("No such file"));
        let mut old = running();
        live(&mut old).status.insert("wsrep_provider_version".to_owned(), "25.3.37".to_owned());
        assert!(found(&old, "provider", Warning).contains("25.3.37"));
        let mut api = running();
        set(&mut api, "wsrep_patch_version", "wsrep_25.24");
        assert!(found(&api, "provider", Warning).contains("API 26"));
    }
}
