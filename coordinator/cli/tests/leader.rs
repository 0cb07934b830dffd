//! The program against coordinators that do not lead.

use std::process::Output;

use rackferry_proto::v1::{
    self, AddNodeRequest, AddNodeResponse, Cluster, CordonHostsRequest, CordonHostsResponse,
    GetClusterRequest, GetClusterResponse, GetInventoryRequest, GetInventoryResponse,
    ImportInventoryRequest, ImportInventoryResponse, ListHostsRequest, ListHostsResponse,
    ListLinksRequest, ListLinksResponse, ListProblemsRequest, ListProblemsResponse, ListVmsRequest,
    ListVmsResponse, RemoveNodeRequest, RemoveNodeResponse, RepairProblemsRequest,
    RepairProblemsResponse, SetLinkLimitsRequest, SetLinkLimitsResponse, UncordonHostsRequest,
    UncordonHostsResponse,
    cluster_service_server::{ClusterService, ClusterServiceServer},
    inventory_service_server::{InventoryService, InventoryServiceServer},
};
use rackferry_proto::{Reason, refuse, refuse_not_leader};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A coordinator; it leads if no other is named.
#[derive(Clone, Default)]
struct Fake {
    leader_addr: Option<String>,
    problems: Vec<v1::Problem>,
}

impl Fake {
    fn cluster(&self) -> Cluster {
        match &self.leader_addr {
            None => Cluster { node_id: 1, leader_id: 1, ..Cluster::default() },
            // An empty one is not known.
            Some(addr) => Cluster {
                node_id: 2,
                leader_id: u64::from(!addr.is_empty()),
                leader_addr: addr.clone(),
                ..Cluster::default()
            },
        }
    }

    fn admit(&self) -> Result<(), Status> {
        match &self.leader_addr {
            None => Ok(()),
            Some(addr) => Err(refuse_not_leader(Some(addr))),
        }
    }
}

#[tonic::async_trait]
impl ClusterService for Fake {
    type BackupClusterStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<v1::BackupClusterResponse, Status>>>;

    async fn backup_cluster(
        &self,
        _: Request<v1::BackupClusterRequest>,
    ) -> Result<Response<Self::BackupClusterStream>, Status> {
        self.admit()?;
        let part = |part: &[u8]| Ok(v1::BackupClusterResponse { part: part.to_vec() });
        let parts = vec![part(b"a back"), part(b"up")];
        Ok(Response::new(tokio_stream::iter(parts)))
    }

    async fn get_cluster(
        &self,
        _: Request<GetClusterRequest>,
    ) -> Result<Response<GetClusterResponse>, Status> {
        Ok(Response::new(GetClusterResponse { cluster: Some(self.cluster()) }))
    }

    async fn add_node(
        &self,
        request: Request<AddNodeRequest>,
    ) -> Result<Response<AddNodeResponse>, Status> {
        self.admit()?;
        if request.into_inner().id == 9 {
            return Err(refuse(Reason::MembershipBusy, "another change is under way"));
        }
        Ok(Response::new(AddNodeResponse { cluster: Some(self.cluster()) }))
    }

    async fn remove_node(
        &self,
        _: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        self.admit()?;
        Err(refuse(Reason::UnknownNode, "there is no such coordinator"))
    }
}

#[tonic::async_trait]
impl InventoryService for Fake {
    async fn list_hosts(
        &self,
        _: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        self.admit()?;
        let host = v1::Host { name: "r1-h1".to_owned(), ..v1::Host::default() };
        Ok(Response::new(ListHostsResponse { hosts: vec![host], ..Default::default() }))
    }

    async fn list_vms(
        &self,
        _: Request<ListVmsRequest>,
    ) -> Result<Response<ListVmsResponse>, Status> {
        self.admit()?;
        Ok(Response::new(ListVmsResponse::default()))
    }

    async fn declare_host_dead(
        &self,
        request: Request<v1::DeclareHostDeadRequest>,
    ) -> Result<Response<v1::DeclareHostDeadResponse>, Status> {
        self.admit()?;
        let host = v1::Host { name: request.into_inner().host, vms: 3, ..v1::Host::default() };
        Ok(Response::new(v1::DeclareHostDeadResponse { host: Some(host) }))
    }

