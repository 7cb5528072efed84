//! TLS as providers speak it on their own sockets (`socket.ssl_*`), for both ends of the relay.
//!
//! A provider presents `socket.ssl_cert` in either role, demands a certificate of its peer in either role, and verifies it with
//! the certificates of `socket.ssl_ca` (of `socket.ssl_cert`, where that is not set). Names are not looked at. So a group may
//! have one self-signed certificate on all nodes, which no library for the web accepts as that of a server: a certificate that
//! is itself among the trusted ones is accepted here.
use std::sync::Arc;

use anyhow::Result;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, RootCertStore,
    ServerConfig, SignatureScheme,
};

use crate::peer::own_certificates::{certificates, unusable, words};
use crate::peer::tls::{crypto, signed_by};
use crate::server::ist_endpoints::SocketCertificates;

/// Both roles, with what is in the files now.
#[derive(Debug, Clone)]
pub(super) struct SocketTls {
    /// Towards donors.
    pub server: Arc<ServerConfig>,
    /// Towards our own provider.
    pub client: Arc<ClientConfig>,
}

impl SocketTls {
    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read or used.
    pub fn load(files: &SocketCertificates) -> Result<SocketTls> {
        const CERT: &str = "socket.ssl_cert";
        const KEY: &str = "socket.ssl_key";
        let SocketCertificates { cert, key, ca } = files;
        let chain = certificates(cert, CERT)?;
        let read_key = || PrivateKeyDer::from_pem_file(key).map_err(|e| unusable(key, KEY, words(e)));
        let trusted = match ca {
            Some(ca) => certificates(ca, "socket.ssl_ca")?,
            None => chain.clone(),
        };
        // A certificate of version 1, as old recipes make, cannot be used.
        if let Some(own) = chain.first() {
            ParsedCertificate::try_from(own).map_err(|e| unusable(cert, CERT, e))?;
        }
        let peers = Arc::new(Peers::new(trusted, chain.first().cloned(), files)?);
        let versions = [&rustls::version::TLS13];
        let mut server = ServerConfig::builder_with_provider(crypto())
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(peers.clone())
            .with_single_cert(chain.clone(), read_key()?)
            .map_err(|e| unusable(cert, CERT, e))?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(crypto())
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(peers)
            .with_client_auth_cert(chain, read_key()?)
            .map_err(|e| unusable(cert, CERT, e))?;
        client.resumption = Resumption::disabled();
        Ok(SocketTls { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// Which peers are providers of our group.
#[derive(Debug)]
struct Peers {
    /// Accepted as they are: the trusted ones, and our own, which our provider presents.
    known: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    crypto: Arc<CryptoProvider>,
}

impl Peers {
    fn new(
        trusted: Vec<CertificateDer<'static>>,
        own: Option<CertificateDer<'static>>,
        files: &SocketCertificates,
    ) -> Result<Peers> {
        let mut roots = RootCertStore::empty();
        let (path, option) = files.trusted();
        for certificate in &trusted {
            roots.add(certificate.clone()).map_err(|e| unusable(path, option, e))?;
        }
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), crypto())
            .build()
            .map_err(|e| unusable(path, option, e))?;
        Ok(Peers { known: trusted.into_iter().chain(own).collect(), roots, clients, crypto: crypto() })
    }
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.known.iter().any(|known| known == end_entity) {
            true => Ok(ServerCertVerified::assertion()),
            false => signed_by(&self.roots, &self.crypto, end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A peer may not choose by them: what it has is a certificate of the group, or nothing.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.known.iter().any(|known| known == end_entity) {
            true => Ok(ClientCertVerified::assertion()),
            false => self.clients.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// An authority that signs the certificates of nodes.
    pub struct Authority {
        key: KeyPair,
        params: CertificateParams,
    }

    /// The files of a node.
    pub struct Node {
        files: SocketCertificates,
        _dir: tempfile::TempDir,
    }

    impl Node {
        pub fn certificates(&self) -> SocketCertificates {
            self.files.clone()
        }

        /// One that trusts the group and presents nothing.
        pub fn without_certificate(&self) -> SocketTls {
            let ours = SocketTls::load(&self.files).unwrap();
            let trusted = certificates(self.files.trusted().0, "").unwrap();
            let peers = Peers::new(trusted, None, &self.files).unwrap();
            let client = ClientConfig::builder_with_provider(crypto())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(peers))
                .with_no_client_auth();
            SocketTls { client: Arc::new(client), ..ours }
        }
    }

    impl Authority {
        pub fn new(name: &str) -> Authority {
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            Authority { key: KeyPair::generate().unwrap(), params }
        }

        fn certificate(&self) -> CertificateDer<'static> {
            self.params.self_signed(&self.key).unwrap().into()
        }

        fn pem(&self) -> String {
            pem("CERTIFICATE", &self.certificate())
        }

        pub fn node(&self, name: &str) -> Node {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let issuer = Issuer::from_params(&self.params, &self.key);
            let certificate = params.signed_by(&key, &issuer).unwrap();
            node(&pem("CERTIFICATE", certificate.der()), &key, Some(&self.pem()))
        }

        /// The authority's own certificate on a node, without `socket.ssl_ca`.
        pub fn itself(&self) -> Node {
            node(&self.pem(), &self.key, None)
        }
    }

    fn pem(what: &str, der: &[u8]) -> String {
        use base64::prelude::{BASE64_STANDARD, Engine};
        format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", BASE64_STANDARD.encode(der))
    }

    fn node(pem_of_cert: &str, key: &KeyPair, ca: Option<&str>) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| -> PathBuf {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = SocketCertificates {
            cert: write("cert.pem", pem_of_cert),
            key: write("key.pem", &pem("PRIVATE KEY", &key.serialize_der())),
            ca: ca.map(|ca| write("ca.pem", ca)),
        };
        Node { files, _dir: dir }
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let group = Authority::new("group");
        let two = group.node("n2");
        let why = |files: SocketCertificates| format!("{:#}", SocketTls::load(&files).unwrap_err());
        let missing = SocketCertificates { cert: "/nowhere/c.pem".into(), ..two.certificates() };
        assert!(why(missing).contains("/nowhere/c.pem (socket.ssl_cert)"));
        let not_ours = SocketCertificates { cert: two.certificates().key, ..two.certificates() };
        assert!(why(not_ours).contains("no PEM certificate"));
        let other = group.node("n1");
        let wrong_key = SocketCertificates { key: other.certificates().key, ..two.certificates() };
        assert!(why(wrong_key).contains("socket.ssl_cert"));
    }
}
