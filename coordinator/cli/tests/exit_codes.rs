//! The program against a coordinator that answers as it is told: every exit code.

use std::process::{Command, Output};

use rackferry_proto::{
    Reason, refuse,
    v1::{
        self, CancelEvacuationRequest, CancelEvacuationResponse, CreateEvacuationRequest,
        CreateEvacuationResponse, Evacuation, EvacuationState, GetEvacuationRequest,
        GetEvacuationResponse, ListEvacuationsRequest, ListEvacuationsResponse,
        PauseEvacuationRequest, PauseEvacuationResponse, RestoreEvacuationRequest,
        RestoreEvacuationResponse, ResumeEvacuationRequest, ResumeEvacuationResponse,
        WatchEvacuationRequest, WatchEvacuationResponse,
        evacuation_service_server::{EvacuationService, EvacuationServiceServer},
    },
};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, transport::Server};

type Snapshots = std::pin::Pin<
    Box<dyn tokio_stream::Stream<Item = Result<WatchEvacuationResponse, Status>> + Send>,
>;

/// What the coordinator does: refuses, or ends every evacuation like this.
#[derive(Clone)]
enum Acts {
    Refuse(Reason),
    End(EvacuationState, u32),
    Never,
    Late,
    /// One VM moved, and the owner of the other is uncertain.
    Stuck,
    /// Names a VM that cannot move, or that stays.
    Keep,
}

struct Fake(Acts);

impl Fake {
    fn evacuation(&self) -> Result<Evacuation, Status> {
        let (state, result_code) = match self.0 {
            Acts::Refuse(reason) => return Err(refuse(reason, "because")),
            Acts::End(state, result_code) => (state, result_code),
            Acts::Never | Acts::Late | Acts::Stuck => (EvacuationState::Running, 0),
            Acts::Keep => (EvacuationState::Done, 0),
        };
        let one = |vm: &str, phase: v1::Phase| v1::Migration {
            vm: vm.to_owned(),
            phase: phase.into(),
            ..v1::Migration::default()
        };
        let migrations = match self.0 {
            Acts::Stuck => vec![one("web", v1::Phase::Done), one("db", v1::Phase::OwnerUnknown)],
            _ => vec![],
        };
        Ok(Evacuation {
            id: "evac-7".to_owned(),
            sources: vec!["r1".to_owned()],
            state: state.into(),
            result_code,
            overdue: matches!(self.0, Acts::Late),
            migrations,
            totals: Some(v1::EvacuationTotals::default()),
            ..Evacuation::default()
        })
    }
}

#[tonic::async_trait]
impl EvacuationService for Fake {
    type WatchEvacuationStream = Snapshots;

    async fn create_evacuation(
        &self,
        request: Request<CreateEvacuationRequest>,
    ) -> Result<Response<CreateEvacuationResponse>, Status> {
        let mut evacuation = self.evacuation()?;
        let request = request.into_inner();
        let skips = request.skip_blocked;
        evacuation.left_out = request.left_out;
        if skips {
            evacuation.left_out.push(v1::StayingVm {
                vm: "gpu-1".to_owned(),
                reason: "it is paused".to_owned(),
                ..v1::StayingVm::default()
            });
        }
        evacuation.migrations = request
            .moves
            .into_iter()
            .map(|step| v1::Migration { vm: step.vm, ..v1::Migration::default() })
            .chain([v1::Migration { vm: "web".to_owned(), ..v1::Migration::default() }])
            .collect();
        let blocks = v1::Finding {
            severity: v1::Severity::Blocks.into(),
            cause: "it is paused".to_owned(),
            fix: "resume it".to_owned(),
            ..v1::Finding::default()
        };
        let vm = v1::VmCheck {
            vm: "gpu-1".to_owned(),
            findings: vec![blocks],
            ..v1::VmCheck::default()
        };
        let blocked = if matches!(self.0, Acts::Keep) && !skips { vec![vm] } else { vec![] };
        Ok(Response::new(CreateEvacuationResponse { evacuation: Some(evacuation), blocked }))
    }

