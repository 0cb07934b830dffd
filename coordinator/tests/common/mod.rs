//! A real coordinator process, and agents that are played over gRPC.
#![allow(dead_code, reason = "each test file uses some of it")]

pub mod coordinators;
pub mod site;

use std::{
    fs::OpenOptions,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rackferry_proto::v1::{
    CheckReport, CommitRequest, ConnectRequest, ConnectResponse, CreateEvacuationRequest,
    Evacuation, GetClusterRequest, Hello, HostReport, MigrationEnded, Outcome, RunState,
    SourceStopped, SwitchoverRequest, TargetReady, TargetRunning, VmState,
    agent_service_client::AgentServiceClient, cluster_service_client::ClusterServiceClient,
    connect_request as up, connect_response as down,
    evacuation_service_client::EvacuationServiceClient,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Nothing takes longer, on a slow machine either.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A coordinator process; killed when dropped.
pub struct Coordinator {
    child: Child,
    pub port: u16,
}

impl Coordinator {
    /// Starts one on its folder and port, and waits until it answers.
    pub async fn start(dir: &Path, port: u16) -> Self {
        Self::start_with(dir, port, "").await
    }

    /// The same with more settings.
    pub async fn start_with(dir: &Path, port: u16, settings: &str) -> Self {
        let coordinator = Self { child: spawn(dir, port, settings), port };
        let channel = coordinator.channel().await;
        // It listens before it has its log.
        let asked = ClusterServiceClient::new(channel).get_cluster(GetClusterRequest {}).await;
        asked.expect("it answers");
        coordinator
    }

    /// One that was started as a process by itself.
    pub fn of(child: Child, port: u16) -> Self {
        Self { child, port }
    }

    pub async fn channel(&self) -> Channel {
        channel(self.port).await
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let signal = format!("-{name}");
        assert!(Command::new("kill").args([&signal, &pid]).status().unwrap().success());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a coordinator says of a service (of none: of itself) that it serves, or that it does not.
pub async fn health_becomes(port: u16, service: &str, serves: bool) {
    let mut health = HealthClient::new(channel(port).await);
    let becomes = async {
        loop {
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = health.check(request).await.unwrap().into_inner();
            if (answer.status() == ServingStatus::Serving) == serves {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, becomes).await.expect("its health becomes so");
}

/// A connection to the port, as soon as a coordinator listens there.
pub async fn channel(port: u16) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let connect = async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(LIMIT, connect).await.expect("the coordinator answers")
}

/// The process, by itself, without TLS: what it does behind its doors is the same.
pub fn spawn(dir: &Path, port: u16, settings: &str) -> Child {
    let log = "debug,h2=info,hyper_util=info,tower=info";
    spawn_with(dir, port, "tls = 'off'", settings, log)
}

/// The process, by itself. `first` stands before all sections.
pub fn spawn_with(dir: &Path, port: u16, first: &str, settings: &str, log_filter: &str) -> Child {
    let config = dir.join("coordinator.toml");
    let data = dir.join("data");
    let text = format!(
        "{first}\n[server]\nlisten = '127.0.0.1:{port}'\n[storage]\ndir = '{}'\n{settings}\n",
        data.display()
    );
    std::fs::write(&config, text).unwrap();
    let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    // A measurement compares with another build.
    let binary = std::env::var("COORDINATOR")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_rackferry-coordinator").to_owned());
    Command::new(binary)
        .arg("--config")
        .arg(&config)
        .env("RACKFERRY_LOG", log_filter)
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// A port that no process listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An agent, played by the test. Whether VMs can move it answers by itself: nothing is found.
pub struct Agent {
    says: mpsc::Sender<ConnectRequest>,
    hears: mpsc::Receiver<Result<down::Message, Status>>,
}

/// Answers questions and passes everything else on, until the stream ends.
async fn answer_checks(
    mut stream: Streaming<ConnectResponse>,
    says: mpsc::WeakSender<ConnectRequest>,
    hears: mpsc::Sender<Result<down::Message, Status>>,
) {
    loop {
        let message = match stream.message().await {
            Ok(Some(ConnectResponse { message: Some(message) })) => message,
            Ok(Some(_)) => panic!("an order is not empty"),
            Ok(None) => return,
            Err(status) => {
                let _ = hears.send(Err(status)).await;
                return;
            }
        };
        let check = match &message {
            down::Message::CheckSource(check) => check.check,
            down::Message::CheckTarget(check) => check.check,
            _ => {
                if hears.send(Ok(message)).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let report = CheckReport { check, clock_unix_ms: now, ..CheckReport::default() };
        let Some(says) = says.upgrade() else { return };
        send(&says, up::Message::CheckReport(report)).await;
    }
}

impl Agent {
    /// Connects, introduces itself and waits until the coordinator has taken it in.
    pub async fn connect(
        coordinator: &Coordinator,
        host: &str,
        rack: &str,
        vms: Vec<VmState>,
    ) -> Self {
        Self::over(coordinator.channel().await, host, rack, vms).await.unwrap()
    }

    /// The same over a channel; fails where the coordinator does not lead.
    pub async fn over(
        channel: Channel,
        host: &str,
        rack: &str,
        vms: Vec<VmState>,
    ) -> Result<Self, Status> {
        Self::of_installation(channel, host, rack, "", vms).await
    }

    /// The same, of an installation of its own.
    pub async fn of_installation(
        channel: Channel,
        host: &str,
        rack: &str,
        installation: &str,
        vms: Vec<VmState>,
    ) -> Result<Self, Status> {
        let (says, requests) = mpsc::channel(64);
        let hello = Hello {
            host: host.to_owned(),
            rack: rack.to_owned(),
            page_addr: format!("{host}:7401"),
            memory_bytes: 8 << 30,
            agent_version: "0.1.0".to_owned(),
            boot_id: format!("boot-{host}"),
            installation_id: installation.to_owned(),
            vms,
        };
        send(&says, up::Message::Hello(hello)).await;
        let mut client = AgentServiceClient::new(channel);
        let mut stream = client.connect(ReceiverStream::new(requests)).await?.into_inner();
        let (heard, hears) = mpsc::channel(1024);
        // A read is answered beside the driver: before the welcome it may not know this agent yet.
        let first = timeout(LIMIT, stream.message()).await.expect("a welcome or a refusal");
        if let Some(first) = first.transpose() {
            heard.send(first.map(|first| first.message.unwrap())).await.unwrap();
        }
        tokio::spawn(answer_checks(stream, says.downgrade(), heard));
        Ok(Self { says, hears })
    }

    /// Everything that still comes until the stream ends.
    pub async fn rest(&mut self) -> Vec<down::Message> {
        let mut rest = Vec::new();
        while let Some(message) = self.try_hear().await {
            rest.push(message);
        }
        rest
    }

    /// What ends the stream; None if it ends without a word.
    pub async fn end(&mut self) -> Option<Status> {
        let end = async {
            loop {
                match self.hears.recv().await {
                    Some(Ok(_)) => {}
                    None => return None,
                    Some(Err(status)) => return Some(status),
                }
            }
        };
        timeout(LIMIT, end).await.expect("the stream ends")
    }

    pub async fn say(&self, message: up::Message) {
        send(&self.says, message).await;
    }

    pub async fn report(&self, vms: Vec<VmState>) {
        self.say(up::Message::HostReport(HostReport { memory_free_bytes: 8 << 30, vms })).await;
    }

    /// The next order that is not about the rack.
    pub async fn hear(&mut self) -> down::Message {
        loop {
            let message = self.hear_any().await;
            let site = matches!(
                message,
                down::Message::Welcome(_) | down::Message::RackView(_) | down::Message::Expelled(_)
            );
            if !site {
                return message;
            }
        }
    }

    /// The next message, unless the stream ends first.
    pub async fn try_hear(&mut self) -> Option<down::Message> {
        timeout(LIMIT, self.hears.recv()).await.expect("a word comes")?.ok()
    }

    pub async fn hear_any(&mut self) -> down::Message {
        let message = timeout(LIMIT, self.hears.recv()).await.expect("an order comes");
        message.expect("the stream is open").unwrap()
    }
}

async fn send(says: &mpsc::Sender<ConnectRequest>, message: up::Message) {
    says.send(ConnectRequest { message: Some(message) }).await.expect("the stream is open");
}

pub fn vm(name: &str, run_state: RunState, migration_id: &str) -> VmState {
    VmState {
        name: name.to_owned(),
        memory_bytes: 1 << 30,
        run_state: run_state.into(),
        migration_id: migration_id.to_owned(),
        spec_toml: "memory = '1G'".to_owned(),
        ..VmState::default()
    }
}

/// Of rack `a` to rack `b`.
pub fn request(request_id: &str) -> CreateEvacuationRequest {
    CreateEvacuationRequest {
        sources: vec!["a".to_owned()],
        targets: vec!["b".to_owned()],
        request_id: request_id.to_owned(),
        ..CreateEvacuationRequest::default()
    }
}

pub async fn create(coordinator: &Coordinator, request: CreateEvacuationRequest) -> Evacuation {
    let mut client = EvacuationServiceClient::new(coordinator.channel().await);
    client.create_evacuation(request).await.unwrap().into_inner().evacuation.unwrap()
}

/// Both agents up to a granted commit; the migration's id and generation.
pub async fn up_to_the_commit(source: &mut Agent, target: &mut Agent) -> (String, u64) {
    let down::Message::PrepareTarget(prepare) = target.hear().await else { panic!("not prepare") };
    assert_eq!(prepare.spec_toml, "memory = '1G'");
    let migration_id = prepare.migration_id;
    target.say(up::Message::TargetReady(TargetReady { migration_id: migration_id.clone() })).await;
    let down::Message::StartSource(start) = source.hear().await else { panic!("not start") };
    assert_eq!((start.target_host.as_str(), start.target_page_addr.as_str()), ("b1", "b1:7401"));
    assert_eq!((start.session, start.generation), (prepare.session, prepare.generation));
    let asked = SwitchoverRequest { migration_id: migration_id.clone() };
    source.say(up::Message::SwitchoverRequest(asked)).await;
    assert!(matches!(source.hear().await, down::Message::SwitchoverGrant(_)));
    let generation = start.generation;
    let commit = CommitRequest { migration_id: migration_id.clone(), generation };
    source.say(up::Message::CommitRequest(commit)).await;
    let down::Message::CommitDecision(decision) = source.hear().await else {
        panic!("not decided")
    };
    assert!(decision.granted, "{}", decision.reason);
    (migration_id, generation)
}

/// Plays a move of `web` to its end.
pub async fn moves(source: &mut Agent, target: &mut Agent) {
    let (migration_id, _) = up_to_the_commit(source, target).await;
    let stopped = SourceStopped { migration_id: migration_id.clone() };
    source.say(up::Message::SourceStopped(stopped)).await;
    assert!(matches!(target.hear().await, down::Message::ResumeTarget(_)));
    let running = TargetRunning { migration_id: migration_id.clone() };
    target.say(up::Message::TargetRunning(running)).await;
    let ended = MigrationEnded {
        migration_id: migration_id.clone(),
        outcome: Outcome::Moved.into(),
        ..MigrationEnded::default()
    };
    source.say(up::Message::Ended(ended)).await;
    source.report(vec![]).await;
    target.report(vec![vm("web", RunState::Running, "")]).await;
}
