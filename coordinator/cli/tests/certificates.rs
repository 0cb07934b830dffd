//! The program and certificates: making them, showing them, being refused.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Output};

use rackferry_proto::{
    Reason, refuse,
    v1::{
        self, ListHostsRequest, ListHostsResponse, ListVmsRequest, ListVmsResponse,
        inventory_service_server::{InventoryService, InventoryServiceServer},
    },
};
use rackferry_tls::{Admission, Role, Tls, grpc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, transport::Server};

/// An older coordinator, without the newer methods: it lists hosts, and lets no caller list VMs.
struct Played;

#[tonic::async_trait]
impl InventoryService for Played {
    async fn list_hosts(
        &self,
        _: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        Ok(Response::new(ListHostsResponse::default()))
    }

    async fn list_vms(
        &self,
        _: Request<ListVmsRequest>,
    ) -> Result<Response<ListVmsResponse>, Status> {
        Err(refuse(Reason::NotPermitted, "this is for another role"))
    }

    async fn declare_host_dead(
        &self,
        _: Request<v1::DeclareHostDeadRequest>,
    ) -> Result<Response<v1::DeclareHostDeadResponse>, Status> {
        Err(older())
    }

    async fn forget_host(
        &self,
        _: Request<v1::ForgetHostRequest>,
    ) -> Result<Response<v1::ForgetHostResponse>, Status> {
        Err(older())
    }

    async fn get_vm(
        &self,
        _: Request<v1::GetVmRequest>,
    ) -> Result<Response<v1::GetVmResponse>, Status> {
        Err(older())
    }

    async fn forget_vm(
        &self,
        _: Request<v1::ForgetVmRequest>,
    ) -> Result<Response<v1::ForgetVmResponse>, Status> {
        Err(older())
    }

    async fn accept_vm_spec(
        &self,
        _: Request<v1::AcceptVmSpecRequest>,
    ) -> Result<Response<v1::AcceptVmSpecResponse>, Status> {
        Err(older())
    }

    async fn list_problems(
        &self,
        _: Request<v1::ListProblemsRequest>,
    ) -> Result<Response<v1::ListProblemsResponse>, Status> {
        Err(older())
    }

    async fn repair_problems(
        &self,
        _: Request<v1::RepairProblemsRequest>,
    ) -> Result<Response<v1::RepairProblemsResponse>, Status> {
        Err(older())
    }

    async fn import_inventory(
        &self,
        _: Request<v1::ImportInventoryRequest>,
    ) -> Result<Response<v1::ImportInventoryResponse>, Status> {
        Err(older())
    }

    async fn get_inventory(
        &self,
        _: Request<v1::GetInventoryRequest>,
    ) -> Result<Response<v1::GetInventoryResponse>, Status> {
        Err(older())
    }

    async fn list_links(
        &self,
        _: Request<v1::ListLinksRequest>,
    ) -> Result<Response<v1::ListLinksResponse>, Status> {
        Err(older())
    }

    async fn set_link_limits(
        &self,
        _: Request<v1::SetLinkLimitsRequest>,
    ) -> Result<Response<v1::SetLinkLimitsResponse>, Status> {
        Err(older())
    }

    async fn cordon_hosts(
        &self,
        _: Request<v1::CordonHostsRequest>,
    ) -> Result<Response<v1::CordonHostsResponse>, Status> {
        Err(older())
    }

    async fn uncordon_hosts(
        &self,
        _: Request<v1::UncordonHostsRequest>,
    ) -> Result<Response<v1::UncordonHostsResponse>, Status> {
        Err(older())
    }
}

fn older() -> Status {
    Status::unimplemented("of a later version")
}

async fn serve(site: &Path) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tls = Tls::open(&site.join("coordinator"), &[Role::Coordinator]).unwrap();
    let (members, _newcomers) = grpc::incoming(listener, Some(tls), Admission::default());
    let server = Server::builder().add_service(InventoryServiceServer::new(Played));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(members)));
    address
}

async fn rackferry(args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rackferry"));
    command.args(args).env_remove("RACKFERRY_TLS").env("HOME", "/nonexistent");
    command.output().await.unwrap()
}

/// A call of the coordinator, with the certificate of a folder.
async fn call(coordinator: &str, tls: &Path, args: &[&str]) -> Output {
    let tls = tls.to_str().unwrap();
    rackferry(&[&["--coordinator", coordinator, "--tls", tls], args].concat()).await
}

#[track_caller]
fn expect(output: &Output, code: i32, text: &str) {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(text), "{said}");
}

/// A new site's folder.
async fn init(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let site = dir.path().join("site");
    expect(&rackferry(&["init", site.to_str().unwrap()]).await, 0, "ca.key");
    site
}

#[tokio::test]
async fn a_site_is_made_once_and_its_keys_are_its_owners() {
    let dir = tempfile::tempdir().unwrap();
    let site = init(&dir).await;
    for key in ["ca.key", "coordinator/ca.key", "coordinator/key.pem", "admin/key.pem"] {
        let mode = std::fs::metadata(site.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert!(!site.join("admin/ca.key").exists());
    expect(&rackferry(&["init", site.to_str().unwrap()]).await, 2, "a CA in");
}

#[tokio::test]
async fn a_certificate_is_issued_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let site = init(&dir).await;
    let ca = site.to_str().unwrap();
    expect(&rackferry(&["issue", "viewer", "anna", "--ca", ca]).await, 0, "anna");
    let anna = Tls::open(&site.join("anna"), &Role::ALL).unwrap();
    assert_eq!(anna.holder().to_string(), "viewer anna");
    let coordinator = serve(&site).await;
    assert_eq!(
        call(&coordinator, &site.join("anna"), &["host", "list"]).await.status.code(),
        Some(0)
    );
    let output = call(&coordinator, &site.join("anna"), &["vm", "list"]).await;
    expect(&output, 7, "this is for another role");
}

#[tokio::test]
async fn whoever_is_not_let_in_learns_why_and_ends_with_7() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (site, foreign) = (init(&dir).await, init(&other).await);
    let coordinator = serve(&site).await;
    let list = ["host", "list"];
    let none = rackferry(&["--coordinator", &coordinator, "host", "list"]).await;
    expect(&none, 7, "there is no certificate in /nonexistent/.config/rackferry");
    let output = call(&coordinator, &foreign.join("admin"), &list).await;
    expect(&output, 7, "not signed by the CA of this site");
    let output = call(&coordinator, &site.join("coordinator"), &list).await;
    expect(&output, 7, "is the certificate of coordinator coordinator");
    // It believes our CA too, so that nothing but the coordinator is in its way.
    let authorities = [&foreign, &site].map(|site| std::fs::read(site.join("ca.pem")).unwrap());
    std::fs::write(foreign.join("admin/ca.pem"), authorities.concat()).unwrap();
    let output = call(&coordinator, &foreign.join("admin"), &list).await;
    expect(&output, 7, "our certificate is not of its site");
    let plain = call(&coordinator, Path::new("off"), &list).await;
    expect(&plain, 7, "does not answer without TLS");
}
