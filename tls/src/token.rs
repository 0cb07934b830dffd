//! A token lets a host join the site. An admin creates it for that host, and it is good once.
//!
//! A token has a secret, by which the coordinator knows that an admin lets the newcomer in, and the digest of the CA,
//! by which the newcomer knows the coordinator. The coordinator keeps a digest of the secret, never the secret.

use std::{fmt, str::FromStr, sync::Arc};

use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use rustls::{
    CertificateError, Error, RootCertStore,
    client::{
        WebPkiServerVerifier,
        danger::{ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use thiserror::Error as Cause;

use crate::{config::provider, verifier::signatures};

/// What a token begins with; another one is of another version.
const VERSION: &str = "rackferry-join-1";
const SECRET: usize = 16;
const DIGEST: usize = 32;

/// A token: it lets one host join the site, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: [u8; SECRET],
    authority: [u8; DIGEST],
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Cause)]
#[error("this is no token: `rackferry token create HOST` makes one")]
pub struct NotAToken;

/// A token cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Cause)]
pub enum TokenError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The CA is no certificate.
    #[error("the CA is no certificate")]
    Authority,
}

impl Token {
    /// Makes a token for the site of a CA (PEM).
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn new(authority: &str) -> Result<Self, TokenError> {
        let mut secret = [0; SECRET];
        SystemRandom::new().fill(&mut secret).map_err(|_| TokenError::Random)?;
        let authority = digest_of_pem(authority).ok_or(TokenError::Authority)?;
        Ok(Self { secret, authority })
    }

    /// The digest of the CA: what `openssl x509 -fingerprint -sha256` shows.
    pub const fn authority(&self) -> [u8; DIGEST] {
        self.authority
    }

    /// The secret, as the newcomer sends it to the coordinator.
    pub fn secret(&self) -> String {
        hex(&self.secret)
    }

    /// The token as it is handed over.
    pub fn expose(&self) -> String {
        format!("{VERSION}.{}.{}", hex(&self.secret), hex(&self.authority))
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let mut parts = text.trim().split('.');
        let (version, secret, authority) = (parts.next(), parts.next(), parts.next());
        if version != Some(VERSION) || parts.next().is_some() {
            return Err(NotAToken);
        }
        let secret = secret.and_then(unhex).ok_or(NotAToken)?;
        let authority = authority.and_then(unhex).ok_or(NotAToken)?;
        Ok(Self { secret, authority })
    }
}

/// What the coordinator keeps of a secret.
pub fn digest_of_secret(secret: &str) -> String {
    hex(digest(&SHA256, secret.as_bytes()).as_ref())
}

/// The digest of the first certificate of a PEM text.
pub fn digest_of_pem(pem: &str) -> Option<[u8; DIGEST]> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some(digest_of(&certificate))
}

fn digest_of(certificate: &CertificateDer<'_>) -> [u8; DIGEST] {
    let mut bytes = [0; DIGEST];
    bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

/// A verifier that believes the CA of one digest, and the coordinators that have a certificate of it.
#[derive(Debug)]
pub struct Pinned {
    authority: [u8; DIGEST],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    pub(crate) fn new(authority: [u8; DIGEST]) -> Self {
        Self { authority, provider: provider() }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut shown = intermediates.iter();
        let authority =
            shown.find(|shown| digest_of(shown) == self.authority).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let provider = self.provider.clone();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    signatures!(self => self.provider.signature_verification_algorithms);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_not_shown() {
        let token = Token { secret: [0xab; SECRET], authority: [7; DIGEST] };
        assert_eq!(token.expose().parse(), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = Token { secret: [1; SECRET], authority: [2; DIGEST] }.expose();
        let (short, long) = (&good[..good.len() - 1], format!("{good}0"));
        for text in ["", "rackferry-join-1", short, &long, &good.replace("join-1", "join-2")] {
            assert_eq!(text.parse::<Token>(), Err(NotAToken), "{text}");
        }
    }
}
