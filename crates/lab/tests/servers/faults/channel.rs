//! Strangers at a joiner's port: the waiting joiner's program refuses them, and the real donor completes its transfer nevertheless.
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rejoin_lab::{Cluster, compare};
use rustls::pki_types::ServerName;

use super::fake::Ended;
use super::fake_transfer::{Fakes, SOON};
use super::pair::set_sst;

#[test]
fn strangers_are_refused_and_the_donor_completes() -> Result<()> {
    let fakes = Fakes::with_history()?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let port = fakes.joiner().ports().sst();

    plain_text(port)?;
    other_tls(port)?;
    let (user, password) = auth.split_once(':').context("AUTH")?;
    let (secret, pin) = password.split_once('.').context("secret and pin")?;
    let wrong = |text: &str| format!("{}{}", if text.starts_with('A') { 'B' } else { 'A' }, &text[1..]);
    let wrong_secret = fakes.bypass(&address, &format!("{user}:{}.{pin}", wrong(secret)))?.end(SOON)?;
    refused(&wrong_secret, "the secret is not that of this transfer")?;
    let wrong_pin = fakes.bypass(&address, &format!("{user}:{secret}.{}", wrong(pin)))?.end(SOON)?;
    refused(&wrong_pin, "a different certificate than the invitation names")?;
    let without = fakes.donor_call(fakes.donor_line(&address, 0, ""), "").start()?.end(SOON)?;
    refused(&without, "secret")?;

    // The real donor connects through an eavesdropper, and waits until its server stands still.
    let (tap, recorded) = tap(port)?;
    let through = address.replace(&format!(":{port}"), &format!(":{tap}"));
    let mut donor = fakes.full(&through, &auth)?;
    assert_eq!(donor.line(SOON)?, "flush tables");
    let mut second = Fakes::of(Cluster::builder().nodes(2))?;
    let of_second = second.cluster.node(1).datadir();
    let line = fakes.donor_line(&address, 0, "--bypass");
    let line = line.replace(&fakes.donor().datadir().display().to_string(), &of_second.display().to_string());
    let call = super::fake::Call::new(line, &of_second).env("WSREP_SST_OPT_AUTH", "");
    let other = call.env("WSREP_SST_OPT_REMOTE_AUTH", &auth).start()?.end(SOON)?;
    refused(&other, "another donor is already connected")?;
    second.server().kill()?;
    replay(port, &recorded.lock().map_err(|_| anyhow::anyhow!("the tap died"))?)?;

    fakes.stand_still()?;
    let donor = donor.end(SOON)?;
    let joiner = joiner.end(SOON)?;
    assert_eq!(donor.stdout.last(), Some(&format!("done {} 0", fakes.still_at)), "{}", donor.stderr);
    assert_eq!(joiner.stdout.last(), Some(&format!("{} 0", fakes.still_at)), "{}", joiner.stderr);
    for reason in [
        "speaks plain text, not TLS (first bytes \"GET / HTTP",
        "does not request the rejoin protocol (ALPN)",
        "the secret is not that of this transfer",
        "got a different certificate than its invitation names",
        "another donor is already connected",
    ] {
        let named = |l: &str| l.contains("refused a connection from 127.0.0.1:") && l.contains(reason);
        ensure!(joiner.stderr.lines().any(named), "{reason:?} is not in\n{}", joiner.stderr);
    }
    let refusals = joiner.stderr.lines().filter(|l| l.contains("refused a connection")).count();
    assert_eq!(refusals, 6, "the sixth is the replay\n{}", joiner.stderr);
    fakes.nothing_is_left()
}

fn refused(ended: &Ended, reason: &str) -> Result<()> {
    ensure!(ended.code != Some(0), "{ended:?}");
    ensure!(!ended.stdout.iter().any(|l| l.starts_with("done")), "{ended:?}");
    ensure!(ended.stderr.contains(reason), "{reason:?} is not in {}", ended.stderr);
    Ok(())
}

fn connect(port: u16) -> Result<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

fn plain_text(port: u16) -> Result<()> {
    let mut client = connect(port)?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let _ = client.read_to_end(&mut Vec::new());
    Ok(())
}

