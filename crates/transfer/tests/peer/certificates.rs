//! An operator's own CA: both nodes or neither.
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use protocol::message::Message;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rejoin_transfer::cancel::Cancel;
use rejoin_transfer::failure::Kind;
use rejoin_transfer::peer::{Dialer, Established, Listener, OwnCertificates, Terms};

use crate::common::*;

/// A CA with an intermediate, and the files of one node each for "joiner" and "donor"; those of "server" and "client" may be
/// used in that role of TLS only.
struct Authority {
    dir: tempfile::TempDir,
}

fn parameters(name: &str, ca: bool) -> CertificateParams {
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    if ca {
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    parameters
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

impl Authority {
    fn new() -> Authority {
        let dir = tempfile::tempdir().unwrap();
        let (root_key, middle_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root_parameters = parameters("root", true);
        let root = root_parameters.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_parameters, root_key);
        let middle_parameters = parameters("middle", true);
        let middle = middle_parameters.signed_by(&middle_key, &root_issuer).unwrap();
        let issuer = Issuer::new(middle_parameters, middle_key);
        std::fs::write(dir.path().join("ca.pem"), pem("CERTIFICATE", root.der())).unwrap();
        let any: &[ExtendedKeyUsagePurpose] = &[];
        let nodes = [
            ("joiner", any),
            ("donor", any),
            ("server", &[ExtendedKeyUsagePurpose::ServerAuth]),
            ("client", &[ExtendedKeyUsagePurpose::ClientAuth]),
        ];
        for (node, usages) in nodes {
            let key = KeyPair::generate().unwrap();
            let mut parameters = parameters(node, false);
            parameters.extended_key_usages = usages.to_vec();
            let certificate = parameters.signed_by(&key, &issuer).unwrap();
            let chain = pem("CERTIFICATE", certificate.der()) + &pem("CERTIFICATE", middle.der());
            std::fs::write(dir.path().join(format!("{node}.pem")), chain).unwrap();
            std::fs::write(dir.path().join(format!("{node}.key")), pem("PRIVATE KEY", &key.serialize_der()))
                .unwrap();
        }
        Authority { dir }
    }

    fn of(&self, node: &str) -> OwnCertificates {
        let path = |name: &str| Path::join(self.dir.path(), name);
        OwnCertificates {
            ca: vec![path("ca.pem")],
            cert: path(&format!("{node}.pem")),
            key: path(&format!("{node}.key")),
        }
    }
}

type Met = (anyhow::Result<Established>, anyhow::Result<Established>);

fn meet(joiner: Option<OwnCertificates>, donor: Option<OwnCertificates>) -> Met {
    let cancel = Cancel::new();
    let listener =
        Listener::open("127.0.0.1", 0, Terms { certificates: joiner, ..terms() }, &cancel).unwrap();
    let (port, invitation) = (listener.address().port(), listener.invitation().clone());
    let terms = Terms { certificates: donor, ..terms() };
    let dialed = Dialer::new("127.0.0.1", port, invitation, terms, &cancel).unwrap().dial_control(SOON);
    if dialed.is_err() {
        refused(&listener, 1);
    }
    (listener.admit_control(Duration::from_millis(100), &cancel), dialed)
}

#[test]
fn nodes_of_one_ca_meet() {
    let authority = Authority::new();
    let (joiner, donor) = meet(Some(authority.of("joiner")), Some(authority.of("donor")));
    let (mut joiner, mut donor) = (joiner.unwrap(), donor.unwrap());
    donor.link.send(&Message::Ready).unwrap();
    assert_eq!(joiner.link.recv().unwrap(), Message::Ready);
}

#[test]
fn a_certificate_of_one_role_is_not_taken_in_the_other() {
    let authority = Authority::new();
    let (joiner, donor) = meet(Some(authority.of("server")), Some(authority.of("client")));
    assert!(joiner.is_ok() && donor.is_ok(), "{joiner:?} {donor:?}");
    let (_, donor) = meet(Some(authority.of("client")), Some(authority.of("donor")));
    fails(donor, Kind::Refused, "shows a certificate that our CA (ssl-ca) does not accept");
    let (joiner, _) = meet(Some(authority.of("joiner")), Some(authority.of("server")));
    fails(joiner, Kind::Timeout, "the client shows a certificate that our CA (ssl-ca) does not accept");
}

#[test]
fn a_directory_of_authorities() {
    let (authority, other) = (Authority::new(), Authority::new());
    let dir = authority.dir.path().join("authorities");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("README"), "nothing to see").unwrap();
    let by_directory = |node: &str| OwnCertificates { ca: vec![dir.clone()], ..authority.of(node) };
    let cancel = Cancel::new();
    let open = || {
        Listener::open(
            "127.0.0.1",
            0,
            Terms { certificates: Some(by_directory("joiner")), ..terms() },
            &cancel,
        )
    };
    fails(open(), Kind::Configuration, "authorities (ssl-capath): no file in it contains a PEM certificate");
    // As `openssl rehash` leaves it.
    std::fs::copy(&other.of("joiner").ca[0], dir.join("other.pem")).unwrap();
    std::fs::copy(&authority.of("joiner").ca[0], dir.join("ours.pem")).unwrap();
    std::os::unix::fs::symlink("ours.pem", dir.join("0a1b2c3d.0")).unwrap();
    let (joiner, donor) = meet(Some(by_directory("joiner")), Some(by_directory("donor")));
    assert!(joiner.is_ok() && donor.is_ok(), "{joiner:?} {donor:?}");
}

#[test]
fn a_donor_without_a_certificate_is_refused_by_name() {
    let authority = Authority::new();
    let (joiner, donor) = meet(Some(authority.of("joiner")), None);
    fails(joiner, Kind::Timeout, "the client presents no certificate, but this joiner has a CA (ssl-ca)");
    fails(donor, Kind::Refused, "has a CA (ssl-ca) and requires a certificate, but this donor has none");
}

#[test]
fn a_joiner_without_a_certificate_of_the_ca_is_refused_by_name() {
    let authority = Authority::new();
    let (joiner, donor) = meet(None, Some(authority.of("donor")));
    fails(donor, Kind::Refused, "shows a certificate that our CA (ssl-ca) does not accept");
    fails(joiner, Kind::Timeout, "the client does not accept this joiner's certificate");
}

#[test]
fn nodes_of_two_authorities_refuse_each_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (joiner, donor) = meet(Some(ours.of("joiner")), Some(theirs.of("donor")));
    fails(donor, Kind::Refused, "shows a certificate that our CA (ssl-ca) does not accept");
    fails(joiner, Kind::Timeout, "does not accept this joiner's certificate");
    // The donor trusts the joiner's CA, but its own certificate is of another.
    let mixed = OwnCertificates { ca: ours.of("donor").ca, ..theirs.of("donor") };
    let (joiner, donor) = meet(Some(ours.of("joiner")), Some(mixed));
    fails(joiner, Kind::Timeout, "the client shows a certificate that our CA (ssl-ca) does not accept");
    fails(donor, Kind::Refused, "does not accept this donor's certificate");
}

