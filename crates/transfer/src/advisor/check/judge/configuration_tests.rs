use super::super::super::Level::{Error, Note, Ok as Fine, Warning};
use super::super::super::facts::{Facts, PortState, Program};
use super::super::fixture::{found, running, set, set_sst, stopped, with_options, with_sst};

#[test]
fn method_and_membership() {
    let rsync = with_options(stopped(), &["--wsrep_sst_method=rsync"]);
    assert!(found(&rsync, "method", Error).contains("rsync"));
    let named = |name: &str| Facts {
        program: Program::Found {
            path: format!("/usr/bin/wsrep_sst_{name}").into(),
            executable: true,
            same: true,
            version: Some("0.1.0".to_owned()),
        },
        ..with_options(stopped(), &[&format!("--wsrep_sst_method={name}")])
    };
    assert!(found(&named("rsync"), "method", Fine).contains("is rejoin"));
    assert!(found(&named("mariabackup"), "method", Error).contains("mariabackup"));
    assert!(found(&named("mysqldump"), "method", Note).contains("the program of this name is rejoin"));
    assert!(found(&named("mysqldump"), "method", Error).contains("wsrep_sst_auth is not set"));
    let text = "--wsrep_sst_method=mysqldump";
    let words = ["--wsrep_sst_auth=a:b", "--secure_file_priv=/var/lib/mysql-files", text];
    let elsewhere = Facts { program: named("mysqldump").program, ..with_options(stopped(), &words) };
    assert!(found(&elsewhere, "method", Error).contains("secure_file_priv = /var/lib/mysql-files"));
    let off = with_options(stopped(), &["--wsrep_on=OFF"]);
    assert!(found(&off, "cluster", Error).contains("wsrep_on"));
    let alone = with_options(stopped(), &["--wsrep_cluster_address=gcomm://"]);
    assert!(found(&alone, "cluster", Warning).contains("new cluster"));
    let nowhere = with_options(stopped(), &["--wsrep_cluster_address="]);
    assert!(found(&nowhere, "cluster", Error).contains("never joins"));
    let mut changed = running();
    set(&mut changed, "wsrep_sst_method", "mariabackup");
    assert!(found(&changed, "method", Warning).contains("do not set"));
    assert!(found(&changed, "pause", Warning).contains("blocking snapshot"));
    let mut abort = running();
    set(&mut abort, "wsrep_mode", "REPLICATE_MYISAM,BF_ABORT_MARIABACKUP");
    assert!(found(&abort, "pause", Warning).contains("BF_ABORT"));
}

#[test]
fn donors() {
    let named = with_options(stopped(), &["--wsrep_sst_donor=n1,n2"]);
    assert!(found(&named, "donor", Warning).contains("does not start"));
    let numbers = with_options(stopped(), &["--wsrep_sst_donor=10.0.0.1,"]);
    assert!(found(&numbers, "donor", Warning).contains("node names"));
    let mut rejects = running();
    set(&mut rejects, "wsrep_sst_donor_rejects_queries", "ON");
    assert!(found(&rejects, "donor", Warning).contains("rejects its clients"));
}

#[test]
fn provider_options_of_deep_ist() {
    use crate::advisor::check::Level::Ok;
    let about = |lines: &str| super::super::judge(&with_sst(lines)).iter().any(|f| f.subject == "deep-ist");
    assert!(!about(""), "nobody asked for it");
    assert!(found(&with_sst("archive=/a\n"), "deep-ist", Note).contains("ist.recv_bind is not set"));
    let set = |options: &str| with_options(stopped(), &[&format!("--wsrep_provider_options={options}")]);
    let half = set("ist.recv_bind=127.0.0.1");
    assert!(found(&half, "deep-ist", Note).contains("ist.recv_addr is not set"));
    let whole = set("ist.recv_bind=127.0.0.1;ist.recv_addr=10.0.0.1");
    assert!(found(&whole, "deep-ist", Ok).contains("10.0.0.1:4568"));
    let encrypted =
        "ist.recv_bind=127.0.0.1;ist.recv_addr=10.0.0.1;socket.ssl_cert=/nowhere/c;socket.ssl_key=k";
    assert!(found(&set(encrypted), "deep-ist", Note).contains("/nowhere/c (socket.ssl_cert)"));
}

