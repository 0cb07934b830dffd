//! A cluster that begins anew: from the log of one coordinator after the others are lost, and from a backup. Real
//! processes, and agents that are played.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::common::{
    Agent, Coordinator, LIMIT,
    coordinators::{Site, hosts_at, names},
    create, free_port, moves, request, vm,
};
use rackferry_proto::v1::{
    BackupClusterRequest, ListVmsRequest, RunState, cluster_service_client::ClusterServiceClient,
    connect_response as down, inventory_service_client::InventoryServiceClient,
};
use tokio::time::{sleep, timeout};

/// Runs `rackferry-coordinator` with the settings of a folder to its end.
fn coordinator(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rackferry-coordinator"))
        .arg("--config")
        .arg(folder.join("coordinator.toml"))
        .args(args)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The owner of a VM, once the coordinator has one that is this.
async fn is_owned_by(coordinator: &Coordinator, name: &str, host: &str) {
    let mut client = InventoryServiceClient::new(coordinator.channel().await);
    let owned = async {
        loop {
            let vms = client.list_vms(ListVmsRequest::default()).await.unwrap().into_inner().vms;
            if vms.iter().any(|vm| vm.name == name && vm.host == host) {
                return;
            }
            sleep(crate::common::coordinators::PAUSE).await;
        }
    };
    timeout(LIMIT, owned).await.expect("it is owned by that host");
}

async fn welcome(agent: &mut Agent) -> rackferry_proto::v1::Welcome {
    let down::Message::Welcome(welcome) = agent.hear_any().await else { panic!("not welcome") };
    welcome
}

#[tokio::test]
async fn one_of_three_goes_on_alone_and_the_others_are_of_another_cluster() {
    let mut site = Site::start(3, "").await;
    let (_agent, before) = site.write("a").await;
    let (_other, _) = site.write("b").await;
    let leader = site.leader().await;
    let (left, lost) = ((leader + 1) % 3, [leader, (leader + 2) % 3]);
    site.catches_up(left, leader).await;
    lost.iter().for_each(|&n| site.kill(n));
    let folder = site.folder(left);
    let running = coordinator(&folder, &["recover", "--force-single", "--yes"]);
    assert!(!running.status.success() && said(&running).contains("stop it"), "{}", said(&running));
    site.kill(left);
    let unasked = coordinator(&folder, &["recover", "--force-single"]);
    assert!(said(&unasked).contains("--yes"), "{}", said(&unasked));
    assert!(said(&unasked).contains("must never come back"), "{}", said(&unasked));
    let done = coordinator(&folder, &["recover", "--force-single", "--yes"]);
    assert!(done.status.success(), "{}", said(&done));

    site.up(left).await;
    assert_eq!(site.leader_among(&[left]).await, left);
    assert_eq!(hosts_at(site.ports[left]).await.unwrap(), names(&["a", "b"]));
    let status = site.status(left).await;
    assert_eq!((status.nodes.len(), status.nodes[0].id), (1, left as u64 + 1));
    let new = site.nodes[left].as_ref().unwrap();
    let web = vm("web", RunState::Running, "mig-7");
    let mut agent = Agent::connect(new, "a", "a", vec![web]).await;
    let after = welcome(&mut agent).await;
    assert_eq!((after.host_id, after.domain_key), (before.host_id, before.domain_key));
    assert!(before.incarnation == 0 && after.incarnation > 0);
    // What it was in is known to no coordinator any more.
    assert!(
        matches!(agent.hear().await, down::Message::Cancel(cancel) if cancel.migration_id == "mig-7")
    );
    is_owned_by(new, "web", "a").await;

    // The others are two of three, and never take this one in again.
    for n in lost {
        site.up(n).await;
    }
    site.leader_among(&lost).await;
    let log = site.folder(left).join("log");
    let refused = async {
        while !std::fs::read_to_string(&log).unwrap().contains("another cluster") {
            sleep(crate::common::coordinators::PAUSE).await;
        }
    };
    timeout(LIMIT, refused).await.expect("their messages are refused");
    assert_eq!(site.status(left).await.nodes.len(), 1);
}

async fn backup(coordinator: &Coordinator, file: &Path) {
    let mut client = ClusterServiceClient::new(coordinator.channel().await);
    let mut parts = client.backup_cluster(BackupClusterRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await.unwrap() {
        bytes.extend(part.part);
    }
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn an_old_backup_resumes_nothing_and_takes_the_vms_from_the_agents() {
    let dir = tempfile::tempdir().unwrap();
    let (port, file) = (free_port(), dir.path().join("backup"));
    let mut old = Coordinator::start(dir.path(), port).await;
    let web = || vm("web", RunState::Running, "");
    let mut source = Agent::connect(&old, "a1", "a", vec![web()]).await;
    let mut target = Agent::connect(&old, "b1", "b", vec![]).await;
    is_owned_by(&old, "web", "a1").await;
    backup(&old, &file).await;
    // It goes on, and the VM moves.
    create(&old, request("there")).await;
    moves(&mut source, &mut target).await;
    is_owned_by(&old, "web", "b1").await;
    old.kill();

    let full = coordinator(dir.path(), &["restore", file.to_str().unwrap()]);
    assert!(!full.status.success() && said(&full).contains("not empty"), "{}", said(&full));
    let data = dir.path().join("data");
    std::fs::rename(&data, dir.path().join("lost")).unwrap();
    std::fs::write(dir.path().join("half"), &std::fs::read(&file).unwrap()[..100]).unwrap();
    let half = dir.path().join("half");
    let damaged = coordinator(dir.path(), &["restore", half.to_str().unwrap()]);
    assert!(said(&damaged).contains("damaged"), "{}", said(&damaged));
    let done = coordinator(dir.path(), &["restore", file.to_str().unwrap()]);
    assert!(done.status.success(), "{}", said(&done));

    let new = Coordinator::start(dir.path(), port).await;
    // The backup says that it is this host's, and its copy is left: by the record alone it would be run again.
    let left = vm("web", RunState::MovedOut, "mig-1");
    let mut source = Agent::connect(&new, "a1", "a", vec![left.clone()]).await;
    source.report(vec![left]).await;
    let _target = Agent::connect(&new, "b1", "b", vec![web()]).await;
    is_owned_by(&new, "web", "b1").await;
    assert!(welcome(&mut source).await.incarnation > 0);
    source.report(vec![]).await;

    // Numbers that were handed out after the backup are not handed out again.
    let back = rackferry_proto::v1::CreateEvacuationRequest {
        sources: vec!["b".to_owned()],
        targets: vec!["a".to_owned()],
        request_id: "back".to_owned(),
        ..Default::default()
    };
    create(&new, back).await;
    // An order to run the old copy again would have come first.
    let down::Message::PrepareTarget(prepare) = source.hear().await else { panic!("not prepare") };
    assert!(prepare.session > 1_000_000 && prepare.generation > 1_000_000, "{prepare:?}");
}