#[test]
fn a_pin_is_checked_although_the_ca_signed() {
    let authority = Authority::new();
    let cancel = Cancel::new();
    let with = |node: &str| Terms { certificates: Some(authority.of(node)), ..terms() };
    let listener = Listener::open("127.0.0.1", 0, with("joiner"), &cancel).unwrap();
    let other = Listener::open("127.0.0.1", 0, with("donor"), &cancel).unwrap();
    let mut invitation = listener.invitation().clone();
    invitation.pin = other.invitation().pin;
    let dialer =
        Dialer::new("127.0.0.1", listener.address().port(), invitation, with("donor"), &cancel).unwrap();
    fails(
        dialer.dial_control(SOON),
        Kind::Refused,
        "presents a different certificate than the invitation names",
    );
}

#[test]
fn unusable_files_are_named() {
    let authority = Authority::new();
    let good = authority.of("joiner");
    let missing = good.cert.with_file_name("missing.pem");
    let open = |certificates| {
        Listener::open("127.0.0.1", 0, Terms { certificates: Some(certificates), ..terms() }, &Cancel::new())
    };
    let kind = Kind::Configuration;
    fails(
        open(OwnCertificates { ca: vec![missing.clone()], ..good.clone() }),
        kind,
        "missing.pem (ssl-ca): No such file",
    );
    fails(open(OwnCertificates { cert: missing.clone(), ..good.clone() }), kind, "missing.pem (ssl-cert)");
    fails(open(OwnCertificates { key: missing, ..good.clone() }), kind, "missing.pem (ssl-key)");
    fails(open(OwnCertificates { key: good.cert.clone(), ..good.clone() }), kind, "joiner.pem (ssl-key)");
    fails(open(OwnCertificates { cert: good.key.clone(), ..good.clone() }), kind, "joiner.key (ssl-cert)");
    let other = authority.of("donor").key;
    fails(open(OwnCertificates { key: other, ..good }), kind, "joiner.pem (ssl-cert)");
}
