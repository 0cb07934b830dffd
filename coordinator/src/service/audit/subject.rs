//! What each request that changes the site does, and to what.

use rackferry_proto::v1::{
    AcceptVmSpecRequest, AddNodeRequest, BackupClusterRequest, CancelEvacuationRequest,
    CancelMigrationRequest, CordonHostsRequest, CreateEvacuationRequest, CreateMigrationRequest,
    CreateTokenRequest, DeclareHostDeadRequest, ExpelCertificateRequest, ForceSwitchoverRequest,
    ForgetHostRequest, ForgetVmRequest, ImportInventoryRequest, JoinRequest, LinkLimit,
    PauseEvacuationRequest, ReadmitCertificateRequest, RemoveNodeRequest, RenewRequest,
    RepairProblemsRequest, RestoreEvacuationRequest, ResumeEvacuationRequest, SetLinkLimitsRequest,
    UncordonHostsRequest, link_limit::Limit,
};

use super::Mutation;

/// Requests whose subject is a few of their fields.
macro_rules! mutations {
    ($($request:ty = $action:literal, $subject:expr;)*) => {$(
        impl Mutation for $request {
            const ACTION: &'static str = $action;

            fn subject(&self) -> String {
                let subject: fn(&Self) -> String = $subject;
                subject(self)
            }
        }
    )*};
}

mutations! {
    CancelEvacuationRequest = "cancel", |request| request.id.clone();
    CancelMigrationRequest = "cancel", |request| request.id.clone();
    PauseEvacuationRequest = "pause", |request| request.id.clone();
    ResumeEvacuationRequest = "resume", |request| request.id.clone();
    CreateMigrationRequest = "migrate",
        |request| format!("VM {} to {}", request.vm, request.target_host);
    ForceSwitchoverRequest = "force-switchover", |request| request.id.clone();
    SetLinkLimitsRequest = "limit-set", |request| limits(&request.limits);
    CordonHostsRequest = "cordon", |request| request.places.join(", ");
    UncordonHostsRequest = "uncordon", |request| request.places.join(", ");
    RepairProblemsRequest = "repair", |_| String::new();
    ImportInventoryRequest = "inventory-import", |request| request.name.clone();
    DeclareHostDeadRequest = "declare-dead", |request| request.host.clone();
    ForgetHostRequest = "host-forget", |request| request.host.clone();
    ForgetVmRequest = "vm-forget", |request| format!("VM {}", request.vm);
    AcceptVmSpecRequest = "vm-accept-spec", |request| format!("VM {}", request.vm);
    AddNodeRequest = "cluster-add",
        |request| format!("coordinator {} at {}", request.id, request.addr);
    RemoveNodeRequest = "cluster-remove", |request| format!("coordinator {}", request.id);
    BackupClusterRequest = "cluster-backup", |_| String::new();
    CreateTokenRequest = "token-create", |request| request.host.clone();
    RenewRequest = "certificate-renew", |_| String::new();
    ExpelCertificateRequest = "certificate-expel",
        |request| certificate(&request.name, &request.serial);
    ReadmitCertificateRequest = "certificate-readmit",
        |request| certificate(&request.name, &request.serial);
    // From any caller that reaches the port: what it says it is would make each attempt another event.
    JoinRequest = "join", |_| String::new();
}

fn certificate(name: &str, serial: &str) -> String {
    if serial.is_empty() { name.to_owned() } else { format!("{name}, serial {serial}") }
}

impl Mutation for CreateEvacuationRequest {
    const ACTION: &'static str = "evacuate";

    fn subject(&self) -> String {
        let planned = if self.moves.is_empty() { "" } else { ", as planned" };
        format!("{} to {}{planned}", self.sources.join(", "), self.targets.join(", "))
    }

    fn is_question(&self) -> bool {
        self.validate_only
    }
}

impl Mutation for RestoreEvacuationRequest {
    const ACTION: &'static str = "restore";

    fn subject(&self) -> String {
        self.id.clone()
    }

    fn is_question(&self) -> bool {
        self.validate_only
    }
}

fn limits(limits: &[LinkLimit]) -> String {
    let each = limits.iter().map(|limit| match limit.limit {
        Some(Limit::BytesPerSecond(rate)) => format!("{} {rate} bytes/s", limit.link),
        Some(Limit::Percent(percent)) => format!("{} {percent} %", limit.link),
        None => format!("{} off", limit.link),
    });
    each.collect::<Vec<_>>().join(", ")
}
