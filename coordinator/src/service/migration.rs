//! The gRPC service for single migrations.

use std::collections::BTreeSet;

use rackferry_fleet::{
    Act, Done, EvacuationId, Fleet, MigrationId, MigrationRequest, MigrationView, Published,
    Refusal, Revision,
};
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
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    Begun, agents_back, answer,
    audit::recorded,
    page::Page,
    planned_anew,
    watch::{Answers, Client, Looks, known_revision, serve},
};
use crate::{convert, driver::Handle, preflight};

/// The most moves that are watched by name.
const IDS_LIMIT: usize = 1000;

/// The service for single migrations.
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

impl Migrations {
    /// Plans, looks at what was planned, and starts that and nothing else.
    async fn begin(&self, request: MigrationRequest, act: Act) -> Result<Migration, Begun> {
        let wanted = request.clone();
        let moves = self.handle.ask(move |fleet, _| fleet.new_move(&wanted)).await??;
        preflight::before(&self.handle, moves.clone(), &request.options).await?;
        let start = move |fleet: &mut Fleet, now, out: &mut _| {
            let id = fleet.start_migration(&request, moves.first(), now, out)?;
            Ok(Done::new(view(fleet, id)?, format!("as {id}")))
        };
        Ok(self.handle.act(act, start).await??)
    }
}

#[tonic::async_trait]
impl MigrationService for Migrations {
    type WatchMigrationsStream = Answers<WatchMigrationsResponse>;

    async fn create_migration(
        &self,
        request: Request<CreateMigrationRequest>,
    ) -> Result<Response<CreateMigrationResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let request = convert::migration_request(message)?;
            agents_back(&self.handle).await?;
            let migration = planned_anew(|| self.begin(request.clone(), act.clone())).await?;
            Ok(CreateMigrationResponse { migration: Some(migration) })
        })
        .await
    }

    async fn get_migration(
        &self,
        request: Request<GetMigrationRequest>,
    ) -> Result<Response<GetMigrationResponse>, Status> {
        let id = id(&request.into_inner().id)?;
        let published = self.handle.published().await?;
        let view = published.migration(id).ok_or(Refusal::UnknownMigration(id));
        let migration = Some(convert::migration(&answer(view)?));
        Ok(Response::new(GetMigrationResponse { migration }))
    }

    async fn list_migrations(
        &self,
        request: Request<ListMigrationsRequest>,
    ) -> Result<Response<ListMigrationsResponse>, Status> {
        let ListMigrationsRequest { evacuation_id, active_only, page_size, page_token } =
            request.into_inner();
        let page = Page::new(page_size, &page_token, |token| token.parse::<MigrationId>().ok())?;
        let published = self.handle.published().await?;
        let of_it = |view: &MigrationView<'_>| {
            let evacuation = view.record.evacuation;
            evacuation_id.is_empty()
                || evacuation.is_some_and(|known| known.to_string() == evacuation_id)
        };
        let all = published.migrations().into_iter();
        let all = all.filter(|view| !active_only || view.record.is_active()).filter(of_it);
        let (migrations, next_page_token) = page.cut(all, |view| view.record.id, |_| 1);
        let migrations = migrations.iter().map(convert::migration).collect();
        Ok(Response::new(ListMigrationsResponse { migrations, next_page_token }))
    }

    async fn watch_migrations(
        &self,
        request: Request<WatchMigrationsRequest>,
    ) -> Result<Response<Self::WatchMigrationsStream>, Status> {
        let WatchMigrationsRequest { evacuation_id, ids, changes_only, since } =
            request.into_inner();
        let known = known_revision(changes_only, &since)?;
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
        let watched = Watched { evacuation, ids, changes_only };
        // Refused at once rather than in the stream.
        let published = self.handle.published().await?;
        answer(watched.check(&published))?;
        drop(published);
        let handle = self.handle.clone();
        let watch = async move |client| watch(handle, watched, known, &client).await;
        Ok(Response::new(serve(self.shutdown.clone(), watch)))
    }

    async fn cancel_migration(
        &self,
        request: Request<CancelMigrationRequest>,
    ) -> Result<Response<CancelMigrationResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let id = id(&message.id)?;
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                fleet.cancel_migration(id, now, out)?;
                Ok(Done::new(view(fleet, id)?, ""))
            };
            let migration = Some(answer(self.handle.act(act, turn).await?)?);
            Ok(CancelMigrationResponse { migration })
        })
        .await
    }

    async fn force_switchover(
        &self,
        request: Request<ForceSwitchoverRequest>,
    ) -> Result<Response<ForceSwitchoverResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let id = id(&message.id)?;
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                fleet.force_switchover(id, now, out)?;
                Ok(Done::new(view(fleet, id)?, ""))
            };
            let migration = Some(answer(self.handle.act(act, turn).await?)?);
            Ok(ForceSwitchoverResponse { migration })
        })
        .await
    }
}

