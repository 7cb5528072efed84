//! The invitation that a joiner sends through the group, and the proofs that both sides make from it.
use std::fmt;

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::hello::{Connection, Proof};
use ring::rand::SecureRandom;
use ring::{digest, hmac, rand};

use super::side::Side;
use crate::failure::{Failure, Kind};

/// Label of the TLS exporter that ties a proof to one TLS session (RFC 8446 section 7.5).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-rejoin-v1";
/// Separates these proofs from any other use of the secret.
const PROOF_DOMAIN: &[u8] = b"rejoin proof of the transfer secret v1\0";
/// Separates the tokens in ClientHellos from any other use of the secret.
const TOKEN_DOMAIN: &[u8] = b"rejoin token of a ClientHello v1\0";
/// Separates the name of a transfer in records from any other use of the secret.
const ID_DOMAIN: &[u8] = b"rejoin id of a transfer v1\0";
/// The last labels of a token, which is a host name.
const TOKEN_SUFFIX: &str = "rejoin.invalid";
/// The user in the AUTH part of a `ready` line.
pub const AUTH_USER: &str = "rejoin";

/// The secret that makes a process the donor of this one transfer.
#[derive(Clone, PartialEq, Eq)]
pub struct TransferSecret([u8; 32]);

impl TransferSecret {
    /// A new secret from the system's random numbers.
    pub fn generate() -> Result<TransferSecret> {
        Ok(TransferSecret(random_bytes()?))
    }

    /// 43 characters of `[A-Za-z0-9_-]`.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Parses the text of [`TransferSecret::to_text`].
    pub fn parse(text: &str) -> Option<TransferSecret> {
        decode(text).map(TransferSecret)
    }

    /// The server name (SNI) in the ClientHello of a new connection: a random number and its HMAC, in
    /// hexadecimal. It shows the joiner which connections deserve a handshake. It does not authenticate: that
    /// requires a [`proof`].
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn token(&self) -> Result<String, Failure> {
        let [number, _] = halves(random_bytes()?);
        let [first, second] = halves(self.token_code(&number));
        Ok(format!("{}.{}.{}.{TOKEN_SUFFIX}", hex(&number), hex(&first), hex(&second)))
    }

    /// A name for the transfer that both hosts know and that does not reveal the secret: 32 hexadecimal digits.
    pub fn transfer_id(&self) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let code = hmac::sign(&key, ID_DOMAIN);
        code.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the number in a server name that [`TransferSecret::token`] made with this secret.
    pub fn check_token(&self, name: &str) -> Option<TokenNumber> {
        let mut labels = name.strip_suffix(TOKEN_SUFFIX)?.splitn(4, '.');
        let mut next = || unhex(labels.next()?);
        let (number, first, second) = (next()?, next()?, next()?);
        labels.next().filter(|rest| rest.is_empty())?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let code = [first, second].concat();
        hmac::verify(&key, &[TOKEN_DOMAIN, &number].concat(), &code).ok().map(|()| number)
    }

    fn token_code(&self, number: &TokenNumber) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut code = [0; 32];
        for (to, from) in code.iter_mut().zip(hmac::sign(&key, &[TOKEN_DOMAIN, number].concat()).as_ref()) {
            *to = *from;
        }
        code
    }
}

/// The random number that makes each token unique.
pub type TokenNumber = [u8; 16];

fn halves(bytes: [u8; 32]) -> [[u8; 16]; 2] {
    let (mut first, mut second) = ([0; 16], [0; 16]);
    for (to, from) in first.iter_mut().chain(&mut second).zip(bytes) {
        *to = from;
    }
    [first, second]
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}

impl fmt::Debug for TransferSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransferSecret(hidden)")
    }
}

impl Drop for TransferSecret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from removing the writes as dead; more is not possible without unsafe code.
        std::hint::black_box(&self.0);
    }
}

/// The system's random numbers.
pub fn random_bytes() -> Result<[u8; 32], Failure> {
    let mut bytes = [0; 32];
    rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::new(Kind::Server, "the system gives no random numbers"))?;
    Ok(bytes)
}

/// SHA-256 of the DER of the joiner's end-entity certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a certificate.
    pub fn of_certificate(der: &[u8]) -> Pin {
        let mut pin = [0; 32];
        // SHA-256 has 32 bytes, so the zip covers all of both.
        for (to, from) in pin.iter_mut().zip(digest::digest(&digest::SHA256, der).as_ref()) {
            *to = *from;
        }
        Pin(pin)
    }

    /// 43 characters of `[A-Za-z0-9_-]`.
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Parses the text of [`Pin::to_text`].
    pub fn parse(text: &str) -> Option<Pin> {
        decode(text).map(Pin)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({})", self.to_text())
    }
}

/// What the donor needs to authenticate itself, and to authenticate the joiner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Authenticates both sides.
    pub secret: TransferSecret,
    /// Identifies the joiner's certificate.
    pub pin: Pin,
}

impl Invitation {
    /// User and password of the AUTH part of a `ready` line; both within `[A-Za-z0-9_.-]`, which all servers
    /// pass on unchanged.
    pub fn to_auth(&self) -> (String, String) {
        (AUTH_USER.to_owned(), format!("{}.{}", self.secret.to_text(), self.pin.to_text()))
    }

