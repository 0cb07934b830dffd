//! Three coordinators as processes: elections, crashes, laggards, members that come and go.

use std::time::{Duration, Instant};

use crate::common::{
    Agent,
    coordinators::{PAUSE, Site, hosts_at, names},
    create, request, up_to_the_commit, vm,
};
use rackferry_proto::{
    Reason, leader_of, reason_of,
    v1::{
        AddNodeRequest, CommitRequest, ListHostsRequest, NodeRole, RemoveNodeRequest, RunState,
        cluster_service_client::ClusterServiceClient, connect_request as up,
        connect_response as down, inventory_service_client::InventoryServiceClient,
    },
};
use tokio::time::sleep;

#[tokio::test]
async fn a_write_survives_the_leader() {
    let mut site = Site::start(3, "").await;
    let (mut agent, before) = site.write("a").await;
    let leader = site.leader().await;
    for n in site.living().filter(|&n| n != leader) {
        let refused = hosts_at(site.ports[n]).await.unwrap_err();
        assert_eq!(reason_of(&refused), Some(Reason::NotLeader));
        assert_eq!(leader_of(&refused), Some(&*site.address(leader)));
    }
    site.kill(leader);
    agent.end().await;
    assert_eq!(site.hosts().await, names(&["a"]));
    let (_agent, after) = site.write("b").await;
    // One key for all: digests go on meaning the same.
    assert_eq!(before.domain_key, after.domain_key);
    assert_ne!(before.host_id, after.host_id);

    site.up(leader).await;
    let now = site.leader().await;
    site.catches_up(leader, now).await;
    site.kill(now);
    assert_eq!(site.hosts().await, names(&["a", "b"]));
}

#[tokio::test]
async fn a_laggard_gets_the_snapshot() {
    let mut site = Site::start(3, "snapshot_entries = 20").await;
    site.write("first").await;
    let leader = site.leader().await;
    let laggard = site.living().find(|&n| n != leader).unwrap();
    let behind = site.status(laggard).await.last_log_index;
    site.kill(laggard);
    let mut expected = names(&["first"]);
    for n in 0..60 {
        let host = format!("h{n}");
        site.write(&host).await;
        expected.insert(host);
    }
    let begin = Instant::now();
    while site.status(leader).await.purged_index <= behind {
        assert!(begin.elapsed() < crate::common::LIMIT, "{:?}", site.status(leader).await);
        sleep(PAUSE).await;
    }

    site.up(laggard).await;
    site.catches_up(laggard, leader).await;
    assert!(site.status(laggard).await.snapshot_index > behind);
    // It can stand in for the leader, also after a restart: the snapshot is its own now.
    site.kill(laggard);
    site.up(laggard).await;
    site.catches_up(laggard, leader).await;
    site.kill(leader);
    assert_eq!(site.hosts().await, expected);
}

#[tokio::test]
async fn all_three_restarted_at_once() {
    let mut site = Site::start(3, "").await;
    for _ in 0..2 {
        site.write("a").await;
        for n in 0..3 {
            site.kill(n);
        }
        for n in 0..3 {
            site.up(n).await;
        }
        assert_eq!(site.hosts().await, names(&["a"]));
    }
}

#[tokio::test]
async fn a_leader_that_was_away_tells_nobody_anything() {
    let site = Site::start(3, "").await;
    let (mut agent, _) = site.write("a").await;
    let old = site.leader().await;
    site.nodes[old].as_ref().unwrap().signal("STOP");
    let others: Vec<usize> = site.living().filter(|&n| n != old).collect();
    let new = site.leader_among(&others).await;
    // The old one still believes in itself; what it is asked now, it must not answer from memory.
    let channel = crate::common::channel(site.ports[old]);
    let asked = tokio::spawn(async move {
        let mut client = InventoryServiceClient::new(channel.await);
        client.list_hosts(ListHostsRequest::default()).await
    });
    let channel = crate::common::channel(site.ports[new]).await;
    let mut elsewhere = Agent::over(channel, "b", "b", vec![]).await.unwrap();
    assert!(matches!(elsewhere.hear_any().await, down::Message::Welcome(_)));
    site.nodes[old].as_ref().unwrap().signal("CONT");
    let refused = asked.await.unwrap().unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::NotLeader), "{refused:?}");
    agent.end().await;
    assert_eq!(site.hosts().await, names(&["a", "b"]));
}

