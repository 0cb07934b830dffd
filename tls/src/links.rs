//! Connections between programs of a site.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{AlertDescription, pki_types::CertificateDer, server::Acceptor};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};

use crate::{
    config::{Loaded, newcomer, why},
    files::{Contents, FileError},
    held::Held,
    identity::{Identity, IdentityError, Role},
    token::Pinned,
    trust::{Expelled, Shown, Trust},
};

/// How often a program looks at its certificate files.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Seconds before a certificate expires from which the log warns, once a day.
const WARN_BEFORE: i64 = 14 * 86_400;
/// See [`WARN_BEFORE`].
const WARN_EVERY: Duration = Duration::from_secs(86_400);
/// The protocol (ALPN) that a caller without a certificate asks for.
pub(crate) const JOINING: &[u8] = b"rackferry-join/1";

/// A connection over TLS.
pub type Stream<IO> = TlsStream<Held<IO>>;

/// What a connection is for. One kind is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The connection carries gRPC.
    Control,
    /// The connection carries pages.
    Pages,
}

impl Purpose {
    pub(crate) const fn protocol(self) -> &'static [u8] {
        match self {
            Self::Control => b"h2",
            Self::Pages => b"rackferry-pages/1",
        }
    }
}

/// A connection cannot be made.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The network or TLS fails.
    #[error("{}", explain(.0))]
    Io(#[from] io::Error),
    /// The other side shows no certificate, or one that states no identity.
    #[error("its certificate does not state a role and a name")]
    Identity(#[from] IdentityError),
    /// The other side is of the site, but not of the role that was called.
    #[error("this is {0}, which was not called")]
    Stranger(Identity),
    /// The other side was expelled while the link was made.
    #[error("{0} is expelled from the site (rackferry certificate list)")]
    Expelled(Identity),
}

/// What went wrong, as people need to know it: the alerts of TLS are terse.
pub fn explain(error: &io::Error) -> String {
    use AlertDescription as Alert;
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => match alert {
            Alert::CertificateRequired => "refused: it wants a certificate".to_owned(),
            Alert::CertificateExpired => "refused: our certificate has expired".to_owned(),
            Alert::CertificateRevoked => {
                "refused: our certificate is expelled from the site; an admin can readmit it (rackferry certificate readmit)"
                    .to_owned()
            }
            Alert::UnknownCA | Alert::DecryptError => {
                "refused: our certificate is not of its site".to_owned()
            }
            Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate => {
                "refused: our certificate is no good to it".to_owned()
            }
            Alert::NoApplicationProtocol => "refused: that is another kind of port".to_owned(),
            other => format!("refused ({other:?})"),
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            "it does not speak TLS: is TLS off there?".to_owned()
        }
        Some(bad @ rustls::Error::InvalidCertificate(_)) => {
            format!("not trusted: its certificate is no good: {}", why(bad))
        }
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// A connection that a coordinator has accepted.
pub enum Accepted<IO> {
    /// The caller is of the site.
    Known(Box<Stream<IO>>, Shown),
    /// The caller has no certificate, and wants one.
    Joining(Box<Stream<IO>>),
}

/// Makes connections with the certificates of a folder, whichever are there at the time. Clones share it.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    roles: Vec<Role>,
    trust: Trust,
    /// Held for a look only, never over an await.
    loaded: RwLock<Arc<Loaded>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

impl Tls {
    /// Loads the files of a folder, whose certificate must have one of these roles.
    ///
    /// # Errors
    /// If a file is missing or no good; the error says which, and what to do.
    pub fn open(dir: &Path, roles: &[Role]) -> Result<Self, FileError> {
        let trust = Trust::default();
        let loaded = RwLock::new(Arc::new(Loaded::read(dir, roles, &trust)?));
        let (dir, roles) = (dir.to_owned(), roles.to_owned());
        Ok(Self { inner: Arc::new(Inner { dir, roles, trust, loaded }) })
    }

    /// Expels exactly these from now on: ends their connections, and makes none with them. Returns how many it ends.
    pub fn expel(&self, all: impl IntoIterator<Item = Expelled>) -> usize {
        self.inner.trust.expel(all.into_iter().collect())
    }

    /// Those who are expelled.
    pub fn expelled(&self) -> Arc<BTreeSet<Expelled>> {
        self.inner.trust.expelled()
    }

    /// What the peer of an open connection has shown that was called at this address (`host:port`).
    pub fn dialled(&self, address: &str) -> Option<Shown> {
        self.inner.trust.dialled(address)
    }

    /// Whether a certificate is expelled, by its name or by its serial number.
    #[must_use]
    pub fn denies(&self, shown: &Shown) -> bool {
        self.inner.trust.denies(shown)
    }

    /// Reads what the peer has shown; from here on the connection ends when it is expelled.
    fn guarded<IO>(&self, stream: &mut Stream<IO>) -> Result<Shown, LinkError> {
        let shown = shown(stream.get_ref().1.peer_certificates())?;
        let guard = self.inner.trust.enter(shown.clone());
        let guard = guard.ok_or_else(|| LinkError::Expelled(shown.identity.clone()))?;
        stream.get_mut().0.guard(guard);
        Ok(shown)
    }

    fn loaded(&self) -> Arc<Loaded> {
        self.inner.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The identity of this program.
    pub fn holder(&self) -> Identity {
        self.loaded().holder.clone()
    }

    /// What this program shows to others.
    pub fn own(&self) -> Shown {
        let loaded = self.loaded();
        Shown { identity: loaded.holder.clone(), serial: loaded.serial.clone() }
    }

    /// When this program's certificate expires, in seconds of Unix.
    pub fn expires(&self) -> i64 {
        self.loaded().expires
    }

    /// When the first of the site's CAs that this program knows expires, in seconds of Unix.
    pub fn ca_expires(&self) -> i64 {
        self.loaded().ca_expires
    }

    /// The folder with this program's certificate.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Takes files that have changed up if they are good; returns whether it did.
    ///
    /// # Errors
    /// If they are not: then those of before stay.
    pub fn reload(&self) -> Result<bool, FileError> {
        let contents = Contents::read(&self.inner.dir)?;
        if contents == self.loaded().contents {
            return Ok(false);
        }
        let new =
            Arc::new(Loaded::new(&self.inner.dir, &self.inner.roles, contents, &self.inner.trust)?);
        *self.inner.loaded.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }

    /// Looks after the files for ever: takes new ones up, and says when a certificate is about to expire.
    pub async fn keep_current(self) {
        let mut complaint = String::new();
        let mut warned: Option<tokio::time::Instant> = None;
        loop {
            let seconds = self.expires() - time::OffsetDateTime::now_utc().unix_timestamp();
            if seconds < WARN_BEFORE && warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                warned = Some(tokio::time::Instant::now());
                let dir = self.inner.dir.display();
                tracing::warn!(%dir, days = seconds / 86_400, "the certificate expires soon");
            }
            tokio::time::sleep(LOOK_EVERY).await;
            match self.reload() {
                Ok(true) => {
                    complaint.clear();
                    tracing::info!(holder = %self.holder(), "new certificates are in use");
                }
                Ok(false) => complaint.clear(),
                Err(error) if error.to_string() != complaint => {
                    complaint = error.to_string();
                    tracing::warn!(%error, "new certificates are not used");
                }
                Err(_) => {}
            }
        }
    }

    /// Connects to a peer of this role. In TLS 1.3 the caller learns only by reading whether the peer takes its
    /// certificate. Cancel safe.
    ///
    /// # Errors
    /// If there is no TLS, or the peer's certificate is not one of the site and of that role.
    pub async fn connect<IO>(
        &self,
        io: IO,
        role: Role,
        purpose: Purpose,
    ) -> Result<(Stream<IO>, Identity), LinkError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.loaded().client(purpose);
        let stream = TlsConnector::from(config).connect(role.called(), Held::new(io)).await?;
        let mut stream = stream.into();
        let identity = self.guarded(&mut stream)?.identity;
        if identity.role != role {
            return Err(LinkError::Stranger(identity));
        }
        Ok((stream, identity))
    }

    /// Accepts a connection of a caller of the site. Cancel safe.
    ///
    /// # Errors
    /// If there is no TLS, or the caller's certificate is not one of the site.
    pub async fn accept<IO>(
        &self,
        io: IO,
        purpose: Purpose,
    ) -> Result<(Stream<IO>, Identity), LinkError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.loaded().server(purpose);
        let stream = tokio_rustls::TlsAcceptor::from(config).accept(Held::new(io)).await?;
        let mut stream = stream.into();
        let identity = self.guarded(&mut stream)?.identity;
        Ok((stream, identity))
    }

    /// Accepts a connection as a coordinator, which callers that want to join the site call, too. Cancel safe.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub async fn accept_any<IO>(&self, io: IO) -> Result<Accepted<IO>, LinkError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), Held::new(io)).await?;
        let hello = start.client_hello();
        let newcomer = hello.alpn().is_some_and(|mut all| all.any(|one| one == JOINING));
        if newcomer {
            let stream = start.into_stream(self.loaded().joining()).await?;
            return Ok(Accepted::Joining(Box::new(stream.into())));
        }
        let stream = start.into_stream(self.loaded().server(Purpose::Control)).await?;
        let mut stream = Box::new(stream.into());
        let shown = self.guarded(&mut stream)?;
        Ok(Accepted::Known(stream, shown))
    }
}

/// Connects to a coordinator as a caller that has nothing but a digest of the CA. Cancel safe.
///
/// # Errors
/// If there is no TLS, or no coordinator of that CA.
pub async fn join<IO>(io: IO, authority: [u8; 32]) -> Result<Stream<IO>, LinkError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let config = Arc::new(newcomer(Pinned::new(authority)));
    let stream =
        TlsConnector::from(config).connect(Role::Coordinator.called(), Held::new(io)).await?;
    Ok(stream.into())
}

fn shown(chain: Option<&[CertificateDer<'_>]>) -> Result<Shown, IdentityError> {
    let first = chain.and_then(|chain| chain.first()).ok_or(IdentityError::Malformed)?;
    Shown::of(first)
}
