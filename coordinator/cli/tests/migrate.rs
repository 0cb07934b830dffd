//! `migrate` against a coordinator that answers as it is told: one watch, taken up again, to the migration's end.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rackferry_proto::v1::{
    CancelMigrationRequest, CancelMigrationResponse, CreateMigrationRequest,
    CreateMigrationResponse, ForceSwitchoverRequest, ForceSwitchoverResponse, GetMigrationRequest,
    GetMigrationResponse, ListMigrationsRequest, ListMigrationsResponse, Migration, MigrationEnd,
    Phase, WatchMigrationsRequest, WatchMigrationsResponse,
    migration_service_server::{MigrationService, MigrationServiceServer},
};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

type Snapshots = std::pin::Pin<
    Box<dyn tokio_stream::Stream<Item = Result<WatchMigrationsResponse, Status>> + Send>,
>;

/// How the migration ends; without one it goes on.
#[derive(Clone)]
struct Fake {
    ends: Option<(Phase, MigrationEnd)>,
    watches: Arc<AtomicUsize>,
}

impl Fake {
    fn migration(phase: Phase) -> Migration {
        Migration {
            id: "mig-7".to_owned(),
            vm: "web".to_owned(),
            source_host: "h1".to_owned(),
            phase: phase.into(),
            started_unix_ms: 1,
            ..Migration::default()
        }
    }
}

fn not_asked<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("migrate does not ask for it"))
}

#[tonic::async_trait]
impl MigrationService for Fake {
    type WatchMigrationsStream = Snapshots;

    async fn create_migration(
        &self,
        _: Request<CreateMigrationRequest>,
    ) -> Result<Response<CreateMigrationResponse>, Status> {
        let migration = Some(Self::migration(Phase::Queued));
        Ok(Response::new(CreateMigrationResponse { migration }))
    }

    /// The first stream breaks off in the middle.
    async fn watch_migrations(
        &self,
        request: Request<WatchMigrationsRequest>,
    ) -> Result<Response<Snapshots>, Status> {
        assert_eq!(request.into_inner().ids, ["mig-7"]);
        let first = self.watches.fetch_add(1, Relaxed) == 0;
        let copying = Self::migration(Phase::Copying);
        let migrations = match self.ends {
            Some((phase, end)) if !first => {
                vec![Migration { ended_unix_ms: 2, end: end.into(), ..Self::migration(phase) }]
            }
            _ => vec![copying],
        };
        let one =
            tokio_stream::once(Ok(WatchMigrationsResponse { migrations, ..Default::default() }));
        let stream: Snapshots = match self.ends {
            Some(_) => Box::pin(one),
            None => Box::pin(one.chain(tokio_stream::pending())),
        };
        Ok(Response::new(stream))
    }

    async fn get_migration(
        &self,
        _: Request<GetMigrationRequest>,
    ) -> Result<Response<GetMigrationResponse>, Status> {
        not_asked()
    }

    async fn list_migrations(
        &self,
        _: Request<ListMigrationsRequest>,
    ) -> Result<Response<ListMigrationsResponse>, Status> {
        not_asked()
    }

    async fn cancel_migration(
        &self,
        _: Request<CancelMigrationRequest>,
    ) -> Result<Response<CancelMigrationResponse>, Status> {
        not_asked()
    }

    async fn force_switchover(
        &self,
        _: Request<ForceSwitchoverRequest>,
    ) -> Result<Response<ForceSwitchoverResponse>, Status> {
        not_asked()
    }
}

/// Runs `migrate`, and says how often it watched.
async fn migrate(ends: Option<(Phase, MigrationEnd)>, more: &[&str]) -> (Output, usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fake = Fake { ends, watches: Arc::default() };
    let watches = fake.watches.clone();
    let server = Server::builder().add_service(MigrationServiceServer::new(fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackferry"));
    command.env("RACKFERRY_TLS", "off").args(["--coordinator", &address]);
    command.args(["migrate", "web", "--to", "h2"]).args(more).stdin(std::process::Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output, watches.load(Relaxed))
}

#[tokio::test]
async fn a_migration_is_followed_over_a_broken_watch_to_its_end() {
    for (phase, end, code) in [
        (Phase::Done, MigrationEnd::Moved, 0),
        (Phase::RolledBack, MigrationEnd::RolledBack, 4),
        (Phase::RolledBack, MigrationEnd::Cancelled, 5),
        (Phase::Failed, MigrationEnd::Lost, 8),
    ] {
        let (output, watches) = migrate(Some((phase, end)), &[]).await;
        assert_eq!((output.status.code(), watches), (Some(code), 2), "{output:?}");
    }
}

#[tokio::test]
async fn a_timeout_is_6_and_the_migration_goes_on() {
    let (output, watches) = migrate(None, &["--timeout", "200ms"]).await;
    assert_eq!((output.status.code(), watches), (Some(6), 1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("mig-7 goes on"), "{output:?}");
}

#[tokio::test]
async fn snapshots_are_lines_of_json() {
    let (output, _) = migrate(Some((Phase::Done, MigrationEnd::Moved)), &["-o", "ndjson"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let said: Vec<_> = text.lines().map(|line| line.contains("\"phase\": \"done\"")).collect();
    assert_eq!(said, [false, true], "{text}");
}
