//! The files of a program in its folder: the CA it trusts, its certificate, its key.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use thiserror::Error;

use crate::identity::{Identity, IdentityError, Role};

/// The CA's certificate, or several while it is replaced.
pub const CA: &str = "ca.pem";
/// The CA's key, where certificates are made.
pub const CA_KEY: &str = "ca.key";
/// The program's certificate.
pub const CERTIFICATE: &str = "cert.pem";
/// The program's key.
pub const KEY: &str = "key.pem";
/// No file is longer.
const LENGTH_LIMIT: u64 = 64 << 10;

/// What is wrong with a file, and what to do.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {}; `rackferry init`, `rackferry issue` and `rackferry-agent join` make these files", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file of a key can be read by others than its owner.
    #[error("{} can be read by others than its owner (mode {mode:o}): chmod 600 it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file does not hold what it should.
    #[error("{} does not hold {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the file should hold.
        what: &'static str,
    },
    /// The certificate states no identity.
    #[error("{} is not a certificate of a site", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: IdentityError,
    },
    /// The certificate is of a role that this program does not have.
    #[error("{} is the certificate of {holder}, and this is no {}", path.display(), holder.role)]
    Role {
        /// The file.
        path: PathBuf,
        /// The identity that the certificate states.
        holder: Identity,
    },
    /// Certificate and key are of two pairs.
    #[error("{} is not the certificate of the key beside it", path.display())]
    Mismatch {
        /// The certificate.
        path: PathBuf,
    },
    /// The certificate is not valid now, or of another site.
    #[error("{} is no good: {why}", path.display())]
    Invalid {
        /// The certificate.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

/// What the files hold.
#[derive(PartialEq, Eq)]
pub(crate) struct Contents {
    pub ca: Vec<u8>,
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// [`Contents`], understood.
pub(crate) struct Parsed {
    pub authorities: Vec<CertificateDer<'static>>,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub holder: Identity,
}

impl Contents {
    pub fn read(dir: &Path) -> Result<Self, FileError> {
        Ok(Self {
            ca: read(&dir.join(CA))?,
            certificate: read(&dir.join(CERTIFICATE))?,
            key: read_secret(&dir.join(KEY))?.into_bytes(),
        })
    }

    pub fn parse(&self, dir: &Path, roles: &[Role]) -> Result<Parsed, FileError> {
        let authorities = certificates(&self.ca, dir.join(CA))?;
        let chain = certificates(&self.certificate, dir.join(CERTIFICATE))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| FileError::Malformed {
            path: dir.join(KEY),
            what: "a private key in PEM",
        })?;
        let path = dir.join(CERTIFICATE);
        let holder = match Identity::of(&chain[0]) {
            Ok(holder) => holder,
            Err(source) => return Err(FileError::Identity { path, source }),
        };
        if !roles.contains(&holder.role) {
            return Err(FileError::Role { path, holder });
        }
        Ok(Parsed { authorities, chain, key, holder })
    }
}

/// At least one certificate.
fn certificates(pem: &[u8], path: PathBuf) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(FileError::Malformed { path, what: "a certificate in PEM" }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > LENGTH_LIMIT {
        return Err(failed(io::Error::other(format!("it has {length} bytes"))));
    }
    fs::read(path).map_err(failed)
}

pub(crate) fn read_text(path: &Path) -> Result<String, FileError> {
    String::from_utf8(read(path)?)
        .map_err(|_| FileError::Malformed { path: path.to_owned(), what: "text" })
}

/// Reads a key, unless others than its owner may read it.
pub(crate) fn read_secret(path: &Path) -> Result<String, FileError> {
    let metadata =
        fs::metadata(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Open { path: path.to_owned(), mode });
    }
    read_text(path)
}

/// Makes a folder that only its owner may look into, unless there is one.
pub(crate) fn make_folder(dir: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| FileError::Write { path: dir.to_owned(), source })
}

pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    replace(path, contents, 0o644)
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Writes a file that only its owner may read, from its first byte on.
pub(crate) fn write_secret(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    replace(path, contents, 0o600)
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Replaces a file as a whole: a reader finds the old one or the new one.
fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    // Half of a file that an earlier crash may have left.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
