//! Single moves.

use rackferry_fleet::{Fleet, MigrationId, Refusal};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        CancelMigrationRequest, CancelMigrationResponse, CreateMigrationRequest,
        CreateMigrationResponse, ForceSwitchoverRequest, ForceSwitchoverResponse,
        GetMigrationRequest, GetMigrationResponse, ListMigrationsRequest, ListMigrationsResponse,
        Migration, migration_service_server::MigrationService,
    },
};
use tonic::{Request, Response, Status};

use super::answer;
use crate::{checks, convert, driver::Handle};

/// The door for single moves.
pub struct Migrations {
    handle: Handle,
}

impl Migrations {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
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
