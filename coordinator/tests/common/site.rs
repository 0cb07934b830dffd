//! A site with TLS: its CA, its coordinator's process, and callers.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rackferry_tls::{Authority, Identity, Role, Tls, authority::LIFE, grpc};
use tonic::transport::{Channel, Endpoint};

use super::{Coordinator, LIMIT, free_port, spawn_with};

/// Everything, so that nothing hides below a level.
pub const LOG_ALL: &str = "trace";

pub struct Site {
    pub dir: tempfile::TempDir,
    pub authority: Authority,
    pub port: u16,
}

impl Site {
    /// A site whose coordinator is not there yet.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("ca")).unwrap();
        let site = Self { dir, authority, port: free_port() };
        site.issue(Role::Coordinator, "c1");
        site.authority.lend(&site.folder("c1")).unwrap();
        site
    }

    /// The folder of the certificate with this name.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join("certificates").join(name)
    }

    /// Issues a certificate of a role and a name.
    pub fn issue(&self, role: Role, name: &str) -> Tls {
        self.issue_for(role, name, LIFE)
    }

    pub fn issue_for(&self, role: Role, name: &str, life: time::Duration) -> Tls {
        let dir = self.folder(name);
        self.authority.issue(&dir, &Identity::new(role, name), life).unwrap();
        Tls::open(&dir, &[role]).unwrap()
    }

    /// The coordinator, once it answers.
    pub async fn start(&self) -> Coordinator {
        self.start_with("c1", self.dir.path(), self.port, "").await
    }

    pub async fn start_with(
        &self,
        name: &str,
        dir: &Path,
        port: u16,
        settings: &str,
    ) -> Coordinator {
        std::fs::create_dir_all(dir).unwrap();
        let tls = format!("tls = {{ dir = '{}' }}", self.folder(name).display());
        let child = spawn_with(dir, port, &tls, settings, LOG_ALL);
        let coordinator = Coordinator::of(child, port);
        let anybody = self.issue(Role::Viewer, "waiting");
        let up = async {
            while grpc::connect(&endpoint(port), Some(&anybody)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, up).await.expect("the coordinator answers");
        coordinator
    }

    /// What the coordinator has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("log")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The connection of a caller with a certificate.
    pub async fn channel(&self, tls: &Tls) -> Channel {
        grpc::connect(&endpoint(self.port), Some(tls)).await.unwrap()
    }

    /// The connection of a caller with a new certificate of a role.
    pub async fn caller(&self, role: Role) -> Channel {
        self.channel(&self.issue(role, role.as_str())).await
    }
}

pub fn endpoint(port: u16) -> Endpoint {
    grpc::endpoint(&format!("127.0.0.1:{port}")).unwrap()
}