#[tokio::test]
async fn a_leader_that_was_away_does_not_repeat_its_commit() {
    let site = Site::start(3, "").await;
    let old = site.leader().await;
    let coordinator = site.nodes[old].as_ref().unwrap();
    let running = vm("web", RunState::Running, "");
    let mut source = Agent::connect(coordinator, "a1", "a", vec![running.clone()]).await;
    let mut target = Agent::connect(coordinator, "b1", "b", vec![]).await;
    create(coordinator, request("r")).await;
    let (migration_id, generation) = up_to_the_commit(&mut source, &mut target).await;
    coordinator.signal("STOP");
    // What was granted is granted again without a write, by a coordinator that still leads.
    let commit = CommitRequest { migration_id: migration_id.clone(), generation };
    source.say(up::Message::CommitRequest(commit)).await;

    // At the next leader the source says that it runs: the commit is undone.
    let others: Vec<usize> = site.living().filter(|&n| n != old).collect();
    let new = site.nodes[site.leader_among(&others).await].as_ref().unwrap();
    let loaded = vm("web", RunState::Loaded, &migration_id);
    let mut elsewhere = Agent::connect(new, "b1", "b", vec![loaded]).await;
    let _source = Agent::connect(new, "a1", "a", vec![running]).await;
    assert!(matches!(elsewhere.hear().await, down::Message::DiscardTarget(_)));

    coordinator.signal("CONT");
    let heard = source.rest().await;
    let granted = heard.iter().any(|order| matches!(order, down::Message::CommitDecision(_)));
    assert!(!granted, "{heard:?}");
}

#[tokio::test]
async fn without_a_quorum_nobody_leads() {
    let mut site = Site::start(3, "").await;
    site.write("a").await;
    let leader = site.leader().await;
    let (mut agent, _) = site.write("b").await;
    for n in 0..3 {
        if n != leader {
            site.kill(n);
        }
    }
    let end = agent.end().await.expect("it says why");
    assert_eq!(reason_of(&end), Some(Reason::NotLeader));
    assert!(hosts_at(site.ports[leader]).await.is_err());
    site.up((leader + 1) % 3).await;
    assert_eq!(site.hosts().await, names(&["a", "b"]));
}

#[tokio::test]
async fn two_of_three_gone_is_not_serving() {
    const ANSWERED_BY_THE_LEADER: [&str; 2] = ["", "rackferry.v1.MigrationService"];
    const ANSWERED_BY_ALL: &str = "rackferry.v1.ClusterService";
    let mut site = Site::start(3, "").await;
    for n in 0..3 {
        for service in ANSWERED_BY_THE_LEADER.into_iter().chain([ANSWERED_BY_ALL]) {
            crate::common::health_becomes(site.ports[n], service, true).await;
        }
    }
    // A follower is left.
    let leader = site.leader().await;
    let [left, other] = [(leader + 1) % 3, (leader + 2) % 3];
    site.kill(leader);
    site.kill(other);
    for service in ANSWERED_BY_THE_LEADER {
        crate::common::health_becomes(site.ports[left], service, false).await;
    }
    crate::common::health_becomes(site.ports[left], ANSWERED_BY_ALL, true).await;
    site.up(other).await;
    for n in [left, other] {
        crate::common::health_becomes(site.ports[n], "", true).await;
    }
    // A leader is left.
    let leader = site.leader().await;
    site.kill(if leader == left { other } else { left });
    crate::common::health_becomes(site.ports[leader], "", false).await;
}

