//! Which certificates either side accepts: TLS 1.3 only, no resumption, no early data, one ALPN.
//!
//! The donor always checks the pin, which identifies the joiner's exact certificate. An operator's CA is
//! checked in addition, by both sides or neither: a side with a CA requires a certificate of that CA from the
//! other, and reports if the other has none. Names in certificates are not checked, because the pin is
//! stricter than any name.
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::own_certificates::{Loaded, OwnCertificates, unusable};
use super::secret::{Pin, TransferSecret};
use super::side::Side;
use crate::failure::{Failure, Kind};

/// The one application protocol that both sides require.
pub const ALPN: &[u8] = b"rejoin";

const CONFIGURE: &str = "set ssl-ca, ssl-cert and ssl-key under [sst] on both nodes, or on neither";

/// The algorithms of all our connections.
pub(crate) fn crypto() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // AES-128 first: it is strong enough, and the fastest of the three on processors with AES instructions.
    use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.retain(|suite| suite.suite() != TLS13_AES_128_GCM_SHA256.suite());
    provider.cipher_suites.insert(0, TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}

/// The joiner's configuration and the pin of the certificate it presents.
pub fn server(own: Option<&OwnCertificates>) -> Result<(Arc<ServerConfig>, Pin)> {
    let builder = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3 is not available")?;
    let (mut config, pin) = match own {
        Some(own) => {
            let Loaded { roots, chain, key } = own.load()?;
            let pin = Pin::of_certificate(chain.first().map(AsRef::as_ref).unwrap_or_default());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, crypto())
                .build()
                .map_err(|e| unusable(own.first_authority(), "ssl-ca", e))?;
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
    let mut config = client_that_expects(own, Some(pin))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The donor's configuration for the SQL port of a running joiner's server, of whose certificate nothing is known: with a CA of the
/// operator's, one that it signed; otherwise any.
pub fn client_of_server(own: Option<&OwnCertificates>) -> Result<Arc<ClientConfig>> {
    Ok(Arc::new(client_that_expects(own, None)?))
}

fn client_that_expects(own: Option<&OwnCertificates>, pin: Option<Pin>) -> Result<ClientConfig> {
    let loaded = own.map(OwnCertificates::load).transpose()?;
    let provider = crypto();
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
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The name that the donor requests from the joiner: a token of the transfer's secret, never a name in a
/// certificate.
pub fn server_name(secret: &TransferSecret) -> Result<ServerName<'static>> {
    ServerName::try_from(secret.token()?).context("a token is a host name")
}

/// Accepts the one certificate with this pin (without one, any), and with a CA only if the CA signed it.
#[derive(Debug)]
struct PinVerifier {
    pin: Option<Pin>,
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
        if self.pin.as_ref().is_some_and(|pin| Pin::of_certificate(end_entity) != *pin) {
            // Only the pin uses this error: no other code of ours or of rustls uses it for a server.
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        match &self.roots {
            Some(roots) => signed_by(roots, &self.provider, end_entity, intermediates, now),
            None => Ok(ServerCertVerified::assertion()),
        }
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

/// Verifies that one of these authorities has signed a server's certificate, whatever its name is.
pub(crate) fn signed_by(
    roots: &RootCertStore,
    provider: &CryptoProvider,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<ServerCertVerified, rustls::Error> {
    let certificate = ParsedCertificate::try_from(end_entity)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
    Ok(ServerCertVerified::assertion())
}

/// Explains a TLS failure to the operator of `side`, whose peer is `peer` ("the donor at H:P").
pub fn explain(error: &rustls::Error, side: Side, peer: &str) -> Failure {
    use AlertDescription as Alert;
    use rustls::Error;
    let refused = |text: String| Failure::new(Kind::Refused, text);
    match (error, side) {
        (Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure), Side::Donor) => {
            refused(format!("{peer} presents a different certificate than the invitation names"))
                .hint("another program listens on this address, or somebody intercepts the connection")
        }
        (Error::InvalidCertificate(why), Side::Donor) => {
            refused(format!("{peer} shows a certificate that our CA (ssl-ca) does not accept: {why}"))
                .hint(format!("{CONFIGURE}; here the joiner's are missing or of another CA"))
        }
        (Error::NoCertificatesPresented, Side::Joiner) => {
            refused(format!("{peer} presents no certificate, but this joiner has a CA (ssl-ca)"))
                .hint(format!("{CONFIGURE}; here the donor's are missing"))
        }
        (Error::InvalidCertificate(why), Side::Joiner) => {
            refused(format!("{peer} shows a certificate that our CA (ssl-ca) does not accept: {why}"))
                .hint(format!("{CONFIGURE}; here the donor's are of another CA"))
        }
        (Error::AlertReceived(Alert::CertificateRequired), Side::Donor) => {
            refused(format!("{peer} has a CA (ssl-ca) and requires a certificate, but this donor has none"))
                .hint(format!("{CONFIGURE}; here the donor's are missing"))
        }
        (Error::AlertReceived(Alert::UnrecognisedName), Side::Donor) => {
            refused(format!("{peer} refused us: the secret is not that of this transfer"))
                .hint("the request was meant for another joiner, or for an earlier start of this one")
        }
        (Error::AlertReceived(Alert::AccessDenied), Side::Joiner) => refused(format!(
            "{peer} got a different certificate than its invitation names"
        ))
        .hint("somebody intercepts the connection, or the donor's request was meant for another joiner"),
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
            refused(format!("{peer} offers no TLS 1.3 parameters that this program supports ({why:?})"))
        }
        (Error::AlertReceived(Alert::ProtocolVersion), _) => {
            refused(format!("{peer} requires another version of TLS"))
        }
        (Error::NoApplicationProtocol | Error::AlertReceived(Alert::NoApplicationProtocol), _) => {
            refused(format!("{peer} speaks TLS, but not the rejoin protocol (ALPN)"))
        }
        (Error::InvalidMessage(why), _) => refused(format!("{peer} sends bytes that are not TLS ({why:?})")),
        (other, _) => Failure::new(Kind::Peer, format!("the TLS connection with {peer} broke: {other}")),
    }
}