    /// Parses the result of [`Invitation::to_auth`]. The error never quotes the password.
    pub fn parse(user: &str, password: &str) -> Result<Invitation> {
        let failure = |what: &str| {
            Failure::new(Kind::Configuration, format!("the joiner's request carries {what}")).hint(
                "both nodes need wsrep_sst_method=rejoin, and a server that passes the user and password of the request on",
            )
        };
        if user != AUTH_USER {
            return Err(failure("no invitation of rejoin").into());
        }
        let parsed = password.split_once('.').and_then(|(secret, pin)| {
            Some(Invitation { secret: TransferSecret::parse(secret)?, pin: Pin::parse(pin)? })
        });
        parsed.ok_or_else(|| failure("a damaged invitation").into())
    }
}

/// Proves that `side` knows the secret, for this TLS session and this connection only: another session has
/// another exporter, and the proof of one side or connection is not valid for another.
pub fn proof(secret: &TransferSecret, exporter: &[u8; 32], side: Side, connection: Connection) -> Proof {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
    let mut out = Proof::default();
    for (to, from) in out.iter_mut().zip(hmac::sign(&key, &text(exporter, side, connection)).as_ref()) {
        *to = *from;
    }
    out
}

/// Whether this is the [`proof`] for these parameters; takes constant time.
pub fn verify(
    secret: &TransferSecret,
    exporter: &[u8; 32],
    side: Side,
    connection: Connection,
    proof: &Proof,
) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
    hmac::verify(&key, &text(exporter, side, connection), proof).is_ok()
}

/// The bytes that a proof covers: the domain, the side, the connection, the exporter. All but the domain have
/// a fixed length.
fn text(exporter: &[u8; 32], side: Side, connection: Connection) -> Vec<u8> {
    let side = match side {
        Side::Donor => 0u8,
        Side::Joiner => 1,
    };
    let (kind, number) = match connection {
        Connection::Control => (0u8, 0u16),
        Connection::Worker(number) => (1, number),
    };
    let mut text = PROOF_DOMAIN.to_vec();
    text.push(side);
    text.push(kind);
    text.extend_from_slice(&number.to_le_bytes());
    text.extend_from_slice(exporter);
    text
}

fn decode(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_survives_the_ready_line() {
        let invitation = Invitation {
            secret: TransferSecret::generate().unwrap(),
            pin: Pin::of_certificate(b"certificate"),
        };
        let (user, password) = invitation.to_auth();
        assert!(password.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)), "{password}");
        assert_eq!(Invitation::parse(&user, &password).unwrap(), invitation);
        assert!(!format!("{invitation:?}").contains(&invitation.secret.to_text()));
    }

    #[test]
    fn damaged_invitations_are_refused_without_quoting_them() {
        let invitation = Invitation {
            secret: TransferSecret::generate().unwrap(),
            pin: Pin::of_certificate(b"certificate"),
        };
        let (user, password) = invitation.to_auth();
        let secret = invitation.secret.to_text();
        for (user, password) in [
            ("root", password.clone()),
            (user.as_str(), String::new()),
            (user.as_str(), secret.clone()),
            (user.as_str(), format!("{secret}.{}", &secret[1..])),
            (user.as_str(), format!("{password}A")),
        ] {
            let error = format!("{:#}", Invitation::parse(user, &password).unwrap_err());
            assert!(!error.contains(&secret[..8]), "{error}");
        }
    }

    #[test]
    fn a_token_is_of_one_secret_and_a_host_name() {
        let (secret, other) = (TransferSecret::generate().unwrap(), TransferSecret::generate().unwrap());
        let token = secret.token().unwrap();
        let number = secret.check_token(&token).unwrap();
        assert_ne!(secret.check_token(&secret.token().unwrap()).unwrap(), number);
        assert_eq!(other.check_token(&token), None);
        assert!(rustls::pki_types::ServerName::try_from(token.as_str()).is_ok(), "{token}");
        for wrong in [
            String::new(),
            "rejoin.invalid".to_owned(),
            format!("x.{token}"),
            format!("{token}x"),
            token.replace('.', "-"),
            token.replacen(&token[..1], if token.starts_with('0') { "1" } else { "0" }, 1),
            token[33..].to_owned(),
        ] {
            assert_eq!(secret.check_token(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_proof_is_for_one_secret_session_side_and_connection() {
        let (secret, other) = (TransferSecret::generate().unwrap(), TransferSecret::generate().unwrap());
        let made = proof(&secret, &[7; 32], Side::Donor, Connection::Worker(3));
        assert!(verify(&secret, &[7; 32], Side::Donor, Connection::Worker(3), &made));
        assert!(!verify(&other, &[7; 32], Side::Donor, Connection::Worker(3), &made));
        assert!(!verify(&secret, &[8; 32], Side::Donor, Connection::Worker(3), &made));
        assert!(!verify(&secret, &[7; 32], Side::Joiner, Connection::Worker(3), &made));
        assert!(!verify(&secret, &[7; 32], Side::Donor, Connection::Worker(4), &made));
        let zero = proof(&secret, &[7; 32], Side::Donor, Connection::Worker(0));
        assert!(!verify(&secret, &[7; 32], Side::Donor, Connection::Control, &zero));
    }
}
