//! Single moves.

use std::{collections::BTreeSet, pin::Pin};

use rackferry_fleet::{EvacuationId, Fleet, MigrationId, Refusal};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        CancelMigrationRequest, CancelMigrationResponse, CreateMigrationRequest,
        CreateMigrationResponse, ForceSwitchoverRequest, ForceSwitchoverResponse,
        GetMigrationRequest, GetMigrationResponse, ListMigrationsRequest, ListMigrationsResponse,
        Migration, WatchMigrationsRequest, WatchMigrationsResponse,
        migration_service_server::MigrationService,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    answer,
    evacuation::{PACE, SNAPSHOTS},
    going_down,
};
use crate::{checks, convert, driver::Handle};

/// The most moves that are watched by name.
const IDS_LIMIT: usize = 1000;

/// The door for single moves.
pub struct Migrations {
    handle: Handle,
    shutdown: CancellationToken,
}

impl Migrations {
    pub fn new(handle: Handle, shutdown: CancellationToken) -> Self {
        Self { handle, shutdown }
    }
}

fn id(text: &str) -> Result<MigrationId, Status> {
    text.parse()
        .map_err(|_| refuse(Reason::UnknownMigration, format!("there is no migration {text}")))
}

fn view(fleet: &Fleet, id: MigrationId) -> Result<Migration, Refusal> {
    let view = fleet.migration(id).ok_or(Refusal::UnknownMigration(id))?;
    Ok(convert::migration(&view))
}

#[tonic::async_trait]
impl MigrationService for Migrations {
    type WatchMigrationsStream =
        Pin<Box<dyn Stream<Item = Result<WatchMigrationsResponse, Status>> + Send>>;

    async fn create_migration(
        &self,
        request: Request<CreateMigrationRequest>,
    ) -> Result<Response<CreateMigrationResponse>, Status> {
        let request = convert::migration_request(request.into_inner())?;
        let wanted = request.clone();
        let moves = answer(self.handle.ask(move |fleet, _, _| fleet.new_move(&wanted)).await?)?;
        checks::before(&self.handle, moves).await?;
        let migration = self
            .handle
            .ask(move |fleet, now, out| {
                let id = fleet.create_migration(&request, now, out)?;
                view(fleet, id)
            })
            .await?;
        Ok(Response::new(CreateMigrationResponse { migration: Some(answer(migration)?) }))
    }

    async fn get_migration(
        &self,
        request: Request<GetMigrationRequest>,
    ) -> Result<Response<GetMigrationResponse>, Status> {
        let id = id(&request.into_inner().id)?;
        let migration = self.handle.ask(move |fleet, _, _| view(fleet, id)).await?;
        Ok(Response::new(GetMigrationResponse { migration: Some(answer(migration)?) }))
    }

    async fn list_migrations(
        &self,
        request: Request<ListMigrationsRequest>,
    ) -> Result<Response<ListMigrationsResponse>, Status> {
        let ListMigrationsRequest { evacuation_id, active_only } = request.into_inner();
        let migrations = self
            .handle
            .ask(move |fleet, _, _| {
                fleet
                    .migrations()
                    .filter(|view| !active_only || view.record.is_active())
                    .map(|view| convert::migration(&view))
                    .filter(|one| evacuation_id.is_empty() || one.evacuation_id == evacuation_id)
                    .collect()
            })
            .await?;
        Ok(Response::new(ListMigrationsResponse { migrations }))
    }

