//! Which roles may call which method: one table, looked at before any service is.
//!
//! Methods not listed are denied to every role. Without TLS every caller may do everything: the operator wanted that.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use rackferry_fleet::{Act, Action};
use rackferry_proto::{Reason, refuse};
use rackferry_tls::{
    Role::{self, Admin, Agent, Coordinator, Operator, Viewer},
    grpc::{Caller, Peer},
};
use tokio_util::either::Either;
use tonic::{Status, body::Body, codegen::http};
use tower::{Layer, Service};

use super::audit;
use crate::refusals::Refusals;

const ALL: &[Role] = &Role::ALL;
const AGENTS: &[Role] = &[Agent];
const COORDINATORS: &[Role] = &[Coordinator];
/// Roles that may look.
const LOOK: &[Role] = &[Viewer, Operator, Admin];
/// Roles that may move VMs.
const MOVE: &[Role] = &[Operator, Admin];
/// Roles that may change the site.
const CHANGE: &[Role] = &[Admin];

/// The roles that may call a method; none if the method is not listed.
fn allowed(path: &str) -> Option<&'static [Role]> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let Some(service) = service.strip_prefix("rackferry.v1.") else {
        let foreign = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];
        return foreign.contains(&service).then_some(ALL);
    };
    Some(match (service, method) {
        ("AgentService", "Connect") | ("EnrolmentService", "Renew") => AGENTS,
        ("RaftService", "AppendEntries" | "Vote" | "InstallSnapshot") => COORDINATORS,
        (
            "InventoryService",
            "ListHosts" | "ListVms" | "GetVm" | "GetInventory" | "ListLinks" | "ListProblems",
        )
        | ("CheckService", "CheckVms")
        | ("EvacuationService", "GetEvacuation" | "ListEvacuations" | "WatchEvacuation")
        | ("MigrationService", "GetMigration" | "ListMigrations" | "WatchMigrations")
        | ("ClusterService", "GetCluster")
        | ("EventService", "ListEvents" | "WatchEvents")
        | ("EnrolmentService", "ListExpelledCertificates") => LOOK,
        (
            "EvacuationService",
            "CreateEvacuation" | "CancelEvacuation" | "PauseEvacuation" | "ResumeEvacuation"
            | "RestoreEvacuation",
        )
        | (
            "InventoryService",
            "SetLinkLimits" | "CordonHosts" | "UncordonHosts" | "RepairProblems" | "AcceptVmSpec",
        )
        | ("MigrationService", "CreateMigration" | "CancelMigration" | "ForceSwitchover") => MOVE,
        ("ClusterService", "AddNode" | "RemoveNode" | "BackupCluster")
        | ("InventoryService", "ImportInventory" | "DeclareHostDead" | "ForgetHost" | "ForgetVm")
        | ("EnrolmentService", "CreateToken" | "ExpelCertificate" | "ReadmitCertificate") => CHANGE,
        _ => return None,
    })
}

fn check(caller: Option<&Caller>, path: &str) -> Result<(), Status> {
    let identity = match caller {
        Some(Caller::Anonymous) => return Ok(()),
        Some(Caller::Known(shown)) => &shown.identity,
        None => return Err(Status::internal("a call from nowhere")),
    };
    let allowed = allowed(path).unwrap_or_default();
    if allowed.contains(&identity.role) {
        return Ok(());
    }
    let needed: Vec<_> = allowed.iter().map(|role| role.as_str()).collect();
    let text = match &needed[..] {
        [] => format!("{identity} may not call {path}"),
        needed => {
            format!("this is for {}; the certificate is one of {identity}", needed.join(", "))
        }
    };
    Err(refuse(Reason::NotPermitted, text))
}

/// What a caller wanted that its role does not allow. A method that is none has no name of the caller's choice.
fn denied(path: &str) -> &str {
    let ours = allowed(path).and_then(|_| path.strip_prefix("/rackferry.v1."));
    ours.unwrap_or("unknown method")
}

/// Puts the table before services.
#[derive(Clone)]
pub struct Guarded {
    refusals: Refusals,
}

impl Guarded {
    pub const fn new(refusals: Refusals) -> Self {
        Self { refusals }
    }
}

impl<S> Layer<S> for Guarded {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, refusals: self.refusals.clone() }
    }
}

/// Services behind the table.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    refusals: Refusals,
}

type Answer<S> = Result<http::Response<Body>, <S as Service<http::Request<Body>>>::Error>;

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Answer<S>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        // Services ask for the caller; only the record of who did what says where it was.
        let caller = request.extensions().get::<Peer>().map(|peer| peer.caller.clone());
        let checked = check(caller.as_ref(), request.uri().path());
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        match checked {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(status) => {
                let by = audit::caller(request.extensions());
                self.refusals
                    .put(Act::new(by, Action::Call, denied(request.uri().path())), &status);
                Either::Left(ready(Ok(status.into_http())))
            }
        }
    }
}

#[cfg(test)]
#[path = "../../tests/common/methods.rs"]
mod methods;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rackferry_proto::reason_of;
    use rackferry_tls::{Identity, Shown};

    use super::{methods::methods, *};

    #[test]
    fn every_method_has_its_row() {
        let methods = methods();
        assert!(methods.len() > 20, "{methods:?}");
        for path in methods {
            // Callers that join have doors of their own.
            let at_these_doors = !path.contains(".JoinService/");
            assert_eq!(allowed(&path).is_some(), at_these_doors, "{path}");
        }
    }

    fn may(role: Role, path: &str) -> bool {
        let shown = Shown { identity: Identity::new(role, "x"), serial: String::new() };
        let caller = Caller::Known(Arc::new(shown));
        let path = format!("/rackferry.v1.{path}");
        match check(Some(&caller), &path) {
            Ok(()) => true,
            Err(status) => {
                assert_eq!(reason_of(&status), Some(Reason::NotPermitted));
                false
            }
        }
    }

    #[test]
    fn each_role_may_what_it_needs() {
        for (path, roles) in [
            ("InventoryService/ListVms", LOOK),
            ("EventService/ListEvents", LOOK),
            ("EventService/WatchEvents", LOOK),
            ("EvacuationService/CreateEvacuation", MOVE),
            ("MigrationService/CancelMigration", MOVE),
            ("MigrationService/ForceSwitchover", MOVE),
            ("InventoryService/AcceptVmSpec", MOVE),
            ("ClusterService/RemoveNode", CHANGE),
            ("EnrolmentService/CreateToken", CHANGE),
            ("ClusterService/BackupCluster", CHANGE),
            ("EnrolmentService/ExpelCertificate", CHANGE),
            ("EnrolmentService/ListExpelledCertificates", LOOK),
            ("AgentService/Connect", AGENTS),
            ("RaftService/AppendEntries", COORDINATORS),
            ("RaftService/Unheard", &[]),
        ] {
            for role in Role::ALL {
                assert_eq!(may(role, path), roles.contains(&role), "{role} {path}");
            }
        }
    }

    #[test]
    fn without_tls_everybody_may_everything_and_out_of_nowhere_nobody() {
        let path = "/rackferry.v1.ClusterService/RemoveNode";
        assert!(check(Some(&Caller::Anonymous), path).is_ok());
        assert!(check(None, path).is_err());
    }
}