    async fn restore_evacuation(
        &self,
        _: Request<RestoreEvacuationRequest>,
    ) -> Result<Response<RestoreEvacuationResponse>, Status> {
        let stays = v1::StayingVm {
            vm: "db-3".to_owned(),
            reason: "it is gone".to_owned(),
            ..v1::StayingVm::default()
        };
        let staying = if matches!(self.0, Acts::Keep) { vec![stays] } else { vec![] };
        let evacuation = Some(self.evacuation()?);
        Ok(Response::new(RestoreEvacuationResponse { evacuation, staying, blocked: vec![] }))
    }

    async fn get_evacuation(
        &self,
        _: Request<GetEvacuationRequest>,
    ) -> Result<Response<GetEvacuationResponse>, Status> {
        Ok(Response::new(GetEvacuationResponse { evacuation: Some(self.evacuation()?) }))
    }

    async fn list_evacuations(
        &self,
        _: Request<ListEvacuationsRequest>,
    ) -> Result<Response<ListEvacuationsResponse>, Status> {
        Ok(Response::new(ListEvacuationsResponse {
            evacuations: vec![self.evacuation()?],
            ..Default::default()
        }))
    }

    async fn watch_evacuation(
        &self,
        _: Request<WatchEvacuationRequest>,
    ) -> Result<Response<Snapshots>, Status> {
        let snapshot = Ok(WatchEvacuationResponse {
            evacuation: Some(self.evacuation()?),
            ..Default::default()
        });
        let one = tokio_stream::once(snapshot);
        let stream: Snapshots = if matches!(self.0, Acts::Never | Acts::Late | Acts::Stuck) {
            Box::pin(one.chain(tokio_stream::pending()))
        } else {
            Box::pin(one)
        };
        Ok(Response::new(stream))
    }

    async fn cancel_evacuation(
        &self,
        _: Request<CancelEvacuationRequest>,
    ) -> Result<Response<CancelEvacuationResponse>, Status> {
        Ok(Response::new(CancelEvacuationResponse { evacuation: Some(self.evacuation()?) }))
    }

    async fn pause_evacuation(
        &self,
        _: Request<PauseEvacuationRequest>,
    ) -> Result<Response<PauseEvacuationResponse>, Status> {
        Ok(Response::new(PauseEvacuationResponse { evacuation: Some(self.evacuation()?) }))
    }

    async fn resume_evacuation(
        &self,
        _: Request<ResumeEvacuationRequest>,
    ) -> Result<Response<ResumeEvacuationResponse>, Status> {
        Ok(Response::new(ResumeEvacuationResponse { evacuation: Some(self.evacuation()?) }))
    }
}

async fn serve(acts: Acts) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let service = EvacuationServiceServer::new(Fake(acts));
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// Runs the program; it never waits for an answer from us.
async fn rackferry(address: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackferry"));
    command.env("RACKFERRY_TLS", "off");
    command.arg("--coordinator").arg(address).args(args).stdin(std::process::Stdio::null());
    tokio::task::spawn_blocking(move || command.output().expect("it starts"))
        .await
        .expect("no panic")
}

const EVACUATE: [&str; 5] = ["evacuate", "r1", "--to", "r2", "--yes"];

async fn evacuate(acts: Acts) -> Option<i32> {
    rackferry(&serve(acts).await, &EVACUATE).await.status.code()
}

#[tokio::test]
async fn an_evacuation_ends_with_its_code() {
    for (state, code) in [
        (EvacuationState::Done, 0),
        (EvacuationState::Incomplete, 4),
        (EvacuationState::Cancelled, 5),
        (EvacuationState::Incomplete, 8),
    ] {
        assert_eq!(evacuate(Acts::End(state, code)).await, Some(code as i32));
    }
}

