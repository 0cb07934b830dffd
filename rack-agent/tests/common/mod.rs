//! A real agent process in a site with TLS, and a coordinator that is played over gRPC.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rackferry_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use rackferry_proto::v1::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use rackferry_proto::v1::{
    ConnectRequest, ConnectResponse, CreateTokenRequest, CreateTokenResponse,
    ExpelCertificateRequest, ExpelCertificateResponse, Expelled, ListExpelledCertificatesRequest,
    ListExpelledCertificatesResponse, PrepareTarget, RackMember, RackView,
    ReadmitCertificateRequest, ReadmitCertificateResponse, RenewRequest, RenewResponse, Welcome,
    connect_response::Message,
};
use rackferry_tls::authority::LIFE;
use rackferry_tls::{Admission, Authority, Identity, Role, Tls, grpc};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// The agent's host.
pub const HOST: &str = "r1-h1";
/// The one other host of its rack.
pub const NEIGHBOUR: &str = "neighbour";
/// That one's number.
pub const NEIGHBOUR_ID: u32 = 7;
/// The key of the dedup domain: bytes that stand nowhere by chance.
pub const KEY: [u8; 32] = *b"\x91\xa3\x17\xe4 secret of the domain \xc2\x88\xf0\x05\xdd\x1b";
/// Nothing takes longer, on a slow machine either.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Site {
    dir: tempfile::TempDir,
    pub authority: Authority,
    pub page_addr: String,
    agent: Child,
    tls: String,
    /// Whom the coordinator calls expelled.
    pub expelled: watch::Sender<Expelled>,
    /// The incarnation of the coordinator's cluster; streams end when it changes.
    pub incarnation: watch::Sender<u64>,
}

impl Site {
    /// A site whose agent runs, with a certificate that is good for so long.
    pub async fn start(life: time::Duration) -> Self {
        Self::start_with(life, None).await
    }

    /// A site whose agent has these settings, too.
    pub async fn start_set(settings: &str) -> Self {
        Self::start_all(LIFE, None, settings).await
    }

    /// The same; the coordinator orders this as soon as the agent is welcome.
    pub async fn start_with(life: time::Duration, prepare: Option<PrepareTarget>) -> Self {
        Self::start_all(life, prepare, "").await
    }

