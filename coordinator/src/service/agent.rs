//! The gRPC service for the streams of agents.

use std::time::Duration;

use rackferry_fleet::{Act, Action};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        ConnectRequest, ConnectResponse, agent_service_server::AgentService,
        connect_request::Message,
    },
};
use rackferry_tls::grpc::Caller;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::audit;
use crate::{
    convert,
    driver::{Handle, Link, ORDERS},
};

/// How long an agent may take to introduce itself.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// The service for agents.
pub struct Agents {
    handle: Handle,
    shutdown: CancellationToken,
}

impl Agents {
    pub fn new(handle: Handle, shutdown: CancellationToken) -> Self {
        Self { handle, shutdown }
    }
}

#[tonic::async_trait]
impl AgentService for Agents {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let by = audit::caller(request.extensions());
        // Led to the leader at once, before anything is read.
        self.handle.admit().await?;
        let mut stream = request.into_inner();
        let first = timeout(HELLO_WITHIN, stream.message())
            .await
            .map_err(|_| refuse(Reason::InvalidArgument, "no hello came"))??;
        let Some(Message::Hello(hello)) = first.and_then(|request| request.message) else {
            return Err(refuse(Reason::InvalidArgument, "the first message must be hello"));
        };
        let hello = convert::hello(hello)?;
        if let Err(status) = speaks_for(caller.as_ref(), hello.host.as_str()) {
            self.handle.refusals().put(Act::new(by, Action::Connect, ""), &status);
            return Err(status);
        }
        let host = hello.host.clone();
        let (orders, to_agent) = mpsc::channel(ORDERS);
        let handle = self.handle.clone();
        let shutdown = self.shutdown.clone();
        // On its own: a dropped request must not leave a link behind.
        tokio::spawn(async move {
            let link = match handle.connect(hello, orders.clone()).await {
                Ok(link) => link,
                Err(away) => {
                    // An agent that is gone too needs no hint.
                    let _ = orders.try_send(Err(away.into()));
                    return;
                }
            };
            // The link is the driver's to close.
            drop(orders);
            let why = read(stream, &handle, &link, &shutdown).await;
            tracing::info!(%host, why, "agent gone");
            // At the shutdown there is no driver left to tell.
            let _ = handle.disconnect(link.connection).await;
        });
        Ok(Response::new(ReceiverStream::new(to_agent)))
    }
}

/// Refuses an agent that speaks for another host than its own.
fn speaks_for(caller: Option<&Caller>, host: &str) -> Result<(), Status> {
    match caller {
        Some(Caller::Anonymous) => Ok(()),
        Some(Caller::Known(shown)) if shown.identity.name == host => Ok(()),
        Some(Caller::Known(shown)) => {
            let identity = &shown.identity;
            let text =
                format!("this is the certificate of {identity}, which cannot speak for {host}");
            Err(refuse(Reason::NotPermitted, text))
        }
        None => Err(Status::internal("a call from nowhere")),
    }
}

/// Passes on what the agent says until its stream or the link ends; returns why.
async fn read(
    mut stream: Streaming<ConnectRequest>,
    handle: &Handle,
    link: &Link,
    shutdown: &CancellationToken,
) -> String {
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = link.closed.cancelled() => return "its link was closed".to_owned(),
            () = shutdown.cancelled() => return "shutdown".to_owned(),
        };
        let message = match message {
            Ok(Some(ConnectRequest { message: Some(message) })) => message,
            // A kind of message of a newer version.
            Ok(Some(ConnectRequest { message: None })) => continue,
            Ok(None) => return "it closed its stream".to_owned(),
            Err(status) => return status.to_string(),
        };
        if let Message::CheckReport(report) = message {
            let report = convert::check_report(report);
            if handle.answered(link.connection, report).await.is_err() {
                return "shutdown".to_owned();
            }
            continue;
        }
        match convert::said(message) {
            Ok(said) => {
                if handle.said(link.connection, said).await.is_err() {
                    return "shutdown".to_owned();
                }
            }
            Err(invalid) => return invalid.to_string(),
        }
    }
}
