//! The unix socket of a QEMU's migration stream. QEMU may run as a user of its own, in a folder of its own, and then knows the
//! socket by another name than the agent.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::PathBuf;

use tokio::net::{UnixListener, UnixStream};

/// Where QEMU and its agent meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSocket {
    /// The agent's path to it.
    pub path: PathBuf,
    /// QEMU's path to it.
    pub qemu_path: PathBuf,
    /// QEMU's user, if that is another one than the agent's.
    pub uid: Option<u32>,
}

impl StreamSocket {
    /// A socket that both know by the same name and may use alike.
    #[must_use]
    pub fn shared(path: PathBuf) -> Self {
        Self { qemu_path: path.clone(), path, uid: None }
    }

    /// Listens for QEMU, in a folder that QEMU cannot write to. Beside the agent only QEMU's user can connect.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn listen(&self) -> io::Result<UnixListener> {
        self.remove();
        let listener = UnixListener::bind(&self.path)?;
        if self.uid.is_some() {
            lchown(&self.path, self.uid, None)?;
        }
        Ok(listener)
    }

    /// Connects to the socket that QEMU listens on. A QEMU in foreign hands may have put a link there that leads elsewhere: then
    /// nothing is said.
    ///
    /// # Errors
    /// It does not listen, or another user does.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.path).await?;
        let there = stream.peer_cred()?.uid();
        match self.uid {
            Some(uid) if there != uid => {
                let why = format!("user {there} listens at {}, not {uid}", self.path.display());
                Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
            }
            _ => Ok(stream),
        }
    }

    /// Removes what is there.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_to_a_socket_of_another_user_is_not_spoken_to() {
        let folder = tempfile::tempdir().unwrap();
        let socket = StreamSocket::shared(folder.path().join("other.sock"));
        let _listener = socket.listen().unwrap();
        socket.connect().await.unwrap();
        let path = folder.path().join("migrate.sock");
        std::os::unix::fs::symlink(&socket.path, &path).unwrap();
        let own = rustix::process::geteuid().as_raw();
        let planted = StreamSocket { uid: Some(own + 1), ..StreamSocket::shared(path) };
        let refused = planted.connect().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
    }
}
