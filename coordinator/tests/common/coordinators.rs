//! Coordinators of one cluster as processes.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use rackferry_proto::v1::{
    Cluster, GetClusterRequest, ListHostsRequest, Welcome,
    cluster_service_client::ClusterServiceClient, connect_response as down,
    inventory_service_client::InventoryServiceClient,
};
use tempfile::TempDir;
use tokio::time::sleep;
use tonic::Status;

use super::{Agent, Coordinator, LIMIT, channel, free_port};

pub const PAUSE: Duration = Duration::from_millis(100);

/// Coordinators 1 to N on loopback; those that are down are None.
pub struct Site {
    pub dir: TempDir,
    pub ports: Vec<u16>,
    pub settings: Vec<String>,
    pub nodes: Vec<Option<Coordinator>>,
}

impl Site {
    /// All of them from the start.
    pub async fn start(count: usize, more: &str) -> Self {
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let peers: Vec<String> = (0..count).map(|n| peer(n, ports[n])).collect();
        let peers = peers.join(", ");
        let settings =
            (1..=count).map(|id| format!("{more}\n[cluster]\nid = {id}\npeers = [{peers}]"));
        let settings = settings.collect();
        let site = Self::with(ports, settings).await;
        site.settles().await;
        site
    }

    /// The first by itself; the others wait to be added.
    pub async fn grow(count: usize) -> Self {
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let settings = (0..count).map(|n| {
            let peer = peer(n, ports[n]);
            format!("[cluster]\nid = {}\njoin = {}\npeers = [{peer}]", n + 1, n > 0)
        });
        let settings = settings.collect();
        Self::with(ports, settings).await
    }

    pub async fn with(ports: Vec<u16>, settings: Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nodes = ports.iter().map(|_| None).collect();
        let mut site = Self { dir, ports, settings, nodes };
        for n in 0..site.ports.len() {
            site.up(n).await;
        }
        site
    }

    pub fn folder(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("n{}", n + 1))
    }

    pub async fn up(&mut self, n: usize) {
        let folder = self.folder(n);
        std::fs::create_dir_all(&folder).unwrap();
        let node = Coordinator::start_with(&folder, self.ports[n], &self.settings[n]).await;
        self.nodes[n] = Some(node);
    }

    /// kill -9.
    pub fn kill(&mut self, n: usize) {
        self.nodes[n].take().unwrap().kill();
    }

    pub fn address(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.ports[n])
    }

    pub fn living(&self) -> impl Iterator<Item = usize> {
        let up: Vec<usize> = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.is_some())
            .map(|(n, _)| n)
            .collect();
        up.into_iter()
    }

    pub async fn status(&self, n: usize) -> Cluster {
        let mut client = ClusterServiceClient::new(channel(self.ports[n]).await);
        client.get_cluster(GetClusterRequest {}).await.unwrap().into_inner().cluster.unwrap()
    }

    /// The coordinator that leads and serves.
    pub async fn leader(&self) -> usize {
        self.leader_among(&self.living().collect::<Vec<_>>()).await
    }

    pub async fn leader_among(&self, nodes: &[usize]) -> usize {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            for &n in nodes {
                if hosts_at(self.ports[n]).await.is_ok() {
                    return n;
                }
            }
            sleep(PAUSE).await;
        }
        panic!("no coordinator leads");
    }

    /// Makes a record of a host, wherever the leader is; returns the agent and what it was told.
    pub async fn write(&self, host: &str) -> (Agent, Welcome) {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            let leader = self.leader().await;
            let channel = channel(self.ports[leader]).await;
            if let Ok(mut agent) = Agent::over(channel, host, host, vec![]).await
                && let Some(down::Message::Welcome(welcome)) = agent.try_hear().await
            {
                return (agent, welcome);
            }
        }
        panic!("no coordinator takes {host}");
    }

    /// What the leader knows, whichever coordinator that is by then.
    pub async fn hosts(&self) -> BTreeSet<String> {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            let leader = self.leader().await;
            if let Ok(hosts) = hosts_at(self.ports[leader]).await {
                return hosts;
            }
        }
        panic!("no coordinator goes on leading");
    }

    /// Waits until the first elections are over: all see the same leader in the same term, for a while.
    pub async fn settles(&self) {
        let begin = Instant::now();
        let (mut seen, mut times) = (BTreeSet::new(), 0);
        while times < 10 {
            assert!(begin.elapsed() < LIMIT, "{seen:?}");
            let mut now = BTreeSet::new();
            for n in self.living() {
                let Cluster { leader_id, term, .. } = self.status(n).await;
                now.insert((leader_id, term));
            }
            let settled = now.len() == 1 && now.iter().all(|&(leader, _)| leader != 0);
            times = if settled && now == seen { times + 1 } else { 0 };
            seen = now;
            sleep(PAUSE).await;
        }
    }

    /// Waits until a coordinator has applied as much as another.
    pub async fn catches_up(&self, n: usize, with: usize) {
        let begin = Instant::now();
        let goal = self.status(with).await.applied_index;
        while self.status(n).await.applied_index < goal {
            assert!(begin.elapsed() < LIMIT, "{:?}", self.status(n).await);
            sleep(PAUSE).await;
        }
    }
}

pub fn peer(n: usize, port: u16) -> String {
    format!("{{ id = {}, addr = '127.0.0.1:{port}' }}", n + 1)
}

pub async fn hosts_at(port: u16) -> Result<BTreeSet<String>, Status> {
    let mut client = InventoryServiceClient::new(channel(port).await);
    let hosts = client.list_hosts(ListHostsRequest::default()).await?.into_inner().hosts;
    Ok(hosts.into_iter().map(|host| host.name).collect())
}

pub fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