/// Which moves are watched; all of them, if none are named.
#[derive(Clone, Debug, Default)]
struct Watched {
    evacuation: Option<EvacuationId>,
    ids: BTreeSet<MigrationId>,
    changes_only: bool,
}

impl Watched {
    fn check(&self, published: &Published) -> Result<(), Refusal> {
        if let Some(id) = self.evacuation.filter(|&id| published.evacuation_record(id).is_none()) {
            return Err(Refusal::UnknownEvacuation(id));
        }
        let unknown = self.ids.iter().find(|&&id| published.migration(id).is_none());
        unknown.map_or(Ok(()), |&id| Err(Refusal::UnknownMigration(id)))
    }

    fn is_all(&self) -> bool {
        self.evacuation.is_none() && self.ids.is_empty()
    }

    fn names(&self, view: &MigrationView<'_>) -> bool {
        self.ids.contains(&view.record.id)
            || (self.evacuation.is_some() && view.record.evacuation == self.evacuation)
    }

    /// The moves of a snapshot, and what the next one must know. Of all moves those that have ended are told once, and
    /// none that ended before: they may be very many.
    fn look(&self, published: &Published, before: Option<&Told>) -> (Vec<Migration>, Told) {
        let mut told = Told::default();
        let mut shown = Vec::new();
        let is_news = |id| before.is_some_and(|told| id > told.last || told.active.contains(&id));
        for view in published.migrations() {
            let id = view.record.id;
            told.last = told.last.max(id);
            let active = view.record.is_active();
            if active && self.is_all() {
                told.active.insert(id);
            }
            if self.names(&view) || (self.is_all() && (active || is_news(id))) {
                shown.push(convert::migration(&view));
            }
        }
        (shown, told)
    }

    /// The watched moves that have changed.
    fn changed(&self, published: &Published, known: Revision) -> Vec<Migration> {
        let changed = published.migrations_since(known);
        let watched = changed.iter().filter(|view| self.is_all() || self.names(view));
        watched.map(convert::migration).collect()
    }

    /// Whether no watched move will change any more.
    fn is_over(&self, published: &Published) -> bool {
        let active =
            |id: &MigrationId| published.migration(*id).is_some_and(|view| view.record.is_active());
        // Between two attempts an evacuation has no move that goes on.
        let evacuation = self.evacuation.and_then(|id| published.evacuation_record(id));
        let goes_on = evacuation.is_some_and(|record| record.ended.is_none());
        !self.is_all() && !goes_on && !self.ids.iter().any(active)
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

/// Sends snapshots, or what has changed, as things change, until the moves are over or the client goes away.
async fn watch(
    handle: Handle,
    watched: Watched,
    mut known: Option<Revision>,
    client: &Client<WatchMigrationsResponse>,
) {
    let mut looks = Looks::new(handle);
    let mut told = None;
    while let Some(published) = looks.next(client).await {
        let follows = known.filter(|&known| published.follows(known));
        // Only the first may say that nothing moves.
        let first = told.is_none();
        let migrations = match follows {
            Some(known) => watched.changed(&published, known),
            None => {
                let (migrations, now) = watched.look(&published, told.as_ref());
                told = Some(now);
                migrations
            }
        };
        let over = watched.is_over(&published);
        let complete = follows.is_none();
        let revision = published.revision();
        known = watched.changes_only.then_some(revision);
        drop(published);
        if !migrations.is_empty() || over || (first && complete) {
            let revision = revision.to_string();
            let message = WatchMigrationsResponse { migrations, revision, complete };
            if client.send(Ok(message)).await.is_err() || over {
                return;
            }
        }
    }
}