#[tokio::test]
async fn members_come_and_go() {
    let mut site = Site::grow(3).await;
    site.write("a").await;
    let mut client = ClusterServiceClient::new(crate::common::channel(site.ports[0]).await);
    for n in 1..3 {
        let request = AddNodeRequest { id: n as u64 + 1, addr: site.address(n) };
        client.add_node(request.clone()).await.unwrap();
        // Asked again, it is done.
        client.add_node(request).await.unwrap();
    }
    let roles: Vec<NodeRole> = site.status(0).await.nodes.iter().map(|node| node.role()).collect();
    assert_eq!(roles, [NodeRole::Leader, NodeRole::Follower, NodeRole::Follower]);
    let clash = AddNodeRequest { id: 9, addr: site.address(1) };
    let refused = client.add_node(clash).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));

    // The leader itself goes.
    client.remove_node(RemoveNodeRequest { id: 1 }).await.unwrap();
    let leader = site.leader_among(&[1, 2]).await;
    site.kill(0);
    site.write("b").await;
    let mut client = ClusterServiceClient::new(crate::common::channel(site.ports[leader]).await);
    let refused = client.remove_node(RemoveNodeRequest { id: 1 }).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::UnknownNode));
    // One that is gone for good goes last.
    let other = 3 - leader;
    client.remove_node(RemoveNodeRequest { id: other as u64 + 1 }).await.unwrap();
    site.kill(other);
    assert_eq!(site.hosts().await, names(&["a", "b"]));
    let refused =
        client.remove_node(RemoveNodeRequest { id: leader as u64 + 1 }).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));
}

#[tokio::test]
async fn clusters_do_not_mix() {
    let mut site = Site::grow(2).await;
    // The second was formed by itself before it was told to join.
    site.kill(1);
    std::fs::remove_dir_all(site.folder(1)).unwrap();
    let join = std::mem::take(&mut site.settings[1]);
    site.settings[1] = join.replace("join = true", "join = false");
    site.up(1).await;
    assert_eq!(hosts_at(site.ports[1]).await.unwrap(), names(&[]));
    site.write("a").await;
    let mut client = ClusterServiceClient::new(crate::common::channel(site.ports[0]).await);
    let request = AddNodeRequest { id: 2, addr: site.address(1) };
    let adding = tokio::spawn(async move { client.add_node(request).await });
    let log = site.folder(1).join("log");
    let begin = Instant::now();
    while !std::fs::read_to_string(&log).unwrap().contains("another cluster") {
        assert!(begin.elapsed() < crate::common::LIMIT, "the message is refused");
        sleep(PAUSE).await;
    }
    adding.abort();
    // Neither has lost anything: the one that was not added is only a learner.
    assert_eq!(hosts_at(site.ports[0]).await.unwrap(), names(&["a"]));
    assert_eq!(hosts_at(site.ports[1]).await.unwrap(), names(&[]));
    let mut client = ClusterServiceClient::new(crate::common::channel(site.ports[0]).await);
    client.remove_node(RemoveNodeRequest { id: 2 }).await.unwrap();
}

#[tokio::test]
async fn nobody_is_removed_whom_the_majority_needs() {
    let mut site = Site::start(3, "").await;
    let leader = site.leader().await;
    let (dead, alive) = ((leader + 1) % 3, (leader + 2) % 3);
    site.kill(dead);
    let mut client = ClusterServiceClient::new(crate::common::channel(site.ports[leader]).await);
    let mut remove = async |n: usize| {
        client.remove_node(RemoveNodeRequest { id: n as u64 + 1 }).await.map(|_| ())
    };
    // An answer counts for 3 s.
    sleep(Duration::from_secs(4)).await;
    let refused = remove(leader).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::NoMajority));
    assert!(refused.message().contains(&site.address(dead)), "{refused}");
    let refused = remove(alive).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::NoMajority));
    remove(dead).await.unwrap();
    site.write("a").await;
}
