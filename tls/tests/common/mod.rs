//! A site with its CA, and links between two of its programs.

use rackferry_tls::{Authority, Identity, LinkError, Purpose, Role, Stream, Tls, authority::LIFE};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub struct Site {
    pub dir: tempfile::TempDir,
    pub authority: Authority,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        Self { dir, authority }
    }

    pub fn folder(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub fn issue(&self, role: Role, name: &str) -> Tls {
        self.authority.issue(&self.folder(name), &Identity::new(role, name), LIFE).unwrap();
        Tls::open(&self.folder(name), &[role]).unwrap()
    }
}

/// One end of a link, and the identity that it has met.
pub type Linked = Result<(Stream<DuplexStream>, Identity), LinkError>;

/// Links one to another.
pub async fn link(from: &Tls, to: &Tls, role: Role, purpose: Purpose) -> (Linked, Linked) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let calling = async {
        let (mut stream, identity) = from.connect(near, role, purpose).await?;
        // Only what is read tells whether it was let in.
        stream.read_u8().await?;
        Ok((stream, identity))
    };
    let called = async {
        let (mut stream, identity) = to.accept(far, purpose).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        Ok((stream, identity))
    };
    tokio::join!(calling, called)
}