#[tokio::test]
async fn a_passed_deadline_is_6_and_says_that_the_work_goes_on() {
    let args = [&EVACUATE[..], &["--deadline", "1s"]].concat();
    let output = rackferry(&serve(Acts::Late).await, &args).await;
    assert_eq!(output.status.code(), Some(6));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("evac-7: deadline passed") && said.contains("evac-7 goes on"), "{said}");
}

#[tokio::test]
async fn a_refusal_ends_with_its_code() {
    assert_eq!(evacuate(Acts::Refuse(Reason::DoesNotFit)).await, Some(3));
    assert_eq!(evacuate(Acts::Refuse(Reason::UnknownPlace)).await, Some(2));
    assert_eq!(evacuate(Acts::Refuse(Reason::NothingToMove)).await, Some(0));
    assert_eq!(evacuate(Acts::Refuse(Reason::ShuttingDown)).await, Some(7));
}

#[tokio::test]
async fn a_plan_is_written_applied_and_refused_with_its_codes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json");
    let name = file.display().to_string();
    let plan = ["plan", "r1", "--to", "r2", "--out", &name];
    let address = serve(Acts::End(EvacuationState::Done, 0)).await;
    let output = rackferry(&address, &plan).await;
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("will move      1 VMs") && text.contains("rackferry apply"), "{text}");
    assert_eq!(rackferry(&address, &["apply", &name]).await.status.code(), Some(0));
    for (acts, code) in [
        (Acts::Refuse(Reason::PlanChanged), 3),
        (Acts::Refuse(Reason::UnknownPlace), 2),
        (Acts::End(EvacuationState::Incomplete, 4), 4),
    ] {
        let output = rackferry(&serve(acts).await, &["apply", &name]).await;
        assert_eq!(output.status.code(), Some(code));
    }

    let edited = std::fs::read_to_string(&file).unwrap().replace("web", "wob");
    std::fs::write(&file, edited).unwrap();
    let output = rackferry(&address, &["apply", &name]).await;
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("it was changed after it was written"), "{told}");
    assert_eq!(rackferry(&address, &["apply", "/nonexistent"]).await.status.code(), Some(2));
    let nowhere = ["plan", "r1", "--to", "r2", "--out", "/nonexistent/plan.json"];
    assert_eq!(rackferry(&address, &nowhere).await.status.code(), Some(2));
}

#[tokio::test]
async fn a_plan_with_a_vm_that_cannot_move_is_3_and_writes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json");
    let plan = ["plan", "r1", "--to", "r2", "--out", &file.display().to_string()];
    let output = rackferry(&serve(Acts::Keep).await, &plan).await;
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("gpu-1") && text.contains("fix: resume it"), "{text}");
    assert!(!file.exists());
    let refused = rackferry(&serve(Acts::Refuse(Reason::DoesNotFit)).await, &plan).await;
    assert_eq!(refused.status.code(), Some(3));
    let nothing = rackferry(&serve(Acts::Refuse(Reason::NothingToMove)).await, &plan).await;
    assert_eq!(nothing.status.code(), Some(0));
}

#[tokio::test]
async fn a_plan_that_leaves_vms_out_is_4_and_keeps_them_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json");
    let name = file.display().to_string();
    let plan = ["plan", "r1", "--to", "r2", "--skip-blocked", "--out", &name];
    let address = serve(Acts::Keep).await;
    let output = rackferry(&address, &plan).await;
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("gpu-1: it is paused") && text.contains("rackferry apply"), "{text}");
    let apply = ["apply", &name, "--detach", "--output", "json"];
    let output = rackferry(&address, &apply).await;
    assert_eq!(output.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["left_out"][0]["vm"], "gpu-1", "{value:#}");

    let edited = std::fs::read_to_string(&file).unwrap().replace("gpu-1", "gpu-2");
    std::fs::write(&file, edited).unwrap();
    assert_eq!(rackferry(&address, &["apply", &name]).await.status.code(), Some(2));
}

