//! What is accepted as a certificate on either side: TLS 1.3 only, no resumption, no early data, one ALPN.
//!
//! The donor always checks the pin, which names the joiner's exact certificate. An operator's CA is checked in
//! addition, both or neither: a side that has one wants a certificate of that CA from the other, and says so when
//! the other has none. Names in certificates are not looked at: the pin is narrower than any name.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::Side;
use super::secret::Pin;
use crate::failure::{Failure, Kind};

/// The one application protocol both sides insist on.
pub const ALPN: &[u8] = b"rejoin";

const CONFIGURE: &str = "set ssl-ca, ssl-cert and ssl-key under [sst] on both nodes, or on neither";

/// The operator's certificates, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificates {
    /// The certificates of the CA that both nodes trust.
    pub ca: PathBuf,
    /// This node's certificate, then its intermediates.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

struct Loaded {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl OwnCertificates {
    fn load(&self) -> Result<Loaded> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca, "ssl-ca")? {
            roots.add(certificate).map_err(|e| unusable(&self.ca, "ssl-ca", e))?;
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|e| unusable(&self.key, "ssl-key", words(e)))?;
        Ok(Loaded { roots: Arc::new(roots), chain: certificates(&self.cert, "ssl-cert")?, key })
    }
}

fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let all = all.map_err(|e| unusable(path, option, words(e)))?;
    if all.is_empty() {
        return Err(unusable(path, option, "it holds no PEM certificate").into());
    }
    Ok(all)
}

/// The library's words for a PEM problem are meant for programmers.
fn words(error: rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(e) => e.to_string(),
        Error::NoItemsFound => {
            "it holds no PEM section of this kind (an encrypted key is not supported)".into()
        }
        e => format!("{e:?}"),
    }
}

fn unusable(path: &Path, option: &str, why: impl std::fmt::Display) -> Failure {
    Failure::new(Kind::Configuration, format!("cannot use {} ({option}): {why}", path.display()))
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // AES-128 first: as safe for this, and the fastest of the three on processors with AES instructions.
    use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.retain(|suite| suite.suite() != TLS13_AES_128_GCM_SHA256.suite());
    provider.cipher_suites.insert(0, TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The joiner's configuration and the pin of the certificate it presents.
pub fn server(own: Option<&OwnCertificates>) -> Result<(Arc<ServerConfig>, Pin)> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?;
    let (mut config, pin) = match own {
        Some(own) => {
            let Loaded { roots, chain, key } = own.load()?;
            let pin = Pin::of_certificate(chain.first().map(AsRef::as_ref).unwrap_or_default());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .build()
                .map_err(|e| unusable(&own.ca, "ssl-ca", e))?;
            let config = builder
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)
                .map_err(|e| unusable(&own.cert, "ssl-cert", e))?;
            (config, pin)
        }
        None => {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
                .context("cannot make a key for the transfer")?;
            let certificate = rcgen::CertificateParams::new(vec!["rejoin.invalid".to_owned()])
                .and_then(|params| params.self_signed(&key))
                .context("cannot make a certificate for the transfer")?;
            let pin = Pin::of_certificate(certificate.der());
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            let config = builder
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .context("cannot use the certificate made for the transfer")?;
            (config, pin)
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok((Arc::new(config), pin))
}

/// The donor's configuration for the joiner with this pin.
pub fn client(own: Option<&OwnCertificates>, pin: Pin) -> Result<Arc<ClientConfig>> {
    let loaded = own.map(OwnCertificates::load).transpose()?;
    let provider = provider();
    let verifier = PinVerifier {
        pin,
        roots: loaded.as_ref().map(|loaded| loaded.roots.clone()),
        provider: provider.clone(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match (loaded, own) {
        (Some(Loaded { chain, key, .. }), Some(own)) => {
            builder.with_client_auth_cert(chain, key).map_err(|e| unusable(&own.cert, "ssl-cert", e))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The name the donor gives the joiner; never sent and never compared.
pub fn server_name() -> Result<ServerName<'static>> {
    ServerName::try_from("rejoin.invalid").context("a constant name is valid")
}

/// Accepts the one certificate with this pin, and with a CA only if the CA signed it.
#[derive(Debug)]
struct PinVerifier {
    pin: Pin,
    roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Pin::of_certificate(end_entity) != self.pin {
            // This error alone stands for the pin: no other code of ours or of rustls uses it for a server.
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Says what a TLS failure means to the operator of `side`, whose peer is `peer` ("the donor at H:P").
pub fn explain(error: &rustls::Error, side: Side, peer: &str) -> Failure {
    use AlertDescription as Alert;
    use rustls::Error;
    let refused = |text: String| Failure::new(Kind::Refused, text);
    match (error, side) {
        (Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure), Side::Donor) => {
            refused(format!("{peer} shows another certificate than the invitation names"))
                .hint("another program listens on this address, or somebody is in between")
        }
        (Error::InvalidCertificate(why), Side::Donor) => {
            refused(format!("{peer} shows a certificate that our CA (ssl-ca) does not accept: {why}"))
                .hint(format!("{CONFIGURE}; here the joiner's are missing or of another CA"))
        }
        (Error::NoCertificatesPresented, Side::Joiner) => {
            refused(format!("{peer} shows no certificate, and this joiner has a CA (ssl-ca)"))
                .hint(format!("{CONFIGURE}; here the donor's are missing"))
        }
        (Error::InvalidCertificate(why), Side::Joiner) => {
            refused(format!("{peer} shows a certificate that our CA (ssl-ca) does not accept: {why}"))
                .hint(format!("{CONFIGURE}; here the donor's are of another CA"))
        }
        (Error::AlertReceived(Alert::CertificateRequired), Side::Donor) => {
            refused(format!("{peer} has a CA (ssl-ca) and wants a certificate, this donor has none"))
                .hint(format!("{CONFIGURE}; here the donor's are missing"))
        }
        (Error::AlertReceived(Alert::AccessDenied), Side::Joiner) => {
            refused(format!("{peer} was shown another certificate than the invitation names"))
                .hint("somebody is in between, or the donor's request was for another joiner")
        }
        (
            Error::AlertReceived(
                alert @ (Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRevoked
                | Alert::UnsupportedCertificate
                | Alert::DecryptError),
            ),
            _,
        ) => refused(format!("{peer} does not accept this {}'s certificate ({alert:?})", side.name()))
            .hint(format!("{CONFIGURE}; all of one CA")),
        (Error::PeerIncompatible(why), _) => {
            refused(format!("{peer} offers no TLS 1.3 that this program can speak ({why:?})"))
        }
        (Error::AlertReceived(Alert::ProtocolVersion), _) => {
            refused(format!("{peer} wants another version of TLS"))
        }
        (Error::NoApplicationProtocol | Error::AlertReceived(Alert::NoApplicationProtocol), _) => {
            refused(format!("{peer} speaks TLS, but not the rejoin protocol (ALPN)"))
        }
        (Error::InvalidMessage(why), _) => refused(format!("{peer} sends bytes that are not TLS ({why:?})")),
        (other, _) => Failure::new(Kind::Peer, format!("the TLS connection with {peer} broke: {other}")),
    }
}