    async fn forget_host(
        &self,
        _: Request<v1::ForgetHostRequest>,
    ) -> Result<Response<v1::ForgetHostResponse>, Status> {
        self.admit()?;
        Ok(Response::new(v1::ForgetHostResponse {}))
    }

    async fn get_vm(
        &self,
        request: Request<v1::GetVmRequest>,
    ) -> Result<Response<v1::GetVmResponse>, Status> {
        self.admit()?;
        let vm = v1::Vm { name: request.into_inner().vm, ..v1::Vm::default() };
        let problems = self.problems.clone();
        let (registered_toml, reported_toml) = ("cpus = 1".to_owned(), "cpus = 2".to_owned());
        let specs = Some(v1::VmSpecs { registered_toml, reported_toml });
        Ok(Response::new(v1::GetVmResponse { vm: Some(vm), problems, specs, ..Default::default() }))
    }

    async fn forget_vm(
        &self,
        _: Request<v1::ForgetVmRequest>,
    ) -> Result<Response<v1::ForgetVmResponse>, Status> {
        self.admit()?;
        Ok(Response::new(v1::ForgetVmResponse {}))
    }

    async fn accept_vm_spec(
        &self,
        request: Request<v1::AcceptVmSpecRequest>,
    ) -> Result<Response<v1::AcceptVmSpecResponse>, Status> {
        self.admit()?;
        assert_eq!(request.into_inner().spec_toml, "cpus = 2", "what was shown");
        Ok(Response::new(v1::AcceptVmSpecResponse {}))
    }

    async fn list_problems(
        &self,
        _: Request<ListProblemsRequest>,
    ) -> Result<Response<ListProblemsResponse>, Status> {
        self.admit()?;
        Ok(Response::new(ListProblemsResponse { problems: self.problems.clone() }))
    }

    async fn repair_problems(
        &self,
        _: Request<RepairProblemsRequest>,
    ) -> Result<Response<RepairProblemsResponse>, Status> {
        self.admit()?;
        let repaired = vec![v1::Problem { vm: "web".to_owned(), ..v1::Problem::default() }];
        Ok(Response::new(RepairProblemsResponse { repaired }))
    }

    async fn import_inventory(
        &self,
        _: Request<ImportInventoryRequest>,
    ) -> Result<Response<ImportInventoryResponse>, Status> {
        self.admit()?;
        let summary = Some(v1::InventorySummary::default());
        Ok(Response::new(ImportInventoryResponse { changed: true, summary }))
    }

    async fn get_inventory(
        &self,
        _: Request<GetInventoryRequest>,
    ) -> Result<Response<GetInventoryResponse>, Status> {
        self.admit()?;
        Ok(Response::new(GetInventoryResponse::default()))
    }

    async fn list_links(
        &self,
        _: Request<ListLinksRequest>,
    ) -> Result<Response<ListLinksResponse>, Status> {
        self.admit()?;
        Ok(Response::new(ListLinksResponse::default()))
    }

    async fn set_link_limits(
        &self,
        _: Request<SetLinkLimitsRequest>,
    ) -> Result<Response<SetLinkLimitsResponse>, Status> {
        self.admit()?;
        Err(refuse(Reason::UnknownLink, "there is no such link"))
    }

    async fn cordon_hosts(
        &self,
        _: Request<CordonHostsRequest>,
    ) -> Result<Response<CordonHostsResponse>, Status> {
        self.admit()?;
        Ok(Response::new(CordonHostsResponse::default()))
    }

    async fn uncordon_hosts(
        &self,
        _: Request<UncordonHostsRequest>,
    ) -> Result<Response<UncordonHostsResponse>, Status> {
        self.admit()?;
        Ok(Response::new(UncordonHostsResponse::default()))
    }
}

async fn serve(leader_addr: Option<&str>) -> String {
    serve_as(Fake { leader_addr: leader_addr.map(str::to_owned), ..Fake::default() }).await
}

async fn serve_as(fake: Fake) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::builder()
        .add_service(ClusterServiceServer::new(fake.clone()))
        .add_service(InventoryServiceServer::new(fake));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

