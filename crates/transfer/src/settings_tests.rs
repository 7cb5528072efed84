use formats::wsrep::invocation::SstArgs;

use super::*;

fn settings(lines: &str) -> Result<Settings> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.cnf");
    std::fs::write(&file, format!("[sst]\n{lines}\n")).unwrap();
    let defaults_file = Some(file.to_string_lossy().into_owned());
    let options = ServerOptions::load(&SstArgs { defaults_file, ..SstArgs::default() })?;
    Settings::read(&options)
}

fn of(lines: &str) -> Result<RoleCertificates> {
    settings(lines).map(|settings| settings.certificates)
}

fn own(ca: &[&str], cert: &str, key: &str) -> Option<OwnCertificates> {
    let ca = ca.iter().map(PathBuf::from).collect();
    Some(OwnCertificates { ca, cert: cert.into(), key: key.into() })
}

#[test]
fn more_threads_read_for_a_joiner_far_away_unless_the_operator_says_how_many() {
    let readers = |lines: &str, millis| settings(lines).unwrap().readers_over(Duration::from_millis(millis));
    assert_eq!([0, 1, 20, 40, 300].map(|millis| readers("", millis)), [8, 8, 10, 20, 24]);
    assert_eq!([0, 40].map(|millis| readers("threads=4", millis)), [4, 4]);
    assert_eq!([0, 300].map(|millis| readers("threads=16", millis)), [16, 16]);
}

#[test]
fn a_base_command_is_a_program_with_words() {
    let of = |text| BaseCommand::parse(text, None);
    let command = of(" /usr/bin/fetch  --bucket 'my bucket' ").unwrap();
    assert_eq!(command.program(), std::path::Path::new("/usr/bin/fetch"));
    assert_eq!(command.arguments(), ["--bucket", "'my", "bucket'"]);
    for bad in ["", "fetch", "sh -c 'fetch'", "~/fetch"] {
        assert!(of(bad).unwrap_err().to_string().contains("absolute path"), "{bad}");
    }
}

#[test]
fn general_certificates_are_those_of_both_roles() {
    for names in [["ssl-ca", "ssl-cert", "ssl-key"], ["tca", "tcert", "tkey"], ["ssl_ca", "ssl_cert", "tkey"]]
    {
        let [ca, cert, key] = names;
        let both = of(&format!("{ca}=/ca\n{cert}=/c\n{key}=/k")).unwrap();
        let expected = own(&["/ca"], "/c", "/k");
        assert_eq!(both, RoleCertificates { joiner: expected.clone(), donor: expected });
    }
    assert_eq!(of("").unwrap(), RoleCertificates::default());
}

#[test]
fn keys_of_a_role_come_first() {
    let text = "ssl-ca=/ca\nssl-cert=/c\nssl-key=/k\nssl-server-cert=/s\nssl-server-key=/sk\nssl-client-ca=/cca\n\
                ssl-client-capath=/d\nssl-client-cert=/cc\nssl-client-key=/ck";
    let both = of(text).unwrap();
    assert_eq!(both.of(Side::Joiner), own(&["/ca"], "/s", "/sk").as_ref());
    assert_eq!(both.of(Side::Donor), own(&["/cca", "/d"], "/cc", "/ck").as_ref());
    // All eight, and nothing general.
    let role = |role: &str| {
        ["ca", "capath", "cert", "key"].map(|what| format!("ssl-{role}-{what}=/{role}/{what}")).join("\n")
    };
    let both = of(&format!("{}\n{}", role("server"), role("client"))).unwrap();
    assert_eq!(both.joiner, own(&["/server/ca", "/server/capath"], "/server/cert", "/server/key"));
    assert_eq!(both.donor, own(&["/client/ca", "/client/capath"], "/client/cert", "/client/key"));
}

#[test]
fn an_incomplete_set_names_its_role() {
    let error = of("ssl-ca=/ca\nssl-cert=/c").unwrap_err().to_string();
    assert!(error.contains("must be set together"), "{error}");
    let error = of("ssl-ca=/ca\nssl-client-cert=/c\nssl-client-key=/k").unwrap_err().to_string();
    assert!(error.contains("ssl-server-cert") && error.contains("joiner"), "{error}");
    assert!(of("ssl-capath=/ca\nssl-cert=/c\nssl-key=/k").unwrap().joiner.is_some());
}
