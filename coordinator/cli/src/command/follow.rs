//! The one loop that follows work until it has ended, whatever becomes of the coordinator meanwhile.

use std::{
    collections::BTreeMap,
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

    /// Opens a stream: of what has changed since a revision, or of all if there is none.
    async fn watch(
        &self,
        client: &Client,
        since: &str,
    ) -> Result<Streaming<Self::Response>, Status>;

    /// The revision of an answer; empty if the next stream must begin with all.
    fn revision(answer: &Self::Response) -> String;

    /// How the work stands after an answer.
    fn snapshot(answer: Self::Response, latest: Option<Self::Snapshot>) -> Option<Self::Snapshot>;
}

/// An evacuation, by its id.
pub struct EvacuationWork<'a>(pub &'a str);

impl Work for EvacuationWork<'_> {
    type Snapshot = Evacuation;
    type Response = WatchEvacuationResponse;

    async fn watch(
        &self,
        client: &Client,
        since: &str,
    ) -> Result<Streaming<Self::Response>, Status> {
        let id = self.0.to_owned();
        let request = WatchEvacuationRequest { id, changes_only: true, since: since.to_owned() };
        Ok(client.evacuations().watch_evacuation(request).await?.into_inner())
    }

    fn revision(answer: &Self::Response) -> String {
        answer.revision.clone()
    }

    fn snapshot(answer: Self::Response, latest: Option<Evacuation>) -> Option<Evacuation> {
        // A coordinator of an earlier version says no revision, and always all.
        let is_all = answer.complete || answer.revision.is_empty();
        match (answer.evacuation, latest) {
            (Some(changes), Some(latest)) if !is_all => Some(merged(latest, changes)),
            (evacuation, latest) => evacuation.or(latest),
        }
    }
}

/// An evacuation after changes: each migration that has changed is in place of the one of the same VM.
fn merged(latest: Evacuation, changes: Evacuation) -> Evacuation {
    let mut changed: BTreeMap<String, Migration> =
        changes.migrations.into_iter().map(|one| (one.vm.clone(), one)).collect();
    let mut migrations: Vec<_> =
        latest.migrations.into_iter().map(|one| changed.remove(&one.vm).unwrap_or(one)).collect();
    migrations.extend(changed.into_values());
    Evacuation { migrations, ..changes }
}

/// A single migration, by its id.
pub struct MigrationWork<'a>(pub &'a str);

impl Work for MigrationWork<'_> {
    type Snapshot = Migration;
    type Response = WatchMigrationsResponse;

    async fn watch(
        &self,
        client: &Client,
        _since: &str,
    ) -> Result<Streaming<Self::Response>, Status> {
        let ids = vec![self.0.to_owned()];
        let request = WatchMigrationsRequest { ids, ..WatchMigrationsRequest::default() };
        Ok(client.migrations().watch_migrations(request).await?.into_inner())
    }

    fn revision(_: &Self::Response) -> String {
        String::new()
    }

    fn snapshot(answer: Self::Response, _: Option<Migration>) -> Option<Migration> {
        answer.migrations.into_iter().next()
    }
}

/// How long work that is stuck is followed: time for an agent or a coordinator that is restarted to come back.
const STUCK: Duration = Duration::from_secs(15);

/// What follows after a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More.
    GoesOn,
    /// Nothing, unless an agent comes back.
    Stuck,
    /// Nothing.
    Ends,
}