#[tokio::test]
async fn bringing_back_has_its_codes() {
    let restore = ["restore", "evac-7", "--yes"];
    for (acts, code) in [
        (Acts::End(EvacuationState::Done, 0), 0),
        (Acts::Refuse(Reason::EvacuationRunning), 3),
        (Acts::Refuse(Reason::VmNotMovable), 3),
        (Acts::Refuse(Reason::UnknownEvacuation), 2),
        (Acts::Keep, 4),
    ] {
        assert_eq!(rackferry(&serve(acts).await, &restore).await.status.code(), Some(code));
    }
    let address = serve(Acts::Keep).await;
    assert_eq!(rackferry(&address, &["restore", "mig-7", "--yes"]).await.status.code(), Some(2));
    let output = rackferry(&address, &[&restore[..], &["--output", "json"]].concat()).await;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&value["result_code"], &value["staying"][0]["vm"]), (&4.into(), &"db-3".into()));
}

#[tokio::test]
async fn each_snapshot_is_a_line() {
    let args = [&EVACUATE[..], &["--timeout", "500ms", "--output", "ndjson"]].concat();
    let output = rackferry(&serve(Acts::Never).await, &args).await;
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = lines.iter().map(|line| (&line["id"], &line["result_code"])).collect();
    let none = serde_json::Value::Null;
    assert_eq!(seen, [(&"evac-7".into(), &none), (&"evac-7".into(), &6.into())]);
    let refused = [&EVACUATE[..], &["--output", "ndjson"]].concat();
    let output = rackferry(&serve(Acts::Refuse(Reason::DoesNotFit)).await, &refused).await;
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn what_is_not_over_is_6() {
    let status = ["status", "evac-7", "--output", "json"];
    for (acts, code) in [
        (Acts::Never, 6),
        (Acts::Late, 6),
        (Acts::End(EvacuationState::Paused, 0), 6),
        (Acts::Stuck, 8),
        (Acts::End(EvacuationState::Done, 0), 0),
        (Acts::End(EvacuationState::Incomplete, 4), 4),
    ] {
        let output = rackferry(&serve(acts).await, &status).await;
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &value["result_code"]), (Some(code), &code.into()));
    }
    let list = rackferry(&serve(Acts::Never).await, &["status"]).await;
    assert_eq!(list.status.code(), Some(0), "a list is complete");
}

