//! The written policy (docs/policy.md), line by line.
use rejoin_protocol::message::Logical;
use rejoin_protocol::policy::{Allowed, NodeFacts, SystemFile, compare};

fn node(version: &str) -> NodeFacts {
    NodeFacts {
        server_version: Some(version.into()),
        page_size: 16384,
        lower_case_table_names: 0,
        system_files: vec![SystemFile { size: 12 << 20, autoextend: true }],
        key_plugins: vec![],
        encrypted: None,
    }
}

fn refusals(donor: &NodeFacts, joiner: &NodeFacts) -> Vec<String> {
    compare(donor, joiner, Allowed::default()).refusals
}

#[test]
fn equal_nodes_and_other_patch_levels_agree() {
    let verdict = compare(&node("10.11.19-MariaDB"), &node("10.11.6-MariaDB-1"), Allowed::default());
    assert_eq!((verdict.refusals.len(), verdict.warnings.len()), (0, 0));
}

#[test]
fn an_older_joiner_is_refused_and_a_newer_one_only_when_allowed() {
    assert_eq!(refusals(&node("11.8.6-MariaDB"), &node("10.11.19-MariaDB")).len(), 1);
    assert_eq!(refusals(&node("10.11.19-MariaDB"), &node("11.8.6-MariaDB")).len(), 1);
    let verdict = compare(
        &node("10.11.19-MariaDB"),
        &node("11.8.6-MariaDB"),
        Allowed { upgrade: true, ..Allowed::default() },
    );
    assert_eq!((verdict.refusals.len(), verdict.warnings.len()), (0, 1));
    let verdict = compare(
        &node("11.8.6-MariaDB"),
        &node("10.11.19-MariaDB"),
        Allowed { upgrade: true, ..Allowed::default() },
    );
    assert_eq!(verdict.refusals.len(), 1, "a downgrade is refused whatever is allowed");
}

#[test]
fn an_unknown_version_on_either_side_warns_and_gets_no_redo() {
    let (unknown, known) = (NodeFacts { server_version: None, ..node("") }, node("10.11.19"));
    for (donor, joiner) in [(&unknown, &known), (&known, &unknown), (&unknown, &unknown)] {
        let verdict = compare(donor, joiner, Allowed::default());
        assert_eq!((verdict.refusals.len(), verdict.warnings.len(), verdict.without_redo), (0, 1, true));
    }
    assert!(!compare(&known, &known, Allowed::default()).without_redo);
}

#[test]
fn settings_that_must_match_are_named() {
    let joiner = NodeFacts { page_size: 4096, lower_case_table_names: 1, ..node("10.11.19") };
    let reasons = refusals(&node("10.11.19"), &joiner);
    assert!(reasons.iter().any(|r| r.contains("innodb_page_size=16384")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.contains("lower_case_table_names")), "{reasons:?}");
}

#[test]
fn system_tablespace_files_must_be_as_many_and_as_long() {
    let with = |files: &[(u64, bool)]| NodeFacts {
        system_files: files.iter().map(|&(size, autoextend)| SystemFile { size, autoextend }).collect(),
        ..node("10.11.19")
    };
    let two = with(&[(10, false), (20, true)]);
    assert!(refusals(&two, &with(&[(10, false), (99, true)])).is_empty(), "the last one may have grown");
    assert!(!refusals(&two, &with(&[(11, false), (20, true)])).is_empty());
    assert!(!refusals(&two, &with(&[(10, false)])).is_empty());
    assert!(!refusals(&with(&[(10, false)]), &with(&[(20, false)])).is_empty());
}

#[test]
fn other_key_plugins_warn() {
    let joiner = NodeFacts { key_plugins: vec!["file_key_management".into()], ..node("10.11.19") };
    let verdict = compare(&node("10.11.19"), &joiner, Allowed::default());
    assert_eq!((verdict.refusals.len(), verdict.warnings.len()), (0, 1));
}

#[test]
fn encrypted_data_is_refused_where_nobody_could_open_it() {
    let plugin = || vec!["file_key_management".to_owned()];
    let encrypted = Some("d/t.ibd".to_owned());
    let donor = NodeFacts { key_plugins: plugin(), encrypted: encrypted.clone(), ..node("10.11.19") };
    let verdict = compare(&donor, &node("10.11.19"), Allowed::default());
    assert_eq!((verdict.refusals.len(), verdict.warnings.len()), (1, 0), "{verdict:?}");
    assert!(verdict.refusals[0].contains("(d/t.ibd)") && verdict.refusals[0].contains("plugin_load_add"));
    // Any plugin may have the keys: only a joiner without one is told that it has none.
    let other = NodeFacts { key_plugins: vec!["hashicorp_key_management".to_owned()], ..node("10.11.19") };
    let same = NodeFacts { key_plugins: plugin(), ..node("10.11.19") };
    assert_eq!((refusals(&donor, &other).len(), refusals(&donor, &same).len()), (0, 0));
    // Nothing is encrypted, or the plugin comes with the data.
    let clear = NodeFacts { encrypted: None, ..donor };
    let installed = NodeFacts { key_plugins: vec![], encrypted, ..node("10.11.19") };
    assert_eq!(
        (refusals(&clear, &node("10.11.19")).len(), refusals(&installed, &node("10.11.19")).len()),
        (0, 0)
    );
}

#[test]
fn rows_cross_what_files_cannot() {
    let donor = node("10.11.19-MariaDB");
    let page_size = NodeFacts { page_size: 65536, ..donor.clone() };
    let names = NodeFacts { lower_case_table_names: 1, ..donor.clone() };
    let file = SystemFile { size: 50 << 20, autoextend: false };
    let files = NodeFacts { system_files: vec![file], ..donor.clone() };
    for (joiner, why) in [
        (page_size, "innodb_page_size differs: donor 16384, joiner 65536"),
        (names, "lower_case_table_names differs: donor 0, joiner 1"),
        (files, "innodb_data_file_path differs"),
        (node("11.8.6-MariaDB"), "newer major version"),
        (node("10.6.20-MariaDB"), "older major version"),
    ] {
        for logical in [Logical::IfNeeded, Logical::Always] {
            let verdict = compare(&donor, &joiner, Allowed { logical, ..Allowed::default() });
            assert_eq!((verdict.refusals.len(), verdict.logical.len()), (0, 1), "{verdict:?}");
            assert!(verdict.logical[0].contains(why) && !verdict.logical[0].contains(';'), "{verdict:?}");
        }
        let verdict = compare(&donor, &joiner, Allowed::default());
        assert_eq!((verdict.refusals.len(), verdict.logical.len()), (1, 0), "{verdict:?}");
    }
    let same = compare(&donor, &donor, Allowed { logical: Logical::IfNeeded, ..Allowed::default() });
    assert_eq!((same.refusals, same.logical), (vec![], vec![]));
    // What an operator allows is done with files.
    let allowed = Allowed { upgrade: true, logical: Logical::IfNeeded };
    assert!(compare(&donor, &node("11.8.6-MariaDB"), allowed).logical.is_empty());
}
