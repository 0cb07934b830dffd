//! gRPC over the links of a site.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint, Error, Uri, server::Connected};

use crate::{
    Accepted, Admission, LinkError, Purpose, Role, Shown, Stream, Tls,
    admission::{HANDSHAKE_WITHIN, Place, Ticket},
    links,
    token::Token,
};

/// How long a caller without a certificate may stay connected.
const JOIN_WITHIN: Duration = Duration::from_secs(30);
/// Connections that have shaken hands and wait to be served.
const WAITING: usize = 64;

/// The caller of a request, in the extensions of that request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The caller has shown a certificate of the site.
    Known(Arc<Shown>),
    /// The caller has shown no certificate: the operator has switched TLS off, or the caller wants its first one.
    Anonymous,
}

/// The peer of a connection, in the extensions of each of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The caller.
    pub caller: Caller,
    /// The address the connection came from.
    pub from: Option<IpAddr>,
}

/// A connection to a coordinator.
pub enum Connection {
    /// A connection without TLS.
    Plain(TcpStream, Place),
    /// A connection over TLS, and its caller.
    Secured(Box<Stream<TcpStream>>, Caller),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let (stream, caller) = match self {
            Self::Plain(stream, _) => (stream, Caller::Anonymous),
            Self::Secured(stream, caller) => (stream.get_ref().0.get_ref(), caller.clone()),
        };
        // One that is closed already has none.
        Peer { caller, from: stream.peer_addr().ok().map(|addr| addr.ip()) }
    }
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain(stream, _) => {
                let $stream = Pin::new(stream);
                $call
            }
            Self::Secured(stream, _) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}

/// The connections that a listener has accepted, for tonic.
pub type Incoming = mpsc::Receiver<io::Result<Connection>>;

/// Accepts connections until the first receiver is dropped. The first receiver gets those of callers of the site, the
/// second those of callers that want to join it. Without TLS all go to the first.
pub fn incoming(
    listener: TcpListener,
    tls: Option<Tls>,
    admission: Admission,
) -> (Incoming, Incoming) {
    let (known, members) = mpsc::channel(WAITING);
    let (joining, newcomers) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let (stream, from, ticket) = tokio::select! {
                accepted = admission.accept(&listener) => accepted,
                () = known.closed() => return,
            };
            let (tls, known, joining) = (tls.clone(), known.clone(), joining.clone());
            tokio::spawn(async move {
                // A receiver that was dropped takes nothing; the connection is closed.
                if let Some((newcomer, connection)) = shake_hands(stream, from, tls, ticket).await {
                    let to = if newcomer { joining } else { known };
                    let _ = to.send(Ok(connection)).await;
                }
            });
        }
    });
    (members, newcomers)
}

/// The connection, and whether it is a newcomer's.
async fn shake_hands(
    stream: TcpStream,
    from: SocketAddr,
    tls: Option<Tls>,
    ticket: Ticket,
) -> Option<(bool, Connection)> {
    // Orders are small and waited for: none of them waits for another to fill a packet.
    stream.set_nodelay(true).ok()?;
    let Some(tls) = tls else {
        return Some((false, Connection::Plain(stream, ticket.unnamed().ok()?)));
    };
    match timeout(HANDSHAKE_WITHIN, tls.accept_any(stream)).await {
        Ok(Ok(Accepted::Known(mut stream, shown))) => {
            let held = stream.get_mut().0;
            held.end_after(ticket.age_limit(from));
            held.hold(ticket.known(&shown.identity).ok()?);
            Some((false, Connection::Secured(stream, Caller::Known(Arc::new(shown)))))
        }
        Ok(Ok(Accepted::Joining(mut stream))) => {
            let held = stream.get_mut().0;
            held.hold(ticket.newcomer().ok()?);
            held.end_after(JOIN_WITHIN);
            Some((true, Connection::Secured(stream, Caller::Anonymous)))
        }
        Ok(Err(why)) => {
            tracing::info!(%from, %why, "a caller is refused");
            None
        }
        Err(_) => None,
    }
}

/// `host:port` of an address that may be written as a URL.
pub fn authority_of(address: &str) -> &str {
    let (_, rest) = address.split_once("://").unwrap_or(("", address));
    rest.trim_end_matches('/')
}

/// Makes an endpoint of `host:port`, or of a URL.
///
/// # Errors
/// If it is no address.
pub fn endpoint(address: &str) -> Result<Endpoint, Error> {
    // The scheme says nothing here: whether there is TLS is for the certificates to say.
    Endpoint::from_shared(format!("http://{}", authority_of(address)))
}

/// Calls a coordinator; without TLS if there is none.
///
/// # Errors
/// If it cannot be reached, or one side does not believe the other.
pub async fn connect(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Channel, Error> {
    match tls {
        None => endpoint.connect().await,
        Some(tls) => {
            let tls = tls.clone();
            let dial = move |uri: Uri| secured(uri, tls.clone());
            endpoint.connect_with_connector(tower::service_fn(dial)).await
        }
    }
}

/// Calls a coordinator as [`connect`] does, when the channel is first used, and again when it broke.
pub fn connect_lazy(endpoint: &Endpoint, tls: Option<&Tls>) -> Channel {
    match tls {
        None => endpoint.connect_lazy(),
        Some(tls) => {
            let tls = tls.clone();
            let dial = move |uri: Uri| secured(uri, tls.clone());
            endpoint.connect_with_connector_lazy(tower::service_fn(dial))
        }
    }
}

/// Calls a coordinator as a newcomer.
///
/// # Errors
/// If it cannot be reached, or is none of the token's site.
pub async fn join(endpoint: &Endpoint, token: &Token) -> Result<Channel, Error> {
    let authority = token.authority();
    let dial = move |uri: Uri| async move {
        let stream = tcp(&uri).await?;
        greeted(links::join(stream, authority).await?).await
    };
    endpoint.connect_with_connector(tower::service_fn(dial)).await
}

async fn secured(uri: Uri, tls: Tls) -> Result<TokioIo<Stream<TcpStream>>, LinkError> {
    let stream = tcp(&uri).await?;
    let (mut stream, _) = tls.connect(stream, Role::Coordinator, Purpose::Control).await?;
    if let Some(authority) = uri.authority() {
        stream.get_mut().0.dialled(authority.as_str());
    }
    greeted(stream).await
}

async fn tcp(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
    let address = (host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(7400));
    let stream = timeout(HANDSHAKE_WITHIN, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits for the first word, which a coordinator says unasked: a caller it refuses learns why, instead of
/// finding the connection closed at its first request.
async fn greeted(mut stream: Stream<TcpStream>) -> Result<TokioIo<Stream<TcpStream>>, LinkError> {
    let word = timeout(HANDSHAKE_WITHIN, stream.fill_buf())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if word.is_empty() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(TokioIo::new(stream))
}