#[test]
fn somebody_listens_where_donors_connect() {
    use crate::advisor::check::Level::Ok;
    let with = |facts: Facts, state| {
        let both = ["--wsrep_provider_options=ist.recv_bind=127.0.0.1;ist.recv_addr=10.0.0.1"];
        Facts { relay: Some(state), ..with_options(facts, &both) }
    };
    assert!(found(&with(stopped(), PortState::Taken), "relay", Ok).contains("10.0.0.1:4568"));
    let none = found(&with(stopped(), PortState::Free), "relay", Warning);
    assert!(
        none.contains("without a state transfer")
            && none.contains("rejoin archive run --datadir /var/lib/mysql")
    );
    let mut runs = with(running(), PortState::Free);
    set(&mut runs, "wsrep_provider_options", "ist.recv_bind = 127.0.0.1; ist.recv_addr = 10.0.0.1;");
    assert!(found(&runs, "relay", Warning).contains("this server cannot take IST"));
    let elsewhere = found(&with(stopped(), PortState::NotHere), "relay", Warning);
    assert!(elsewhere.contains("not an address of this host") && !elsewhere.contains("archive run"));
    assert!(!super::super::judge(&stopped()).iter().any(|finding| finding.subject == "relay"));
}

#[test]
fn backups_and_bases() {
    use super::super::super::Level::Ok;
    assert!(found(&stopped(), "backup", Ok).contains("10.11.19"));
    let without =
        |lines: &str| Facts { backup_tool: Err("it is not installed".to_owned()), ..with_sst(lines) };
    assert!(found(&without(""), "backup", Note).contains("blocks the donor's writes"));
    assert!(found(&without("snapshot=auto\n"), "backup", Note).contains("not installed"));
    for chosen in ["online", "online-or-blocking", "blocking", "logical"] {
        let not_used = found(&without(&format!("snapshot={chosen}\n")), "backup", Ok);
        assert!(not_used.contains("not used"), "{chosen}: {not_used}");
    }
    assert!(found(&without("snapshot=mariabackup\n"), "backup", Error).contains("not installed"));
    let mut poor = running();
    set_sst(&mut poor, "snapshot=mariabackup\n");
    assert!(found(&poor, "backup", Ok).contains("10.11.19"));
    super::super::fixture::live(&mut poor).sees_others = false;
    assert!(found(&poor, "backup", Error).contains("PROCESS"));

    let base = with_sst("base-command=/usr/local/bin/fetch --all\n");
    assert!(found(&base, "base-command", Ok).contains("/usr/local/bin/fetch"));
    let gone = Facts { no_base_command: Some("/usr/local/bin/fetch: gone".to_owned()), ..base };
    assert!(found(&gone, "base-command", Error).contains("gone"));
    let both = with_sst("base-command=/usr/local/bin/fetch\nbase=/backup\n");
    assert!(found(&both, "base-command", Note).contains("base is set too"));
    assert!(found(&with_sst("base-command=fetch\n"), "sst", Error).contains("absolute path"));
}

/// `check` called such a node fit, and its first join was refused.
#[test]
fn an_option_with_which_no_transfer_is_taken_is_an_error() {
    let error = found(&with_options(stopped(), &["--innodb_log_archive=ON"]), "options", Error);
    assert!(error.contains("innodb_log_archive=ON") && error.contains("is refused"), "{error}");
    assert!(error.contains("remove the option"), "{error}");
    assert!(found(&with_options(stopped(), &["--innodb_log_archive=OFF"]), "options", Fine).contains("read"));
}

#[test]
fn files_and_our_own_options() {
    assert!(found(&with_sst("threads=99\n"), "sst", Error).contains("threads=99"));
    assert!(found(&with_sst("snapshot=blocking\n"), "sst", Note).contains("blocks writes"));
    assert!(found(&with_sst("allow-corrupt-pages=1\n"), "sst", Warning).contains("corrupt pages"));
    let certificates = "ssl-ca=/nowhere/ca\nssl-cert=/nowhere/c\nssl-key=/nowhere/k\n";
    assert!(found(&with_sst(certificates), "sst", Error).contains("certificates"));
    let of_one_role = "ssl-server-ca=/nowhere/ca\nssl-server-cert=/nowhere/c\nssl-server-key=/nowhere/k\n";
    let findings = super::super::judge(&with_sst(of_one_role));
    assert!(
        findings.iter().any(|f| f.level == Error && f.text.contains("for one role only")),
        "{findings:?}"
    );
    let mut facts = stopped();
    set_sst(&mut facts, "garbage [\n[unclosed\n");
    assert!(found(&facts, "options", Warning).contains("option file"));
    facts.options = Default::default();
    assert!(found(&facts, "options", Warning).contains("no option file"));
    facts.bad_layout = Some("innodb_page_size=\"5\" cannot be used".to_owned());
    assert!(found(&facts, "options", Error).contains("innodb_page_size"));
}
