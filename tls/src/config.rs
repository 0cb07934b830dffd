//! What rustls is told: TLS 1.3, certificates on both sides, nothing resumed.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    files::{CA, CERTIFICATE, Contents, FileError, Parsed},
    identity::{Identity, Role},
    links::Purpose,
    token::Pinned,
    trust::{Shown, Trust},
    verifier::Unless,
};

/// What a program has loaded from its folder.
pub struct Loaded {
    pub contents: Contents,
    /// The identity of this program.
    pub holder: Identity,
    /// The serial number of its certificate.
    pub serial: String,
    /// When its certificate expires, in seconds of Unix.
    pub expires: i64,
    /// When the first of its CAs expires, in seconds of Unix.
    pub ca_expires: i64,
    control: Ends,
    pages: Ends,
    joining: Arc<ServerConfig>,
}

/// Both ends of one kind of connection.
struct Ends {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Loaded {
    pub fn read(dir: &Path, roles: &[Role], trust: &Trust) -> Result<Self, FileError> {
        Self::new(dir, roles, Contents::read(dir)?, trust)
    }

    pub fn new(
        dir: &Path,
        roles: &[Role],
        contents: Contents,
        trust: &Trust,
    ) -> Result<Self, FileError> {
        let parsed = contents.parse(dir, roles)?;
        let mut roots = RootCertStore::empty();
        for authority in &parsed.authorities {
            roots.add(authority.clone()).map_err(|_| FileError::Malformed {
                path: dir.join(CA),
                what: "the certificate of a CA",
            })?;
        }
        let roots = Arc::new(roots);
        let invalid = |why: String| FileError::Invalid { path: dir.join(CERTIFICATE), why };
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        clients
            .verify_client_cert(&parsed.chain[0], &parsed.chain[1..], UnixTime::now())
            .map_err(|error| invalid(why(&error)))?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let clients: Arc<dyn ClientCertVerifier> =
            Arc::new(Unless::expelled(trust.clone(), clients));
        let servers: Arc<dyn ServerCertVerifier> = servers;
        let servers: Arc<dyn ServerCertVerifier> =
            Arc::new(Unless::expelled(trust.clone(), servers));
        let ends = |purpose: Purpose| -> Result<Ends, FileError> {
            Ok(Ends {
                client: Arc::new(client(servers.clone(), &parsed, purpose, dir)?),
                server: Arc::new(server(clients.clone(), &parsed, purpose, dir)?),
            })
        };
        Ok(Self {
            holder: parsed.holder.clone(),
            serial: Shown::of(&parsed.chain[0]).map(|shown| shown.serial).unwrap_or_default(),
            expires: expires(&parsed.chain[..1]),
            ca_expires: expires(&parsed.authorities),
            control: ends(Purpose::Control)?,
            pages: ends(Purpose::Pages)?,
            joining: Arc::new(joining(&parsed, dir)?),
            contents,
        })
    }

    pub fn client(&self, purpose: Purpose) -> Arc<ClientConfig> {
        self.ends(purpose).client.clone()
    }

    pub fn server(&self, purpose: Purpose) -> Arc<ServerConfig> {
        self.ends(purpose).server.clone()
    }

    /// The settings for callers that have no certificate yet.
    pub fn joining(&self) -> Arc<ServerConfig> {
        self.joining.clone()
    }

    fn ends(&self, purpose: Purpose) -> &Ends {
        match purpose {
            Purpose::Control => &self.control,
            Purpose::Pages => &self.pages,
        }
    }
}

/// The cryptography of ring, with the shorter key first where the CPU computes AES: pages are many.
pub fn provider() -> Arc<CryptoProvider> {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let aes = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    let chacha = [TLS13_CHACHA20_POLY1305_SHA256];
    let cipher_suites =
        if computes_aes() { [&aes[..], &chacha].concat() } else { [&chacha[..], &aes].concat() };
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
}

#[cfg(target_arch = "x86_64")]
fn computes_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(not(target_arch = "x86_64"))]
fn computes_aes() -> bool {
    true
}

fn client(
    verifier: Arc<dyn ServerCertVerifier>,
    parsed: &Parsed,
    purpose: Purpose,
    dir: &Path,
) -> Result<ClientConfig, FileError> {
    let mut config = client_of(verifier)
        .with_client_auth_cert(parsed.chain.clone(), parsed.key.clone_key())
        .map_err(|error| mismatch(&error, dir))?;
    config.alpn_protocols = vec![purpose.protocol().to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A TLS client that checks its peer by a verifier, and has not been given a certificate yet.
pub fn client_of(
    verifier: Arc<dyn ServerCertVerifier>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
}

/// A client that knows nothing but the digest of its CA.
pub fn newcomer(pinned: Pinned) -> ClientConfig {
    let mut config = client_of(Arc::new(pinned)).with_no_client_auth();
    config.alpn_protocols = vec![crate::links::JOINING.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

fn server(
    verifier: Arc<dyn ClientCertVerifier>,
    parsed: &Parsed,
    purpose: Purpose,
    dir: &Path,
) -> Result<ServerConfig, FileError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_single_cert(parsed.chain.clone(), parsed.key.clone_key())
        .map_err(|error| mismatch(&error, dir))?;
    config.alpn_protocols = vec![purpose.protocol().to_vec()];
    never_resume(&mut config);
    Ok(config)
}

/// A server for newcomers. It shows its CA too: a newcomer has only the CA's digest.
fn joining(parsed: &Parsed, dir: &Path) -> Result<ServerConfig, FileError> {
    let chain = parsed.chain.iter().chain(&parsed.authorities).cloned().collect();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring has TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(chain, parsed.key.clone_key())
        .map_err(|error| mismatch(&error, dir))?;
    config.alpn_protocols = vec![crate::links::JOINING.to_vec()];
    never_resume(&mut config);
    Ok(config)
}

fn never_resume(config: &mut ServerConfig) {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
}

fn mismatch(error: &rustls::Error, dir: &Path) -> FileError {
    let path = dir.join(CERTIFICATE);
    match error {
        rustls::Error::InconsistentKeys(_) => FileError::Mismatch { path },
        error => FileError::Invalid { path, why: error.to_string() },
    }
}

/// When the first of some certificates expires, in seconds of Unix; those that were verified can be read.
fn expires(certificates: &[CertificateDer<'_>]) -> i64 {
    let read = certificates.iter().filter_map(|one| X509Certificate::from_der(one).ok());
    read.map(|(_, one)| one.validity().not_after.timestamp()).min().unwrap_or_default()
}

/// What a verifier has against a certificate, for people.
pub fn why(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => "it has expired".to_owned(),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "it is not valid yet: do the clocks agree?".to_owned()
            }
            Bad::Revoked => "it is expelled from the site (rackferry certificate list)".to_owned(),
            Bad::UnknownIssuer | Bad::BadSignature => {
                "it is not signed by the CA of this site (ca.pem)".to_owned()
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "it is one of another role".to_owned()
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}
