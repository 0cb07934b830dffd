//! `migrate` against a coordinator that answers as it is told: one watch, taken up again, to the migration's end.

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
            Some((phase, MigrationEnd::Unspecified)) => vec![Self::migration(phase)],
            _ => vec![copying],
        };
        let one =
            tokio_stream::once(Ok(WatchMigrationsResponse { migrations, ..Default::default() }));
        let stream: Snapshots = match self.ends {
            Some((_, end)) if end != MigrationEnd::Unspecified => Box::pin(one),
            _ => Box::pin(one.chain(tokio_stream::pending())),
        };
        Ok(Response::new(stream))
    }

    async fn get_migration(
        &self,
        _: Request<GetMigrationRequest>,
    ) -> Result<Response<GetMigrationResponse>, Status> {
        let (phase, end) = self.ends.unwrap_or((Phase::Copying, MigrationEnd::Unspecified));
        let migration = Some(Migration { end: end.into(), ..Self::migration(phase) });
        Ok(Response::new(GetMigrationResponse { migration }))
    }

    /// One goes on, and one has ended.
    async fn list_migrations(
        &self,
        request: Request<ListMigrationsRequest>,
    ) -> Result<Response<ListMigrationsResponse>, Status> {
        let mut migrations = vec![Self::migration(Phase::Copying)];
        if !request.into_inner().active_only {
            migrations.push(Migration { id: "mig-8".to_owned(), ..Self::migration(Phase::Done) });
        }
        Ok(Response::new(ListMigrationsResponse { migrations, ..Default::default() }))
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
    rackferry(ends, &[&["migrate", "web", "--to", "h2"], more].concat()).await
}

/// Runs a command, and says how often it watched.
async fn rackferry(ends: Option<(Phase, MigrationEnd)>, args: &[&str]) -> (Output, usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let fake = Fake { ends, watches: Arc::default() };
    let watches = fake.watches.clone();
    let server = Server::builder().add_service(MigrationServiceServer::new(fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackferry"));
    command.env("RACKFERRY_TLS", "off").args(["--coordinator", &address]);
    command.args(args).stdin(std::process::Stdio::null());
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
async fn an_uncertain_owner_is_8_after_a_while() {
    let stuck = Some((Phase::OwnerUnknown, MigrationEnd::Unspecified));
    let (output, watches) = migrate(stuck, &[]).await;
    assert_eq!((output.status.code(), watches), (Some(8), 1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("VM web is owner_unknown") && said.contains("rackferry doctor"),
        "{said}"
    );
}

#[tokio::test]
async fn snapshots_are_lines_of_json() {
    let (output, _) = migrate(Some((Phase::Done, MigrationEnd::Moved)), &["-o", "ndjson"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let said: Vec<_> =
        lines.map(|one| (one["phase"] == "done", one["result_code"].as_u64())).collect();
    assert_eq!(said, [(false, None), (true, Some(0))], "{text}");
}

#[tokio::test]
async fn what_is_detached_says_how_to_follow_it() {
    let (output, watches) = migrate(None, &["--detach"]).await;
    assert_eq!((output.status.code(), watches), (Some(0), 0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let follow = "rackferry migration show --watch mig-7";
    assert!(said.starts_with("mig-7: VM web moves") && said.contains(follow), "{said}");
    let (output, _) = migrate(None, &["--detach", "--output", "json"]).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["id"], &value["result_code"]), (&"mig-7".into(), &0.into()));
    assert_eq!(value["follow"], follow);
}

#[tokio::test]
async fn a_list_has_what_goes_on_or_all() {
    for (args, ids) in [
        (&["migration", "list", "--output", "json"][..], &["mig-7"][..]),
        (&["migration", "list", "--all", "--output", "json"], &["mig-7", "mig-8"]),
    ] {
        let (output, _) = rackferry(None, args).await;
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = value["migrations"].as_array().unwrap();
        let listed: Vec<_> = all.iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!((output.status.code(), &listed[..]), (Some(0), ids));
    }
}

#[tokio::test]
async fn a_migration_is_shown_with_its_code() {
    let moved = Some((Phase::Done, MigrationEnd::Moved));
    for (ends, more, code, watched) in [
        (None, &["mig-7"][..], 6, 0),
        (moved, &["mig-7"], 0, 0),
        (moved, &["--watch", "mig-7"], 0, 2),
        (Some((Phase::OwnerUnknown, MigrationEnd::Unspecified)), &["mig-7"], 8, 0),
        (None, &["evac-7"], 2, 0),
    ] {
        let args = [&["migration", "show"], more].concat();
        let (output, watches) = rackferry(ends, &args).await;
        assert_eq!((output.status.code(), watches), (Some(code), watched), "{args:?} {output:?}");
    }
}
