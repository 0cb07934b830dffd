//! The stream to the coordinator that leads: dialled again for ever, orders in, observations out.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rackferry_proto::v1::agent_service_client::AgentServiceClient;
use rackferry_proto::v1::connect_request::Message as Up;
use rackferry_proto::v1::connect_response::Message as Down;
use rackferry_proto::{leader_of, v1};
use rackferry_tls::grpc;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use crate::agent::Agent;
use crate::coordinators::Coordinators;

/// Messages to the coordinator that wait while it cannot be reached. If one does not fit the stream starts anew, whose
/// first message tells how everything is.
const OUTBOX: usize = 1024;

/// Messages handed to gRPC and not yet sent.
const STREAM: usize = 64;

/// Connecting takes no longer on a healthy network.
const DIAL_LIMIT: Duration = Duration::from_secs(2);

/// A full report at least this often.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Changes are collected for so long before they are reported.
const REPORT_PAUSE: Duration = Duration::from_millis(50);

/// Where the rest of the agent puts what the coordinator shall know.
#[derive(Debug, Clone)]
pub struct Outbox {
    messages: mpsc::Sender<Up>,
    /// A message did not fit that the coordinator waits for.
    lost: Arc<Notify>,
}

impl Outbox {
    /// An outbox and the end the coordinator's stream is fed from.
    pub fn new() -> (Self, mpsc::Receiver<Up>) {
        let (sender, receiver) = mpsc::channel(OUTBOX);
        (Self { messages: sender, lost: Arc::default() }, receiver)
    }

    /// Tells the coordinator something. Never waits: progress may be lost, for anything else the stream starts anew.
    pub fn send(&self, message: Up) {
        let progress = matches!(message, Up::Progress(_));
        if self.messages.try_send(message).is_err() {
            warn!("the outbox to the coordinator is full");
            if !progress {
                self.lost.notify_one();
            }
        }
    }
}

/// Keeps the stream to the coordinator up until the agent ends.
pub async fn run(agent: Agent, mut outbox: mpsc::Receiver<Up>) {
    let mut coordinators = Coordinators::new(agent.config().coordinator.clone());
    let mut reported = false;
    loop {
        let coordinator = coordinators.current();
        let ended = session(&agent, coordinator, &mut outbox).await;
        let leader = ended.as_ref().err().and_then(leader_of);
        match &ended {
            Ok(()) => info!(coordinator, "the coordinator closed the stream"),
            Err(_) if leader.is_some() => info!(coordinator, leader, "another coordinator leads"),
            Err(error) if !reported => {
                warn!(coordinator, %error, "the coordinator cannot be reached");
            }
            Err(_) => {}
        }
        reported = !agent.is_connected();
        if agent.is_connected() {
            coordinators.connected();
        }
        agent.set_connected(false);
        tokio::time::sleep(coordinators.next(leader)).await;
    }
}

async fn session(
    agent: &Agent,
    coordinator: &str,
    outbox: &mut mpsc::Receiver<Up>,
) -> Result<(), tonic::Status> {
    let endpoint = grpc::endpoint(coordinator)
        .map_err(|e| tonic::Status::invalid_argument(e.to_string()))?
        .connect_timeout(DIAL_LIMIT)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let channel = grpc::connect(&endpoint, agent.tls())
        .await
        .map_err(|error| tonic::Status::unavailable(chain(&error)))?;
    let (up, stream) = mpsc::channel(STREAM);
    let lost = agent.outbox().lost.clone();
    // What was lost until now is in the Hello.
    let _ = lost.notified().now_or_never();
    let send = |message| v1::ConnectRequest { message: Some(message) };
    up.send(send(Up::Hello(agent.hello().await))).await.map_err(|_| closed())?;
    let response = AgentServiceClient::new(channel).connect(ReceiverStream::new(stream)).await?;
    let mut orders = response.into_inner();
    info!(coordinator, "connected");
    agent.set_connected(true);
    for request in agent.open_requests() {
        up.send(send(request)).await.map_err(|_| closed())?;
    }
    let mut changes = agent.changes();
    let mut report_at = tokio::time::Instant::now();
    loop {
        tokio::select! {
            order = orders.message() => match order? {
                Some(v1::ConnectResponse { message: Some(order) }) => agent.obey(order),
                Some(_) => {}
                None => return Ok(()),
            },
            Some(message) = outbox.recv() => up.send(send(message)).await.map_err(|_| closed())?,
            Ok(()) = changes.changed() => {
                report_at = report_at.min(tokio::time::Instant::now() + REPORT_PAUSE);
            }
            () = lost.notified() => {
                warn!("a message was lost: the stream starts anew");
                return Err(closed());
            }
            () = tokio::time::sleep_until(report_at) => {
                let report = Up::HostReport(agent.report().await);
                up.send(send(report)).await.map_err(|_| closed())?;
                report_at = tokio::time::Instant::now() + REPORT_EVERY;
            }
        }
    }
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn closed() -> tonic::Status {
    tonic::Status::unavailable("the stream was closed")
}

/// What the coordinator orders, for logs.
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
        Down::HurrySource(_) => "hurry source",
        Down::CheckSource(_) => "check source",
        Down::CheckTarget(_) => "check target",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_word_is_noticed_and_lost_progress_is_not() {
        let (outbox, _messages) = Outbox::new();
        let progress = || Up::Progress(v1::MigrationProgress::default());
        for _ in 0..=OUTBOX {
            outbox.send(progress());
        }
        assert!(outbox.lost.notified().now_or_never().is_none());
        outbox.send(Up::TargetReady(v1::TargetReady::default()));
        assert!(outbox.lost.notified().now_or_never().is_some());
    }
}