/// Follows work until a snapshot is the last, it has been stuck for 15 s, the time is over or the user interrupts; gives
/// the latest snapshot.
///
/// # Errors
/// If the work is not known, or the coordinator is away for too long.
pub async fn follow<W: Work>(
    context: &Context,
    work: &W,
    timeout: Option<Duration>,
    mut after: impl FnMut(&W::Snapshot) -> Next,
) -> Result<Option<W::Snapshot>, Failure> {
    let mut stream = Snapshots::new(context, work);
    let mut expired: Pin<Box<dyn Future<Output = ()>>> = match timeout {
        Some(timeout) => Box::pin(tokio::time::sleep(timeout)),
        None => Box::pin(std::future::pending()),
    };
    let mut stuck_since: Option<Instant> = None;
    loop {
        let gives_up = async {
            match stuck_since {
                Some(since) => tokio::time::sleep_until((since + STUCK).into()).await,
                None => std::future::pending().await,
            }
        };
        let snapshot = tokio::select! {
            snapshot = stream.next() => snapshot?,
            () = &mut expired => return Ok(stream.latest),
            () = gives_up => return Ok(stream.latest),
            interrupt = tokio::signal::ctrl_c() => { interrupt?; return Ok(stream.latest) }
        };
        match after(snapshot) {
            Next::GoesOn => stuck_since = None,
            Next::Stuck => stuck_since = stuck_since.or_else(|| Some(Instant::now())),
            Next::Ends => return Ok(stream.latest),
        }
    }
}

/// Snapshots of work, from whichever stream is open.
struct Snapshots<'a, W: Work> {
    context: &'a Context,
    client: Client,
    work: &'a W,
    stream: Option<Streaming<W::Response>>,
    latest: Option<W::Snapshot>,
    revision: String,
    away_since: Option<Instant>,
}

impl<'a, W: Work> Snapshots<'a, W> {
    fn new(context: &'a Context, work: &'a W) -> Self {
        Self {
            context,
            client: context.client.clone(),
            work,
            stream: None,
            latest: None,
            revision: String::new(),
            away_since: None,
        }
    }

    /// The next snapshot. Cancel safe: what is lost comes again with the next.
    async fn next(&mut self) -> Result<&W::Snapshot, Failure> {
        loop {
            match self.try_next().await {
                Ok(Some(snapshot)) => {
                    self.away_since = None;
                    return Ok(self.latest.insert(snapshot));
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
            none => {
                let opened = self.work.watch(&self.client, &self.revision).await;
                none.insert(opened.map_err(severed)?)
            }
        };
        let Some(answer) = stream.message().await.map_err(severed)? else { return Ok(None) };
        self.revision = W::revision(&answer);
        Ok(W::snapshot(answer, self.latest.take()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(complete: bool, revision: &str, moves: &[(&str, u32)]) -> WatchEvacuationResponse {
        let one = |&(vm, round): &(&str, u32)| Migration {
            vm: vm.to_owned(),
            round,
            ..Migration::default()
        };
        let migrations = moves.iter().map(one).collect();
        let evacuation = Some(Evacuation { migrations, ..Evacuation::default() });
        WatchEvacuationResponse { evacuation, revision: revision.to_owned(), complete }
    }

    fn rounds(evacuation: &Evacuation) -> Vec<(&str, u32)> {
        evacuation.migrations.iter().map(|one| (one.vm.as_str(), one.round)).collect()
    }

    #[test]
    fn changes_are_merged_into_what_is_known() {
        let all = answer(true, "1.1", &[("a", 1), ("b", 1)]);
        let known = EvacuationWork::snapshot(all, None).unwrap();
        let changes = answer(false, "1.2", &[("c", 1), ("b", 2)]);
        let known = EvacuationWork::snapshot(changes, Some(known)).unwrap();
        assert_eq!(rounds(&known), [("a", 1), ("b", 2), ("c", 1)]);
        let none = answer(false, "1.3", &[]);
        assert_eq!(rounds(&EvacuationWork::snapshot(none, Some(known.clone())).unwrap()).len(), 3);
        let anew = answer(true, "2.1", &[("a", 3)]);
        assert_eq!(rounds(&EvacuationWork::snapshot(anew, Some(known)).unwrap()), [("a", 3)]);
    }

    #[test]
    fn an_earlier_coordinator_always_says_all() {
        let all = answer(true, "1.1", &[("a", 1), ("b", 1)]);
        let known = EvacuationWork::snapshot(all, None).unwrap();
        let all = answer(false, "", &[("b", 2)]);
        assert_eq!(rounds(&EvacuationWork::snapshot(all, Some(known)).unwrap()), [("b", 2)]);
    }
}
