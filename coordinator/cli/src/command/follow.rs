//! The one loop that follows work until it has ended, whatever becomes of the coordinator meanwhile.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use rackferry_proto::v1::{
    Evacuation, Migration, WatchEvacuationRequest, WatchEvacuationResponse, WatchMigrationsRequest,
    WatchMigrationsResponse,
};
use tonic::{Status, Streaming};

use super::Context;
use crate::{
    client::Client,
    exit::{Code, Failure},
};

/// How long a coordinator may be away.
const AWAY_LIMIT: Duration = Duration::from_secs(60);
/// How often a coordinator is looked for.
const RETRY: Duration = Duration::from_millis(500);

/// Work that the coordinator shows in snapshots.
pub trait Work {
    /// How the work stands.
    type Snapshot;
    /// What carries a snapshot.
    type Response;

    /// Opens a stream of snapshots.
    async fn watch(&self, client: &Client) -> Result<Streaming<Self::Response>, Status>;

    /// The snapshot that an answer carries.
    fn snapshot(answer: Self::Response) -> Option<Self::Snapshot>;
}

/// An evacuation, by its id.
pub struct EvacuationWork<'a>(pub &'a str);

impl Work for EvacuationWork<'_> {
    type Snapshot = Evacuation;
    type Response = WatchEvacuationResponse;

    async fn watch(&self, client: &Client) -> Result<Streaming<Self::Response>, Status> {
        let request = WatchEvacuationRequest { id: self.0.to_owned() };
        Ok(client.evacuations().watch_evacuation(request).await?.into_inner())
    }

    fn snapshot(answer: Self::Response) -> Option<Evacuation> {
        answer.evacuation
    }
}

/// A single migration, by its id.
pub struct MigrationWork<'a>(pub &'a str);

impl Work for MigrationWork<'_> {
    type Snapshot = Migration;
    type Response = WatchMigrationsResponse;

    async fn watch(&self, client: &Client) -> Result<Streaming<Self::Response>, Status> {
        let ids = vec![self.0.to_owned()];
        let request = WatchMigrationsRequest { ids, ..WatchMigrationsRequest::default() };
        Ok(client.migrations().watch_migrations(request).await?.into_inner())
    }

    fn snapshot(answer: Self::Response) -> Option<Migration> {
        answer.migrations.into_iter().next()
    }
}

/// Follows work until a snapshot is the last, the time is over or the user interrupts; gives the latest snapshot.
///
/// # Errors
/// If the work is not known, or the coordinator is away for too long.
pub async fn follow<W: Work>(
    context: &Context,
    work: &W,
    timeout: Option<Duration>,
    mut is_last: impl FnMut(&W::Snapshot) -> bool,
) -> Result<Option<W::Snapshot>, Failure> {
    let mut stream = Snapshots::new(context, work);
    let mut expired: Pin<Box<dyn Future<Output = ()>>> = match timeout {
        Some(timeout) => Box::pin(tokio::time::sleep(timeout)),
        None => Box::pin(std::future::pending()),
    };
    let mut latest = None;
    loop {
        let snapshot = tokio::select! {
            snapshot = stream.next() => snapshot?,
            () = &mut expired => return Ok(latest),
            interrupt = tokio::signal::ctrl_c() => { interrupt?; return Ok(latest) }
        };
        let last = is_last(&snapshot);
        latest = Some(snapshot);
        if last {
            return Ok(latest);
        }
    }
}

/// Snapshots of work, from whichever stream is open.
struct Snapshots<'a, W: Work> {
    context: &'a Context,
    client: Client,
    work: &'a W,
    stream: Option<Streaming<W::Response>>,
    away_since: Option<Instant>,
}

impl<'a, W: Work> Snapshots<'a, W> {
    fn new(context: &'a Context, work: &'a W) -> Self {
        Self { context, client: context.client.clone(), work, stream: None, away_since: None }
    }

    /// The next snapshot. Cancel safe: what is lost comes again with the next.
    async fn next(&mut self) -> Result<W::Snapshot, Failure> {
        loop {
            match self.try_next().await {
                Ok(Some(snapshot)) => {
                    self.away_since = None;
                    return Ok(snapshot);
                }
                // Ended without an end: the coordinator goes away.
                Ok(None) => self.stream = None,
                Err(failure) => {
                    self.stream = None;
                    let since = *self.away_since.get_or_insert_with(Instant::now);
                    if failure.code() != Code::Unreachable || since.elapsed() > AWAY_LIMIT {
                        return Err(failure);
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
            if let Ok(client) = Client::connect(&self.context.coordinators).await {
                self.client = client;
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<W::Snapshot>, Failure> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(self.work.watch(&self.client).await.map_err(severed)?),
        };
        let answer = stream.message().await.map_err(severed)?;
        Ok(answer.and_then(W::snapshot))
    }
}

/// A coordinator that dies in the middle of a stream is away, whatever the transport calls it.
fn severed(status: Status) -> Failure {
    let ours = rackferry_proto::reason_of(&status).is_some();
    if !ours
        && matches!(
            status.code(),
            tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Cancelled
        )
    {
        return Failure::from(Status::unavailable(status.message()));
    }
    Failure::from(status)
}
