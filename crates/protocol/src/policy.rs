//! What two nodes must agree on before data is transferred. A pure comparison: both sides log the same texts.
//!
//! The written policy, with reasons, is `docs/policy.md`.
use serde::{Deserialize, Serialize};

use crate::message::Logical;

/// A node's server and settings, as far as the other node must know them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Version text of the server program, for example `10.11.19-MariaDB-0+deb12u1`; `None` if it is not
    /// known.
    pub server_version: Option<String>,
    /// `innodb_page_size` in bytes.
    pub page_size: u32,
    /// `lower_case_table_names`.
    pub lower_case_table_names: u8,
    /// Files of `innodb_data_file_path`, in order.
    pub system_files: Vec<SystemFile>,
    /// Names of the plugins that hold encryption keys (`file_key_management` ...) and are loaded by the
    /// options, sorted.
    pub key_plugins: Vec<String>,
    /// A data file that only a server with the keys can open; `None` if there is none, or nobody searched.
    pub encrypted: Option<String>,
}

/// A file of `innodb_data_file_path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemFile {
    /// Configured size in bytes.
    pub size: u64,
    /// The last file may grow.
    pub autoextend: bool,
}

/// The result of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Reasons to refuse, one sentence each with what to do; empty means the transfer may begin.
    pub refusals: Vec<String>,
    /// Problems that both logs report.
    pub warnings: Vec<String>,
    /// The joiner must get files that need no redo: its server is of a newer series (and that is allowed), or
    /// the series of a server is not known.
    pub without_redo: bool,
    /// Why the joiner cannot use the donor's files, so that it must get definitions and rows. Empty if it can, or if the
    /// donor does not send those: then these are `refusals`.
    pub logical: Vec<String>,
}

impl Verdict {
    /// The joiner's server cannot open the donor's files. `remedy`: what to do where rows are not sent instead.
    fn cannot_open(&mut self, allowed: Allowed, difference: String, remedy: &str) {
        match allowed.logical {
            Logical::Never => self.refusals.push(format!("{difference}; {remedy}")),
            Logical::IfNeeded | Logical::Always => self.logical.push(difference),
        }
    }
}

/// What is possible in addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `allow-upgrade` on the joiner: its server may open files of an older major version.
    pub upgrade: bool,
    /// Whether the donor can send definitions and rows.
    pub logical: Logical,
}

/// Compares a donor with a joiner.
pub fn compare(donor: &NodeFacts, joiner: &NodeFacts, allowed: Allowed) -> Verdict {
    let mut verdict = Verdict::default();
    compare_versions(donor, joiner, allowed, &mut verdict);
    if donor.page_size != joiner.page_size {
        let text =
            format!("innodb_page_size differs: donor {}, joiner {}", donor.page_size, joiner.page_size);
        verdict.cannot_open(
            allowed,
            text,
            &format!("set innodb_page_size={} on the joiner", donor.page_size),
        );
    }
    if donor.lower_case_table_names != joiner.lower_case_table_names {
        let (d, j) = (donor.lower_case_table_names, joiner.lower_case_table_names);
        let text = format!("lower_case_table_names differs: donor {d}, joiner {j}");
        verdict.cannot_open(allowed, text, "set the donor's value on the joiner");
    }
    if let Some(difference) = system_files_differ(&donor.system_files, &joiner.system_files) {
        let text = format!("innodb_data_file_path differs: {difference}");
        verdict.cannot_open(allowed, text, "give the joiner the donor's number and sizes of files");
    }
    compare_keys(donor, joiner, &mut verdict);
    verdict
}

/// If the donor's options name no plugin either, its plugin is installed in `mysql.plugin`, which is part of
/// the data. Then nothing is refused.
fn compare_keys(donor: &NodeFacts, joiner: &NodeFacts, verdict: &mut Verdict) {
    if donor.key_plugins == joiner.key_plugins {
        return;
    }
    if let (Some(file), true) = (&donor.encrypted, joiner.key_plugins.is_empty()) {
        let plugins = donor.key_plugins.join(", ");
        verdict.refusals.push(format!(
            "the donor has encrypted data ({file}) and the joiner's options load no key management plugin, so its server \
             could not open it; load {plugins} with plugin_load_add in the joiner's option file, with the donor's keys"
        ));
    } else {
        verdict.warnings.push(format!(
            "key management plugins differ: donor {:?}, joiner {:?}; encrypted tables can only be opened with the same keys",
            donor.key_plugins, joiner.key_plugins
        ));
    }
}

fn compare_versions(donor: &NodeFacts, joiner: &NodeFacts, allowed: Allowed, verdict: &mut Verdict) {
    let (Some(d), Some(j)) = (series(&donor.server_version), series(&joiner.server_version)) else {
        verdict.without_redo = true;
        verdict.warnings.push(format!(
            "server versions could not be compared (donor {}, joiner {}): the donor sends files without redo to apply, since \
             another series may not be able to read it",
            shown(&donor.server_version),
            shown(&joiner.server_version)
        ));
        return;
    };
    let both = format!("donor {}, joiner {}", shown(&donor.server_version), shown(&joiner.server_version));
    if j < d {
        let text = format!("the joiner's server is of an older major version: {both}");
        verdict.cannot_open(allowed, text, &format!("install {}.{} or newer on the joiner", d.0, d.1));
    } else if j > d && !allowed.upgrade {
        let text = format!("the joiner's server is of a newer major version: {both}");
        let remedy = "to upgrade this node by a state transfer set allow-upgrade=1 under [sst] on it and run mariadb-upgrade \
                      after it joined";
        verdict.cannot_open(allowed, text, remedy);
    } else if j > d {
        verdict.without_redo = true;
        verdict
            .warnings
            .push(format!("upgrade by state transfer: {both}; run mariadb-upgrade on the joiner"));
    }
}

fn shown(version: &Option<String>) -> &str {
    version.as_deref().unwrap_or("unknown")
}

/// Major and minor number of a version text.
pub fn series(version: &Option<String>) -> Option<(u32, u32)> {
    let mut numbers = version.as_deref()?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn system_files_differ(donor: &[SystemFile], joiner: &[SystemFile]) -> Option<String> {
    if donor.len() != joiner.len() {
        return Some(format!("{} files on the donor, {} on the joiner", donor.len(), joiner.len()));
    }
    let last = donor.len().saturating_sub(1);
    for (index, (d, j)) in donor.iter().zip(joiner).enumerate() {
        // The last file's size counts only if the file cannot grow: an autoextend file may have any length.
        let same = if index == last { d.autoextend && j.autoextend || d == j } else { d.size == j.size };
        if !same {
            return Some(format!(
                "file {} is {} bytes on the donor, {} on the joiner",
                index + 1,
                d.size,
                j.size
            ));
        }
    }
    None
}
