//! Framed connections: a reader that checks before it allocates, a writer that sends pages from where they lie.

use std::io::IoSlice;
use std::time::Duration;

use rackferry_migrator_protocol::frame::{self, FrameError, HEADER_LEN, Header, Hello, Kind, Role};
use rackferry_tls::admission::{Place, Refused, Ticket};
use rackferry_tls::{Identity, LinkError, Purpose, Role as Who, Stream, Tls};
use rustix::net::sockopt;
use socket2::SockRef;
use thiserror::Error;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::either::Either;

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum ConnError {
    /// The network said so.
    #[error("{}", rackferry_tls::links::explain(.0))]
    Io(#[from] std::io::Error),
    /// The peer sent something that is not our protocol.
    #[error("protocol error: {0}")]
    Frame(#[from] FrameError),
    /// The peer closed the connection.
    #[error("closed by the peer")]
    Closed,
    /// There is no TLS with the peer.
    #[error(transparent)]
    Tls(#[from] LinkError),
    /// The peer is not the expected agent.
    #[error("the peer is {0}, not the expected agent")]
    Stranger(Identity),
    /// The peer, or all callers together, have too many connections here.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The peer did not answer the greeting in time.
    #[error("no answer to the greeting within {0:?}")]
    Greeting(Duration),
}

/// A connection on which nothing is said is probed after so long.
const PROBE_AFTER: Duration = Duration::from_secs(5);

/// A peer that has not acknowledged anything for so long is gone: longer than a link's failover takes, since a session
/// that survives it has lost nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// Most parts of one vectored write; Linux takes 1024.
const MAX_IOV: usize = 512;

/// Encrypted bytes read ahead: TLS asks for 4 KiB at a time, which would be a system call for each page.
const READ_AHEAD: usize = 128 << 10;

/// Bytes that a session's socket takes in beyond what it may put on the link now: what a stopped VM's last bytes would
/// have to wait behind, times the sessions that share the link.
const UNSENT_MAX: u32 = 32 << 10;

/// How long a peer may take to greet.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames of `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner }
    }

    /// The next frame: its payload is written into `payload`, whose memory is reused. Not cancel safe.
    pub async fn next(&mut self, payload: &mut Vec<u8>) -> Result<Kind, ConnError> {
        let mut head = [0; HEADER_LEN];
        match self.inner.read_exact(&mut head).await {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(ConnError::Closed);
            }
            other => other?,
        };
        let header = Header::decode(&head)?;
        payload.clear();
        payload.reserve(header.len);
        let mut limited = (&mut self.inner).take(header.len as u64);
        while payload.len() < header.len {
            if limited.read_buf(payload).await? == 0 {
                return Err(ConnError::Closed);
            }
        }
        header.check(payload)?;
        Ok(header.kind)
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Frames into `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner }
    }

    /// The same frames into something around its inside.
    pub fn around<X>(self, around: impl FnOnce(W) -> X) -> FrameWriter<X> {
        FrameWriter { inner: around(self.inner) }
    }

    /// Sends one frame whose payload is the concatenation of `parts`; returns the bytes written. Not cancel safe.
    pub async fn send(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<usize, ConnError> {
        let head = frame::header(kind, parts.iter().copied());
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(parts.len() + 1);
        slices.push(IoSlice::new(&head));
        slices.extend(parts.iter().map(|p| IoSlice::new(p)));
        let total = slices.iter().map(|s| s.len()).sum();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let n = left.len().min(MAX_IOV);
            let written = self.inner.write_vectored(&left[..n]).await?;
            if written == 0 && left.iter().any(|s| !s.is_empty()) {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
        // TLS may have taken what the socket has not.
        self.inner.flush().await?;
        Ok(total)
    }
}

type Secured = Stream<BufReader<TcpStream>>;
/// What a page connection is read from.
pub type PageRead = Either<OwnedReadHalf, ReadHalf<Secured>>;
/// What it is written to.
pub type PageWrite = Either<OwnedWriteHalf, WriteHalf<Secured>>;
/// Both halves of a page connection.
pub type Framed = (FrameReader<PageRead>, FrameWriter<PageWrite>);

/// Makes a connected socket one for pages; a peer that vanished without a word shows as an error after 20 s.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_AFTER)?;
    sockopt::set_tcp_user_timeout(stream, SILENCE_LIMIT.as_millis() as u32)?;
    Ok(())
}

fn plain(stream: TcpStream) -> Framed {
    let (read, write) = stream.into_split();
    (FrameReader::new(Either::Left(read)), FrameWriter::new(Either::Left(write)))
}

fn secured(stream: Secured) -> Framed {
    let (read, write) = tokio::io::split(stream);
    (FrameReader::new(Either::Right(read)), FrameWriter::new(Either::Right(write)))
}

/// The caller's side of a socket: over TLS with the agent of `host` and no other peer, or plain.
async fn call(
    stream: TcpStream,
    host: &str,
    role: &Role,
    tls: Option<&Tls>,
) -> Result<Framed, ConnError> {
    prepare(&stream)?;
    if matches!(role, Role::Session { .. }) {
        SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX)?;
    }
    let Some(tls) = tls else { return Ok(plain(stream)) };
    let stream = BufReader::with_capacity(READ_AHEAD, stream);
    let (stream, peer) = tls.connect(stream, Who::Agent, Purpose::Pages).await?;
    if peer.name == host { Ok(secured(stream)) } else { Err(ConnError::Stranger(peer)) }
}

/// A caller of the page server.
pub enum Peer {
    /// The agent with this identity. Its connection keeps its place.
    Known(Identity),
    /// A caller without a name, because TLS is off, and its place.
    Unnamed(Place),
}

/// The called side of a socket: over TLS with an agent of the site, or plain.
async fn answer(
    stream: TcpStream,
    tls: Option<&Tls>,
    ticket: Ticket,
) -> Result<(Peer, Framed), ConnError> {
    prepare(&stream)?;
    let Some(tls) = tls else { return Ok((Peer::Unnamed(ticket.unnamed()?), plain(stream))) };
    let stream = BufReader::with_capacity(READ_AHEAD, stream);
    let (mut stream, peer) = tls.accept(stream, Purpose::Pages).await?;
    if peer.role != Who::Agent {
        return Err(ConnError::Stranger(peer));
    }
    stream.get_mut().0.hold(ticket.known(&peer)?);
    Ok((Peer::Known(peer), secured(stream)))
}

/// Connects to the page server of a host's agent and greets. Cancel safe: a dropped future leaves nothing behind.
pub async fn dial(
    addr: &str,
    host: &str,
    hello: &Hello,
    tls: Option<&Tls>,
) -> Result<Framed, ConnError> {
    let greeting = async {
        let stream = TcpStream::connect(addr).await?;
        let (mut reader, mut writer) = call(stream, host, &hello.role, tls).await?;
        let mut payload = Vec::new();
        hello.encode(&mut payload);
        writer.send(Kind::Hello, &[&payload]).await?;
        match reader.next(&mut payload).await? {
            Kind::Hello if Hello::decode(&payload)?.role == Role::Accepted => Ok((reader, writer)),
            got => Err(FrameError::Unexpected { got }.into()),
        }
    };
    tokio::time::timeout(GREETING_LIMIT, greeting)
        .await
        .unwrap_or(Err(ConnError::Greeting(GREETING_LIMIT)))
}

/// The called side: reads the greeting, and answers it with [`accept`] once the caller is known to be welcome.
pub async fn greeting(
    stream: TcpStream,
    tls: Option<&Tls>,
    ticket: Ticket,
) -> Result<(Hello, Peer, Framed), ConnError> {
    let read = async {
        let (peer, (mut reader, writer)) = answer(stream, tls, ticket).await?;
        let mut payload = Vec::new();
        match reader.next(&mut payload).await? {
            Kind::Hello => Ok((Hello::decode(&payload)?, peer, (reader, writer))),
            got => Err(FrameError::Unexpected { got }.into()),
        }
    };
    tokio::time::timeout(GREETING_LIMIT, read)
        .await
        .unwrap_or(Err(ConnError::Greeting(GREETING_LIMIT)))
}

/// Welcomes the caller of a greeted connection.
pub async fn accept<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    host_id: u32,
) -> Result<(), ConnError> {
    let mut payload = Vec::new();
    Hello { host_id, role: Role::Accepted }.encode(&mut payload);
    writer.send(Kind::Hello, &[&payload]).await?;
    Ok(())
}