async fn rackferry(coordinators: &str, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rackferry"));
    command.env("RACKFERRY_TLS", "off");
    command.arg("--coordinator").arg(coordinators).args(args).stdin(std::process::Stdio::null());
    command.output().await.unwrap()
}

#[track_caller]
fn expect_the_host(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("r1-h1"));
}

#[tokio::test]
async fn a_follower_leads_to_the_leader() {
    let leader = serve(None).await;
    let follower = serve(Some(&leader)).await;
    expect_the_host(&rackferry(&follower, &["host", "list"]).await);
}

#[tokio::test]
async fn one_that_is_gone_is_passed_over() {
    let leader = serve(None).await;
    let lost = serve(Some("127.0.0.1:1")).await;
    let all = format!("127.0.0.1:1,{lost},{leader}");
    expect_the_host(&rackferry(&all, &["host", "list"]).await);
}

#[tokio::test]
async fn nobody_leads_is_7_and_yet_there_is_a_status() {
    let leaderless = serve(Some("")).await;
    let output = rackferry(&leaderless, &["host", "list"]).await;
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("no coordinator leads"), "{text}");
    let output = rackferry(&leaderless, &["cluster", "status"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("No coordinator leads"));
}

#[tokio::test]
async fn changes_of_the_cluster_end_with_their_codes() {
    let leader = serve(None).await;
    let follower = serve(Some(&leader)).await;
    for (args, code) in [
        (&["cluster", "add", "4", "10.0.0.4:7400"][..], 0),
        (&["cluster", "add", "9", "10.0.0.9:7400"], 3),
        (&["cluster", "remove", "7"], 2),
    ] {
        assert_eq!(rackferry(&follower, args).await.status.code(), Some(code), "{args:?}");
    }
}

#[tokio::test]
async fn what_changes_a_site_goes_to_the_leader() {
    let leader = serve(None).await;
    let follower = serve(Some(&leader)).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.yaml");
    std::fs::write(&file, "version: 1").unwrap();
    let file = file.to_str().unwrap();
    for (args, code) in [
        (&["inventory", "import", file][..], 0),
        (&["inventory", "show"], 0),
        (&["limit", "show"], 0),
        (&["limit", "set", "core0=40%"], 2),
        (&["cordon", "r1"], 0),
        (&["uncordon", "r1"], 0),
        (&["vm", "spec", "web"], 0),
        (&["vm", "accept-spec", "web"], 2),
        (&["vm", "accept-spec", "web", "--yes"], 0),
    ] {
        let output = rackferry(&follower, args).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[tokio::test]
async fn the_doctor_ends_with_the_worst_it_has_found() {
    use v1::ProblemCode::{AgentAway, Leftover, OwnerUncertain};
    for (codes, code) in
        [(&[][..], 0), (&[Leftover, AgentAway], 4), (&[OwnerUncertain, Leftover], 8)]
    {
        let problem = |code: &v1::ProblemCode| v1::Problem {
            code: (*code).into(),
            host: "r1-h1".to_owned(),
            cause: "so it is".to_owned(),
            fix: "do this".to_owned(),
            ..v1::Problem::default()
        };
        let problems = codes.iter().map(problem).collect();
        let leader = serve_as(Fake { problems, ..Fake::default() }).await;
        let follower = serve(Some(&leader)).await;
        let output = rackferry(&follower, &["doctor"]).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let output = rackferry(&follower, &["doctor", "--repair", "--output", "json"]).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["result_code"], code);
        assert_eq!(value["repaired"][0]["vm"], "web");
        let output = rackferry(&follower, &["vm", "show", "web", "--output", "json"]).await;
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&value["name"], &value["result_code"]), (&"web".into(), &code.into()));
    }
}

#[tokio::test]
async fn a_backup_is_its_owners_and_replaces_no_file() {
    use std::os::unix::fs::PermissionsExt;
    let leader = serve(None).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup");
    let args = ["cluster", "backup", file.to_str().unwrap()];
    assert_eq!(rackferry(&leader, &args).await.status.code(), Some(0));
    assert_eq!(std::fs::read(&file).unwrap(), b"a backup");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = rackferry(&leader, &args).await;
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("cannot write"));
}
