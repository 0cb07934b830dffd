//! Agents in this process, each with a coordinator that is played.

use std::path::Path;
use std::time::Duration;

use rackferry_agent::agent::Agent;
use rackferry_agent::config::Config;
use rackferry_agent::policy::Policy;
use rackferry_agent::vm::{ManagerConfig, Qemu, QemuUids, VmManager};
use rackferry_agent::{server, task};
use rackferry_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use rackferry_proto::v1::connect_request::Message as Up;
use rackferry_proto::v1::connect_response::Message as Down;
use rackferry_proto::v1::{ConnectRequest, ConnectResponse, Welcome};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Nothing takes longer, on a slow machine either.
const LIMIT: Duration = Duration::from_secs(120);

/// A stream of an agent, as its coordinator has it.
pub struct Stream {
    says: Streaming<ConnectRequest>,
    orders: mpsc::Sender<Result<ConnectResponse, Status>>,
}

/// A host whose agent runs in this process.
pub struct Host {
    pub agent: Agent,
    pub page_addr: String,
    streams: mpsc::Receiver<Stream>,
    folder: tempfile::TempDir,
}

impl Host {
    pub async fn start(name: &str, qemu: &Qemu) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (played, streams) = mpsc::channel(4);
        let coordinator = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let coordinator_addr = coordinator.local_addr().unwrap();
        let service = AgentServiceServer::new(Played { streams: played });
        let incoming = TcpListenerStream::new(coordinator);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        let pages = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let page_addr = pages.local_addr().unwrap().to_string();
        let config = folder.path().join("agent.toml");
        let text = format!(
            "host = '{name}'\nrack = '{name}'\ncoordinator = 'http://{coordinator_addr}'\n\
             listen = '{page_addr}'\nstate_dir = '{}'\nguest_memory_mib = 128\nindex_mib = 1\n\
             content_mib = 1\ntls = 'off'\n[qemu]\nbinary = {:?}\nfirmware = {:?}\n",
            folder.path().display(),
            qemu.binary,
            qemu.firmware,
        );
        std::fs::write(&config, text).unwrap();
        let manager = ManagerConfig {
            state_dir: folder.path().to_owned(),
            memory_ceiling_bytes: 128 << 20,
            qemu: qemu.clone(),
            preallocate: None,
            policy: Policy { paths: vec![std::env::temp_dir()], ..Policy::default() },
            qemu_uids: QemuUids::default(),
        };
        let (vms, _) = VmManager::open(manager).await.unwrap();
        let (agent, inputs) = Agent::new(Config::load(&config).unwrap(), vms, None).unwrap();
        tokio::spawn(task::run(agent.clone(), inputs));
        tokio::spawn(server::run(agent.clone(), pages));
        Self { agent, page_addr, streams, folder }
    }

    /// Its next stream; it is welcomed with this number.
    pub async fn stream(&mut self, host_id: u32) -> Stream {
        let streams = self.streams.recv();
        let mut stream = tokio::time::timeout(LIMIT, streams).await.unwrap().unwrap();
        stream.hears(|up| matches!(up, Up::Hello(_))).await;
        stream
            .order(Down::Welcome(Welcome { host_id, domain_key: vec![9; 32], incarnation: 0 }))
            .await;
        stream
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let folder = self.folder.path().as_os_str().as_encoded_bytes();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let command = std::fs::read(Path::new("/proc").join(&name).join("cmdline"));
            let ours = command.is_ok_and(|c| c.windows(folder.len()).any(|w| w == folder));
            if ours && let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

impl Stream {
    pub async fn order(&self, order: Down) {
        self.orders.send(Ok(ConnectResponse { message: Some(order) })).await.unwrap();
    }

    /// The next message of this kind; others are passed over.
    pub async fn hears(&mut self, kind: impl Fn(&Up) -> bool) -> Up {
        let mut others = Vec::new();
        let listening = async {
            loop {
                let up = self.says.message().await.unwrap().unwrap().message.unwrap();
                if kind(&up) {
                    return up;
                }
                if !matches!(up, Up::HostReport(_) | Up::Progress(_)) {
                    others.push(up);
                }
            }
        };
        let heard = tokio::time::timeout(LIMIT, listening).await;
        heard.unwrap_or_else(|_| panic!("it says nothing of the kind, only {others:?}"))
    }
}

struct Played {
    streams: mpsc::Sender<Stream>,
}

#[tonic::async_trait]
impl AgentService for Played {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (orders, to_agent) = mpsc::channel(8);
        let says = request.into_inner();
        self.streams.send(Stream { says, orders }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(to_agent)))
    }
}