#[tokio::test]
async fn an_uncertain_owner_is_8_after_a_while() {
    let address = serve(Acts::Stuck).await;
    for args in [&EVACUATE[..], &["status", "--watch", "evac-7"]] {
        let waited =
            tokio::time::timeout(std::time::Duration::from_secs(60), rackferry(&address, args));
        let output = waited.await.expect("it waits no longer");
        assert_eq!(output.status.code(), Some(8));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("VM db is owner_unknown") && said.contains("rackferry doctor"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn wrong_usage_is_2() {
    let output = rackferry("127.0.0.1:1", &["evacuate", "r1"]).await;
    assert_eq!(output.status.code(), Some(2));
    let output = rackferry(&serve(Acts::Never).await, &["cancel", "nonsense"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn without_a_terminal_what_asks_needs_yes() {
    let address = serve(Acts::End(EvacuationState::Done, 0)).await;
    for (args, says) in [
        (&["evacuate", "r1", "--to", "r2"][..], "evacuate asks"),
        (&["drain", "r1", "--to", "r2", "--detach"], "evacuate asks"),
        (&["evacuate", "r1", "--to", "r2", "--output", "json"], "evacuate asks"),
        (&["restore", "evac-7"], "restore asks"),
    ] {
        let output = rackferry(&address, args).await;
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?} {said}");
        assert!(said.contains(says) && said.contains("--yes"), "{args:?} {said}");
        let output = rackferry(&address, &[args, &["--yes"]].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

#[tokio::test]
async fn pausing_and_resuming_have_their_codes() {
    let address = serve(Acts::End(EvacuationState::Paused, 0)).await;
    for command in ["pause", "resume"] {
        assert_eq!(rackferry(&address, &[command, "evac-7"]).await.status.code(), Some(0));
        assert_eq!(rackferry(&address, &[command, "mig-7"]).await.status.code(), Some(2));
    }
    let address = serve(Acts::Refuse(Reason::EvacuationEnded)).await;
    assert_eq!(rackferry(&address, &["pause", "evac-7"]).await.status.code(), Some(3));
}

#[tokio::test]
async fn a_paused_evacuation_is_waited_for() {
    let address = serve(Acts::End(EvacuationState::Paused, 0)).await;
    let args = [&EVACUATE[..], &["--timeout", "500ms"]].concat();
    assert_eq!(rackferry(&address, &args).await.status.code(), Some(6));
}

#[tokio::test]
async fn a_limit_that_is_none_is_2() {
    for limit in ["core0", "core0=fast", "core0=0%"] {
        let output = rackferry("127.0.0.1:1", &["limit", "set", limit]).await;
        assert_eq!(output.status.code(), Some(2), "{limit}");
    }
}

#[tokio::test]
async fn a_file_is_checked_without_a_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &[u8]| {
        let path = folder.path().join("site.yaml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let check = async |file: String| rackferry("nowhere:1", &["inventory", "check", &file]).await;
    assert_eq!(check(file(b"version: 1\n")).await.status.code(), Some(0));
    let output = check(file(b"version: 1\nracks: [{nmae: r1}]\n")).await;
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("site.yaml:2:10: unknown key `nmae`"), "{told}");
    assert_eq!(check(file(b"\xff")).await.status.code(), Some(2));
    assert_eq!(check(folder.path().display().to_string()).await.status.code(), Some(2));
    assert_eq!(check("/nonexistent".to_owned()).await.status.code(), Some(2));
}

#[tokio::test]
async fn the_command_describes_itself_without_a_coordinator() {
    let output = rackferry("nowhere:1", &["man"]).await;
    assert_eq!(output.status.code(), Some(0));
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains(".TH rackferry 1") && page.contains("operator needed"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let output = rackferry("nowhere:1", &["completions", shell]).await;
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("evacuate") && script.contains("max-downtime"), "{shell}");
    }
    assert_eq!(rackferry("nowhere:1", &["completions", "cobol"]).await.status.code(), Some(2));
    let output = rackferry("nowhere:1", &["man", "--out", "/nonexistent"]).await;
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn nobody_there_is_7() {
    let output = rackferry("127.0.0.1:1", &["status"]).await;
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("cannot reach the coordinator at 127.0.0.1:1"), "{text}");
}

#[tokio::test]
async fn what_the_coordinator_does_not_serve_is_1() {
    let output = rackferry(&serve(Acts::Never).await, &["vm", "list"]).await;
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn no_longer_waited_for_is_6_and_the_work_goes_on() {
    let args = [&EVACUATE[..], &["--timeout", "500ms"]].concat();
    let output = rackferry(&serve(Acts::Never).await, &args).await;
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("rackferry cancel evac-7"), "{text}");
}

#[tokio::test]
async fn an_interrupt_detaches() {
    let address = serve(Acts::Never).await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rackferry"));
    command.env("RACKFERRY_TLS", "off");
    command.arg("--coordinator").arg(address).args(EVACUATE).kill_on_drop(true);
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let pid = child.id().unwrap().to_string();
    // It has no way to say that it listens to signals; it certainly does after the first snapshot.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stdout).contains("rackferry cancel evac-7"));
}

#[tokio::test]
async fn detached_is_0() {
    let args = [&EVACUATE[..], &["--detach"]].concat();
    let output = rackferry(&serve(Acts::Never).await, &args).await;
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn json_carries_the_code() {
    let args = [&EVACUATE[..], &["--output", "json"]].concat();
    for (acts, code) in
        [(Acts::End(EvacuationState::Incomplete, 4), 4), (Acts::Refuse(Reason::DoesNotFit), 3)]
    {
        let output = rackferry(&serve(acts).await, &args).await;
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["result_code"], code);
        assert_eq!(output.status.code(), Some(code));
    }
}