    async fn watch_migrations(
        &self,
        request: Request<WatchMigrationsRequest>,
    ) -> Result<Response<Self::WatchMigrationsStream>, Status> {
        let WatchMigrationsRequest { evacuation_id, ids } = request.into_inner();
        if ids.len() > IDS_LIMIT {
            return Err(refuse(Reason::InvalidArgument, "ids is missing or malformed"));
        }
        let evacuation = match evacuation_id.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                refuse(Reason::UnknownEvacuation, format!("there is no evacuation {text}"))
            })?),
        };
        let ids = ids.iter().map(|text| id(text)).collect::<Result<BTreeSet<_>, _>>()?;
        let watched = Watched { evacuation, ids };
        let known = watched.clone();
        // Refused at once rather than in the stream.
        answer(self.handle.ask(move |fleet, _, _| known.check(fleet)).await?)?;
        let (snapshots, to_client) = mpsc::channel(SNAPSHOTS);
        let (handle, shutdown) = (self.handle.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = watch(&handle, watched, &snapshots) => {}
                () = shutdown.cancelled() => {
                    // It goes to another coordinator, or comes back later.
                    let _ = snapshots.try_send(Err(going_down()));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(to_client))))
    }

    async fn cancel_migration(
        &self,
        request: Request<CancelMigrationRequest>,
    ) -> Result<Response<CancelMigrationResponse>, Status> {
        let id = id(&request.into_inner().id)?;
        let migration = self
            .handle
            .ask(move |fleet, now, out| {
                fleet.cancel_migration(id, now, out)?;
                view(fleet, id)
            })
            .await?;
        Ok(Response::new(CancelMigrationResponse { migration: Some(answer(migration)?) }))
    }

    async fn force_switchover(
        &self,
        request: Request<ForceSwitchoverRequest>,
    ) -> Result<Response<ForceSwitchoverResponse>, Status> {
        let id = id(&request.into_inner().id)?;
        let migration = self
            .handle
            .ask(move |fleet, now, out| {
                fleet.force_switchover(id, now, out)?;
                view(fleet, id)
            })
            .await?;
        Ok(Response::new(ForceSwitchoverResponse { migration: Some(answer(migration)?) }))
    }
}

/// Which moves are watched; all of them, if none are named.
#[derive(Clone, Debug, Default)]
struct Watched {
    evacuation: Option<EvacuationId>,
    ids: BTreeSet<MigrationId>,
}

impl Watched {
    fn check(&self, fleet: &Fleet) -> Result<(), Refusal> {
        if let Some(id) = self.evacuation.filter(|&id| fleet.evacuation(id).is_none()) {
            return Err(Refusal::UnknownEvacuation(id));
        }
        let unknown = self.ids.iter().find(|&&id| fleet.migration(id).is_none());
        unknown.map_or(Ok(()), |&id| Err(Refusal::UnknownMigration(id)))
    }

    fn is_all(&self) -> bool {
        self.evacuation.is_none() && self.ids.is_empty()
    }

    /// The moves of a snapshot, what the next one must know, and whether there will be no more. Of all moves those that
    /// have ended are told once, and none that ended before: they may be very many.
    fn look(&self, fleet: &Fleet, before: Option<&Told>) -> (Vec<Migration>, Told, bool) {
        let mut told = Told::default();
        let mut shown = Vec::new();
        let is_news = |id| before.is_some_and(|told| id > told.last || told.active.contains(&id));
        for view in fleet.migrations() {
            let id = view.record.id;
            let named = self.ids.contains(&id)
                || (self.evacuation.is_some() && view.record.evacuation == self.evacuation);
            told.last = told.last.max(id);
            if view.record.is_active() && (named || self.is_all()) {
                told.active.insert(id);
            }
            if named || (self.is_all() && (view.record.is_active() || is_news(id))) {
                shown.push(convert::migration(&view));
            }
        }
        // Between two attempts an evacuation has no move that goes on.
        let goes_on = self.evacuation.and_then(|id| fleet.evacuation(id));
        let goes_on = goes_on.is_some_and(|view| view.record.ended.is_none());
        let over = !self.is_all() && told.active.is_empty() && !goes_on;
        (shown, told, over)
    }
}

/// What a snapshot knew.
#[derive(Debug, Default)]
struct Told {
    /// The moves that went on.
    active: BTreeSet<MigrationId>,
    /// The latest move there was.
    last: MigrationId,
}

/// Sends snapshots as things change, until the moves are over or the client goes away.
async fn watch(
    handle: &Handle,
    watched: Watched,
    snapshots: &mpsc::Sender<Result<WatchMigrationsResponse, Status>>,
) {
    let mut changes = handle.changes();
    let mut told = None;
    loop {
        changes.borrow_and_update();
        let (now, before) = (watched.clone(), told.take());
        let first = before.is_none();
        let look = move |fleet: &mut Fleet, _, _: &mut _| now.look(fleet, before.as_ref());
        let (message, over) = match handle.ask(look).await {
            Ok((migrations, now_told, over)) => {
                told = Some(now_told);
                (Ok(WatchMigrationsResponse { migrations }), over)
            }
            Err(gone) => (Err(gone.into()), true),
        };
        // Only the first may say that nothing moves.
        let is_news = first || message.as_ref().is_ok_and(|told| !told.migrations.is_empty());
        if is_news || over {
            let gone = snapshots.send(message).await.is_err();
            if gone || over {
                return;
            }
        }
        tokio::time::sleep(PACE).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = snapshots.closed() => return,
        }
    }
}
