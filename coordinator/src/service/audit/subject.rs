//! What each request that changes the site does, and to what.

use rackferry_fleet::Action;
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
    ($($request:ty = $action:ident, $subject:expr;)*) => {$(
        impl Mutation for $request {
            const ACTION: Action = Action::$action;

            fn subject(&self) -> String {
                let subject: fn(&Self) -> String = $subject;
                subject(self)
            }
        }
    )*};
}

mutations! {
    CancelEvacuationRequest = Cancel, |request| request.id.clone();
    CancelMigrationRequest = Cancel, |request| request.id.clone();
    PauseEvacuationRequest = Pause, |request| request.id.clone();
    ResumeEvacuationRequest = Resume, |request| request.id.clone();
    CreateMigrationRequest = Migrate,
        |request| format!("VM {} to {}", request.vm, request.target_host);
    ForceSwitchoverRequest = ForceSwitchover, |request| request.id.clone();
    SetLinkLimitsRequest = LimitSet, |request| limits(&request.limits);
    CordonHostsRequest = Cordon, |request| request.places.join(", ");
    UncordonHostsRequest = Uncordon, |request| request.places.join(", ");
    RepairProblemsRequest = Repair, |_| String::new();
    ImportInventoryRequest = InventoryImport, |request| request.name.clone();
    DeclareHostDeadRequest = DeclareDead, |request| request.host.clone();
    ForgetHostRequest = HostForget, |request| request.host.clone();
    ForgetVmRequest = VmForget, |request| format!("VM {}", request.vm);
    AcceptVmSpecRequest = VmAcceptSpec, |request| format!("VM {}", request.vm);
    AddNodeRequest = ClusterAdd,
        |request| format!("coordinator {} at {}", request.id, request.addr);
    RemoveNodeRequest = ClusterRemove, |request| format!("coordinator {}", request.id);
    BackupClusterRequest = ClusterBackup, |_| String::new();
    CreateTokenRequest = TokenCreate, |request| request.host.clone();
    RenewRequest = CertificateRenew, |_| String::new();
    ExpelCertificateRequest = CertificateExpel,
        |request| certificate(&request.name, &request.serial);
    ReadmitCertificateRequest = CertificateReadmit,
        |request| certificate(&request.name, &request.serial);
    // From any caller that reaches the port: what it says it is would make each attempt another event.
    JoinRequest = Join, |_| String::new();
}

fn certificate(name: &str, serial: &str) -> String {
    if serial.is_empty() { name.to_owned() } else { format!("{name}, serial {serial}") }
}

impl Mutation for CreateEvacuationRequest {
    const ACTION: Action = Action::Evacuate;

    fn subject(&self) -> String {
        let planned = if self.moves.is_empty() { "" } else { ", as planned" };
        format!("{} to {}{planned}", self.sources.join(", "), self.targets.join(", "))
    }

    fn is_question(&self) -> bool {
        self.validate_only
    }
}

impl Mutation for RestoreEvacuationRequest {
    const ACTION: Action = Action::Restore;

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
