//! The stream to the coordinator that leads: dialled again for ever, orders in, messages out.

use std::pin::Pin;
use std::time::Duration;

use rackferry_proto::v1::agent_service_client::AgentServiceClient;
use rackferry_proto::v1::connect_request::Message as Up;
use rackferry_proto::v1::connect_response::Message as Down;
use rackferry_proto::{leader_of, v1};
use rackferry_tls::grpc;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use crate::agent::Agent;
use crate::coordinators::Coordinators;

/// Messages handed to gRPC and not yet sent.
const STREAM: usize = 64;

/// Connecting takes no longer on a healthy network.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

/// Where messages to the coordinator are put.
pub type Sender = mpsc::Sender<v1::ConnectRequest>;

/// What happened to the stream.
#[derive(Debug)]
pub enum Happened {
    /// A coordinator is dialled; what is told from now on is not in the first message.
    Dialling,
    /// The coordinator takes the stream.
    Connected(Sender),
    /// The coordinator gives an order.
    Ordered(Down),
    /// The stream is gone.
    Ended,
}

type Dial = Pin<Box<dyn Future<Output = Result<Connection, Status>> + Send>>;
type Connection = (Sender, Streaming<v1::ConnectResponse>);

enum State {
    Resting(Pin<Box<Sleep>>),
    Dialling(Dial),
    Up(Box<Streaming<v1::ConnectResponse>>),
}

/// The stream to the coordinator that leads.
pub struct Control {
    agent: Agent,
    coordinators: Coordinators,
    state: State,
    /// Whether the log says already that no coordinator can be reached.
    reported: bool,
}

impl Control {
    /// Makes a stream that will be dialled at once.
    pub fn new(agent: Agent) -> Self {
        let coordinators = Coordinators::new(agent.config().coordinator.clone());
        let state = State::Resting(Box::pin(sleep(Duration::ZERO)));
        Self { agent, coordinators, state, reported: false }
    }

    /// Waits for what happens next to the stream. Cancel safe.
    pub async fn next(&mut self) -> Happened {
        loop {
            match &mut self.state {
                State::Resting(pause) => {
                    pause.as_mut().await;
                    let coordinator = self.coordinators.current().to_owned();
                    self.state = State::Dialling(Box::pin(dial(self.agent.clone(), coordinator)));
                    return Happened::Dialling;
                }
                State::Dialling(dial) => match dial.await {
                    Ok((sender, orders)) => {
                        info!(coordinator = self.coordinators.current(), "connected");
                        self.agent.set_connected(true);
                        self.state = State::Up(Box::new(orders));
                        return Happened::Connected(sender);
                    }
                    Err(error) => return self.ended(Some(&error)),
                },
                State::Up(orders) => match orders.message().await {
                    Ok(Some(v1::ConnectResponse { message: Some(order) })) => {
                        return Happened::Ordered(order);
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return self.ended(None),
                    Err(error) => return self.ended(Some(&error)),
                },
            }
        }
    }

    /// Ends the stream; another one follows.
    pub fn restart(&mut self, why: &str) {
        warn!(why, "the stream starts anew");
        self.ended(Some(&closed()));
    }

    fn ended(&mut self, error: Option<&Status>) -> Happened {
        let coordinator = self.coordinators.current();
        let leader = error.and_then(leader_of);
        match error {
            None => info!(coordinator, "the coordinator closed the stream"),
            Some(_) if leader.is_some() => info!(coordinator, leader, "another coordinator leads"),
            Some(error) if !self.reported => {
                warn!(coordinator, %error, "the coordinator cannot be reached");
            }
            Some(_) => {}
        }
        self.reported = !self.agent.is_connected();
        if self.agent.is_connected() {
            self.coordinators.connected();
        }
        self.agent.set_connected(false);
        let pause = self.coordinators.next(leader);
        self.state = State::Resting(Box::pin(sleep(pause)));
        Happened::Ended
    }
}

async fn dial(agent: Agent, coordinator: String) -> Result<Connection, Status> {
    let endpoint = grpc::endpoint(&coordinator)
        .map_err(|e| Status::invalid_argument(e.to_string()))?
        .connect_timeout(DIAL_LIMIT)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let channel = grpc::connect(&endpoint, agent.tls())
        .await
        .map_err(|error| Status::unavailable(chain(&error)))?;
    let (up, stream) = mpsc::channel(STREAM);
    let hello = v1::ConnectRequest { message: Some(Up::Hello(agent.hello().await)) };
    up.send(hello).await.map_err(|_| closed())?;
    let response = AgentServiceClient::new(channel).connect(ReceiverStream::new(stream)).await?;
    Ok((up, response.into_inner()))
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn closed() -> Status {
    Status::unavailable("the stream was closed")
}

/// The name of a coordinator's order, for logs.
pub fn name_of(order: &Down) -> &'static str {
    match order {
        Down::Welcome(_) => "welcome",
        Down::RackView(_) => "rack view",
        Down::PrepareTarget(_) => "prepare target",
        Down::StartSource(_) => "start source",
        Down::CommitDecision(_) => "commit decision",
        Down::Cancel(_) => "cancel",
        Down::ResumeTarget(_) => "resume target",
        Down::DiscardTarget(_) => "discard target",
        Down::SwitchoverGrant(_) => "switchover grant",
        Down::ReleaseSource(_) => "release source",
        Down::SetRate(_) => "set rate",
        Down::ForceSwitchover(_) => "force switchover",
        Down::ForgetVm(_) => "forget VM",
        Down::KeepDead(_) => "keep dead VM",
        Down::Expelled(_) => "expelled certificates",
        Down::CheckSource(_) => "check source",
        Down::CheckTarget(_) => "check target",
    }
}