    async fn start_all(
        life: time::Duration,
        prepare: Option<PrepareTarget>,
        settings: &str,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("ca")).unwrap();
        let issue = |role, name: &str, life| {
            let own = dir.path().join(name);
            authority.issue(&own, &Identity::new(role, name), life).unwrap();
        };
        issue(Role::Coordinator, "coordinator", LIFE);
        issue(Role::Agent, HOST, life);
        let tls = Tls::open(&dir.path().join("coordinator"), &[Role::Coordinator]).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let coordinator = listener.local_addr().unwrap().to_string();
        let (members, _newcomers) = grpc::incoming(listener, Some(tls), Admission::default());
        let (expelled, told) = watch::channel(Expelled::default());
        let (incarnation, of_cluster) = watch::channel(0);
        let ca = dir.path().join("ca");
        let played = Played { ca, prepare, expelled: told, incarnation: of_cluster };
        let server = Server::builder()
            .add_service(AgentServiceServer::new(played.clone()))
            .add_service(EnrolmentServiceServer::new(played));
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(members)));
        let own = dir.path().join(HOST);
        let own = format!("tls = {{ dir = '{}' }}\n{settings}", own.display());
        let page_addr = free_addr();
        let agent = spawn(dir.path(), &page_addr, &coordinator, &own);
        Self { dir, authority, page_addr, agent, tls: own, expelled, incarnation }
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn issue(&self, role: Role, name: &str) -> Tls {
        self.issue_for(role, name, LIFE)
    }

    pub fn issue_for(&self, role: Role, name: &str, life: time::Duration) -> Tls {
        self.authority.issue(&self.folder(name), &Identity::new(role, name), life).unwrap();
        Tls::open(&self.folder(name), &[role]).unwrap()
    }

    /// The agent is killed, and another one starts that reaches no coordinator.
    pub fn restart_alone(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
        self.agent = spawn(self.dir.path(), &self.page_addr, "127.0.0.1:1", &self.tls);
    }

    /// What the agent has logged.
    pub fn log(&self) -> String {
        log(self.dir.path())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// Waits until something holds.
pub async fn wait_for(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("it comes about");
}

/// How an agent with these settings of TLS ends, and what it says.
pub fn ends(tls: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let code = spawn(dir.path(), &free_addr(), "127.0.0.1:1", tls).wait().unwrap().code();
    (code, log(dir.path()))
}

fn spawn(dir: &Path, page_addr: &str, coordinator: &str, tls: &str) -> Child {
    let config = dir.join("agent.toml");
    let text = format!(
        "host = '{HOST}'\nrack = 'r1'\ncoordinator = '{coordinator}'\nlisten = '{page_addr}'\n\
         state_dir = '{}'\nguest_memory_mib = 64\nindex_mib = 1\ncontent_mib = 1\n{tls}\n",
        dir.join("state").display(),
    );
    std::fs::write(&config, text).unwrap();
    let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_rackferry-agent"))
        .arg("--config")
        .arg(&config)
        .env("RACKFERRY_LOG", "trace")
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn log(dir: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(dir.join("log")).unwrap()).into_owned()
}

fn free_addr() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A coordinator that welcomes every agent, and signs every request.
#[derive(Clone)]
struct Played {
    ca: PathBuf,
    prepare: Option<PrepareTarget>,
    expelled: watch::Receiver<Expelled>,
    incarnation: watch::Receiver<u64>,
}

#[tonic::async_trait]
impl AgentService for Played {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut says = request.into_inner();
        let (orders, to_agent) = mpsc::channel(8);
        let mut cluster = self.incarnation.clone();
        let incarnation = *cluster.borrow_and_update();
        let domain_key = KEY.to_vec();
        let welcome = Message::Welcome(Welcome { host_id: 1, domain_key, incarnation });
        let member = RackMember {
            host_id: NEIGHBOUR_ID,
            host: NEIGHBOUR.to_owned(),
            page_addr: "127.0.0.1:1".to_owned(),
            receives: None,
        };
        let view = RackView { epoch: 1, members: vec![member], open_crossings: Vec::new() };
        let prepare = self.prepare.clone().map(Message::PrepareTarget);
        let messages = [Some(welcome), Some(Message::RackView(view)), prepare];
        for message in messages.into_iter().flatten() {
            orders.send(Ok(ConnectResponse { message: Some(message) })).await.unwrap();
        }
        let mut expelled = self.expelled.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok(()) = cluster.changed() => return,
                    said = says.message() => if !matches!(said, Ok(Some(_))) { return },
                    Ok(()) = expelled.changed() => {
                        let list = expelled.borrow_and_update().clone();
                        let message = Some(Message::Expelled(list));
                        orders.send(Ok(ConnectResponse { message })).await.unwrap();
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(to_agent)))
    }
}

#[tonic::async_trait]
impl EnrolmentService for Played {
    async fn create_token(
        &self,
        _: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn expel_certificate(
        &self,
        _: Request<ExpelCertificateRequest>,
    ) -> Result<Response<ExpelCertificateResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn readmit_certificate(
        &self,
        _: Request<ReadmitCertificateRequest>,
    ) -> Result<Response<ReadmitCertificateResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn list_expelled_certificates(
        &self,
        _: Request<ListExpelledCertificatesRequest>,
    ) -> Result<Response<ListExpelledCertificatesResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let authority = Authority::load(&self.ca).unwrap();
        let holder = Identity::new(Role::Agent, HOST);
        let certificate_pem =
            authority.sign(&request.into_inner().request_pem, &holder, LIFE).unwrap();
        Ok(Response::new(RenewResponse { certificate_pem, ca_pem: authority.pem }))
    }
}
