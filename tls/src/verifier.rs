//! Verifiers of certificates that refuse those of the site which are expelled, in the handshake: the peer learns why.

use std::sync::Arc;

use rustls::{
    CertificateError, DistinguishedName, Error,
    client::danger::{ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use crate::{
    config::provider,
    trust::{Shown, Trust},
};

/// Has the signatures of handshakes verified by these algorithms, in the `impl` of a verifier.
macro_rules! signatures {
    ($self:ident => $algorithms:expr) => {
        fn verify_tls12_signature(
            &$self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, cert, dss, &$algorithms)
        }

        fn verify_tls13_signature(
            &$self,
            message: &[u8],
            cert: &rustls::pki_types::CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, cert, dss, &$algorithms)
        }

        fn supported_verify_schemes(&$self) -> Vec<rustls::SignatureScheme> {
            $algorithms.supported_schemes()
        }
    };
}
pub(crate) use signatures;

/// A verifier of the site, and those who are expelled from it.
#[derive(Debug)]
pub struct Unless<V: ?Sized> {
    trust: Trust,
    verifier: Arc<V>,
    provider: Arc<CryptoProvider>,
}

impl<V: ?Sized> Unless<V> {
    pub(crate) fn expelled(trust: Trust, verifier: Arc<V>) -> Self {
        Self { trust, verifier, provider: provider() }
    }

    fn look_at(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        match Shown::of(certificate) {
            Ok(shown) if self.trust.denies(&shown) => {
                Err(Error::InvalidCertificate(CertificateError::Revoked))
            }
            // What states no identity is refused after the handshake.
            _ => Ok(()),
        }
    }
}

impl ClientCertVerifier for Unless<dyn ClientCertVerifier> {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        self.look_at(end_entity)?;
        Ok(verified)
    }

    signatures!(self => self.provider.signature_verification_algorithms);
}

impl ServerCertVerifier for Unless<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        self.look_at(end_entity)?;
        Ok(verified)
    }

    signatures!(self => self.provider.signature_verification_algorithms);
}