/// Any TLS 1.3 client: it takes every certificate and knows nothing of rejoin.
fn other_tls(port: u16) -> Result<()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone());
    let config = builder
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("anything.invalid")?;
    let client = rustls::ClientConnection::new(Arc::new(config), name)?;
    let mut stream = rustls::StreamOwned::new(client, connect(port)?);
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
    let _ = stream.read_to_end(&mut Vec::new());
    Ok(())
}

#[derive(Debug)]
struct Gullible(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Passes every connection on to `port`, and records what the first client sends.
fn tap(port: u16) -> Result<(u16, Arc<Mutex<Vec<u8>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (at, recorded) = (listener.local_addr()?.port(), Arc::new(Mutex::new(Vec::new())));
    let first = Arc::clone(&recorded);
    std::thread::spawn(move || {
        for (n, client) in listener.incoming().map_while(Result::ok).enumerate() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let keep = (n == 0).then(|| Arc::clone(&first));
            let (Ok(up), Ok(down)) = (client.try_clone(), server.try_clone()) else { return };
            std::thread::spawn(move || pass(client, server, keep));
            std::thread::spawn(move || pass(down, up, None));
        }
    });
    Ok((at, recorded))
}

fn pass(mut from: TcpStream, mut to: TcpStream, keep: Option<Arc<Mutex<Vec<u8>>>>) {
    let mut buffer = [0; 65536];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if let Some(Ok(mut kept)) = keep.as_ref().map(|k| k.lock()) {
            kept.extend_from_slice(&buffer[..n]);
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// Sends again what the real donor sent, byte by byte.
fn replay(port: u16, recorded: &[u8]) -> Result<()> {
    ensure!(recorded.len() > 200, "the tap recorded {} bytes", recorded.len());
    let mut client = connect(port)?;
    client.write_all(recorded)?;
    let _ = client.read_to_end(&mut Vec::new());
    Ok(())
}

/// A CA and certificates of it, one for each of these pairs of a prefix of the keys and its purpose: the lines for `[sst]`.
fn certificates(dir: &Path, name: &str, of: &[(&str, &[ExtendedKeyUsagePurpose])]) -> Result<Vec<String>> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(vec![])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = pem("CERTIFICATE", authority.self_signed(&authority_key)?.der());
    let issuer = Issuer::new(authority, authority_key);
    let file = |kind: &str, text: String| -> Result<String> {
        let path: PathBuf = dir.join(format!("{name}-{kind}.pem"));
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let mut lines = vec![format!("ssl-ca={}", file("ca", authority_pem)?)];
    for (prefix, usages) in of {
        let key = KeyPair::generate()?;
        let mut certificate = CertificateParams::new(vec![format!("{name}.invalid")])?;
        certificate.extended_key_usages = usages.to_vec();
        let certificate = pem("CERTIFICATE", certificate.signed_by(&key, &issuer)?.der());
        let key = pem("PRIVATE KEY", &key.serialize_der());
        lines.push(format!("{prefix}-cert={}", file(&format!("{prefix}-cert"), certificate)?));
        lines.push(format!("{prefix}-key={}", file(&format!("{prefix}-key"), key)?));
    }
    Ok(lines)
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn an_operators_own_ca_on_both_nodes_or_on_neither() -> Result<()> {
    let fakes = Fakes::with_history()?;
    let ours = certificates(fakes.cluster.dir(), "ours", &[("ssl", &[])])?;
    let theirs = certificates(fakes.cluster.dir(), "theirs", &[("ssl", &[])])?;
    let (ours, theirs): (Vec<&str>, Vec<&str>) =
        (ours.iter().map(String::as_str).collect(), theirs.iter().map(String::as_str).collect());

    fakes.set_sst(&ours)?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let donor = fakes.serve(fakes.full(&address, &auth)?)?;
    let joiner = joiner.end(SOON)?;
    assert_eq!((donor.code, joiner.code), (Some(0), Some(0)), "{}{}", donor.stderr, joiner.stderr);

    let cases: [(&[&str], &[&str], &str, &str); 3] = [
        (
            &ours,
            &[],
            "presents no certificate, but this joiner has a CA",
            "requires a certificate, but this donor has none",
        ),
        (&[], &ours, "does not accept this joiner's certificate", "that our CA (ssl-ca) does not accept"),
        (&ours, &theirs, "does not accept", "does not accept"),
    ];
    for (of_joiner, of_donor, joiner_says, donor_says) in cases {
        let waits_little = ["sst-initial-timeout=6"];
        set_sst(fakes.joiner(), &[of_joiner, &waits_little[..]].concat())?;
        set_sst(fakes.donor(), of_donor)?;
        let (joiner, auth, address) = fakes.joiner_ready()?;
        let donor = fakes.full(&address, &auth)?.end(SOON)?;
        refused(&donor, donor_says)?;
        ensure!(donor.stderr.contains("hint: set ssl-ca"), "{}", donor.stderr);
        let joiner = joiner.end(SOON)?;
        refused(&joiner, joiner_says)?;
        fakes.nothing_is_left()?;
    }
    let missing = ["ssl-ca=/nowhere/ca.pem", "ssl-cert=/nowhere/c.pem", "ssl-key=/nowhere/k.pem"];
    set_sst(fakes.joiner(), &missing)?;
    let line = fakes.joiner_line("127.0.0.1", 0);
    let joiner = super::fake::Call::new(line, &fakes.joiner().datadir()).start()?.end(SOON)?;
    ensure!(joiner.stdout.is_empty(), "{joiner:?}");
    refused(&joiner, "/nowhere/ca.pem (ssl-ca)")
}

/// Both sets are on both nodes. Each certificate permits one role only, so that a mistake cannot pass.
#[test]
fn certificates_of_each_role() -> Result<()> {
    let fakes = Fakes::with_history()?;
    let (server, client) = ([ExtendedKeyUsagePurpose::ServerAuth], [ExtendedKeyUsagePurpose::ClientAuth]);
    let lines =
        certificates(fakes.cluster.dir(), "roles", &[("ssl-server", &server), ("ssl-client", &client)])?;
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    fakes.set_sst(&lines)?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    let donor = fakes.serve(fakes.full(&address, &auth)?)?;
    let joiner = joiner.end(SOON)?;
    assert_eq!((donor.code, joiner.code), (Some(0), Some(0)), "{}{}", donor.stderr, joiner.stderr);

    // One certificate for everything is none for either role.
    let general: Vec<String> = lines.iter().map(|line| line.replacen("ssl-client", "ssl", 1)).collect();
    let general: Vec<&str> =
        general.iter().map(String::as_str).filter(|line| !line.starts_with("ssl-server")).collect();
    fakes.set_sst(&[&general[..], &["sst-initial-timeout=6"]].concat())?;
    let (joiner, auth, address) = fakes.joiner_ready()?;
    refused(&fakes.full(&address, &auth)?.end(SOON)?, "that our CA (ssl-ca) does not accept")?;
    refused(&joiner.end(SOON)?, "does not accept this joiner's certificate")
}

#[test]
fn real_nodes_meet_over_ipv6_and_by_name() -> Result<()> {
    let cluster = Cluster::builder().nodes(2).build()?;
    let (donor, joiner) = (cluster.node(1), cluster.node(2));
    donor.bootstrap()?;
    let option_file = fs::read_to_string(joiner.option_file())?;
    let port = joiner.ports().sst();
    for host in ["[::1]", "localhost"] {
        let text = option_file.replace(
            &format!("wsrep_sst_receive_address=127.0.0.1:{port}"),
            &format!("wsrep_sst_receive_address={host}:{port}"),
        );
        ensure!(text != option_file, "the option file has no such line");
        fs::write(joiner.option_file(), text)?;
        joiner.wipe()?;
        joiner.join().with_context(|| host.to_owned())?;
        compare::wait_caught_up(donor, joiner, SOON)?;
        joiner.stop()?;
    }
    ensure!(donor.log_text().contains("connected to the joiner at [::1]:"), "by IPv6");
    ensure!(donor.log_text().contains("connected to the joiner at localhost:"), "by name");
    Ok(())
}
