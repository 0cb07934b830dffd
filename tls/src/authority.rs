//! The CA of a site.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::{
    files::{self, CA, CA_KEY, CERTIFICATE, FileError, KEY},
    identity::{Identity, NAME_LIMIT, Role},
};

/// How long a CA lasts.
const CA_LIFE: Duration = Duration::days(3650);
/// How long a certificate lasts, unless its issuer asks for another time.
pub const LIFE: Duration = Duration::days(365);
/// Clocks of a site may differ by this much.
const SKEW: Duration = Duration::minutes(5);

/// The CA cannot make or load what was asked of it.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// A file of the CA fails.
    #[error(transparent)]
    File(#[from] FileError),
    /// The folder has a CA already.
    #[error("there is a CA in {0} already: choose an empty folder")]
    Exists(String),
    /// The name cannot stand in a certificate.
    #[error("{0:?} is no name: 1 to {NAME_LIMIT} characters, none of them a control character")]
    Name(String),
    /// The request for a certificate is none.
    #[error("the request for a certificate is damaged, or not signed by its own key")]
    Request,
    /// The library refuses to make the certificate.
    #[error("making a certificate")]
    Make(#[from] rcgen::Error),
}

/// The CA of a site. The holder of its key decides which programs and people belong to the site.
pub struct Authority {
    /// Its certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a CA, and leaves its files in a folder.
    ///
    /// # Errors
    /// If the folder has a CA, or cannot be written.
    pub fn create(dir: &Path) -> Result<Self, AuthorityError> {
        if dir.join(CA).exists() || dir.join(CA_KEY).exists() {
            return Err(AuthorityError::Exists(dir.display().to_string()));
        }
        files::make_folder(dir)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Rackferry site CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        lasts(&mut params, CA_LIFE);
        let pem = params.self_signed(&key)?.pem();
        files::write_secret(&dir.join(CA_KEY), key.serialize_pem().as_bytes())?;
        files::write(&dir.join(CA), pem.as_bytes())?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key)?, pem })
    }

    /// Loads the CA whose files are in a folder.
    ///
    /// # Errors
    /// If a file is missing, damaged, or its key can be read by others.
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        let pem = files::read_text(&dir.join(CA))?;
        let path = dir.join(CA_KEY);
        let key = KeyPair::from_pem(&files::read_secret(&path)?)
            .map_err(|_| FileError::Malformed { path, what: "a private key in PEM" })?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(&pem, key)?, pem })
    }

    /// Signs a certificate for `holder`. Of the request only the key is used; nothing else in it is believed.
    ///
    /// # Errors
    /// If the request is none, or the name cannot stand in a certificate.
    pub fn sign(
        &self,
        request: &str,
        holder: &Identity,
        life: Duration,
    ) -> Result<String, AuthorityError> {
        let mut asked = CertificateSigningRequestParams::from_pem(request)
            .map_err(|_| AuthorityError::Request)?;
        asked.params = of(holder, life)?;
        Ok(asked.signed_by(&self.issuer)?.pem())
    }

    /// Makes a new key and its certificate, as the files of a program in a folder.
    ///
    /// # Errors
    /// If the folder cannot be written, or the name cannot stand in a certificate.
    pub fn issue(
        &self,
        dir: &Path,
        holder: &Identity,
        life: Duration,
    ) -> Result<(), AuthorityError> {
        let request = Request::new()?;
        let certificate = self.sign(request.pem(), holder, life)?;
        Ok(request.keep(dir, &certificate, &self.pem)?)
    }

    /// Leaves the CA in another folder, whose program shall be able to sign.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn lend(&self, dir: &Path) -> Result<(), FileError> {
        let key = self.issuer.key().serialize_pem();
        files::write_secret(&dir.join(CA_KEY), key.as_bytes())
    }
}

/// What stands in the certificate of `holder`.
fn of(holder: &Identity, life: Duration) -> Result<CertificateParams, AuthorityError> {
    let Identity { role, name } = holder;
    let length = name.chars().count();
    if length == 0 || length > NAME_LIMIT || name.chars().any(char::is_control) {
        return Err(AuthorityError::Name(name.clone()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, role.as_str());
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if let Some(dns) = role.server_name() {
        params.subject_alt_names = vec![SanType::DnsName(dns.try_into()?)];
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    lasts(&mut params, life);
    Ok(params)
}

fn lasts(params: &mut CertificateParams, life: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + life;
}

/// A key that is to get a certificate. The key never leaves the program that made it.
pub struct Request {
    key: KeyPair,
    pem: String,
}

impl Request {
    /// Makes a key, and a request that proves it.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn new() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let pem = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok(Self { key, pem })
    }

    /// The request, as the CA reads it (PEM).
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Leaves the files of a program in a folder: first the key, last the certificate. A program that runs there
    /// takes them up when they fit.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn keep(&self, dir: &Path, certificate: &str, ca: &str) -> Result<(), FileError> {
        files::make_folder(dir)?;
        files::write_secret(&dir.join(KEY), self.key.serialize_pem().as_bytes())?;
        files::write(&dir.join(CA), ca.as_bytes())?;
        files::write(&dir.join(CERTIFICATE), certificate.as_bytes())
    }
}

/// Whether an admin may give this role to a person by name alone; hosts and coordinators have folders of their own.
pub const fn is_person(role: Role) -> bool {
    matches!(role, Role::Viewer | Role::Operator | Role::Admin)
}
