//! What this coordinator answers to health checks: whether a request that comes here finds the leader.

use rackferry_proto::v1::{
    agent_service_server::SERVICE_NAME as AGENT, check_service_server::SERVICE_NAME as CHECK,
    cluster_service_server::SERVICE_NAME as CLUSTER,
    enrolment_service_server::SERVICE_NAME as ENROLMENT,
    evacuation_service_server::SERVICE_NAME as EVACUATION,
    event_service_server::SERVICE_NAME as EVENT,
    inventory_service_server::SERVICE_NAME as INVENTORY, join_service_server::SERVICE_NAME as JOIN,
    migration_service_server::SERVICE_NAME as MIGRATION, raft_service_server::SERVICE_NAME as RAFT,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    gate::{leader_elsewhere, leads},
    raft::{Metrics, Raft},
};

/// Services that the leader alone answers; the others name it. The empty name stands for the whole coordinator.
const OF_THE_LEADER: [&str; 9] =
    ["", AGENT, CHECK, ENROLMENT, EVACUATION, EVENT, INVENTORY, JOIN, MIGRATION];
/// Services that every coordinator answers, also without a leader.
const OF_ALL: [&str; 2] = [CLUSTER, RAFT];

/// Keeps the answers to health checks true.
pub struct Health {
    metrics: watch::Receiver<Metrics>,
    reporter: HealthReporter,
    said: ServingStatus,
}

impl Health {
    /// Says what is so now.
    pub async fn of(raft: &Raft, reporter: HealthReporter) -> Self {
        for service in OF_ALL {
            reporter.set_service_status(service, ServingStatus::Serving).await;
        }
        let metrics = raft.metrics();
        let said = status(&metrics.borrow());
        let mut health = Self { metrics, reporter, said };
        health.say(said).await;
        health
    }

    async fn say(&mut self, status: ServingStatus) {
        self.said = status;
        for service in OF_THE_LEADER {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Says it whenever it changes, until the shutdown.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        loop {
            let changed = tokio::select! {
                changed = self.metrics.changed() => changed.is_ok(),
                () = shutdown.cancelled() => false,
            };
            if !changed {
                return self.say(ServingStatus::NotServing).await;
            }
            let now = status(&self.metrics.borrow_and_update());
            if now != self.said {
                self.say(now).await;
            }
        }
    }
}

/// A coordinator serves if it leads, or knows the leader.
fn status(metrics: &Metrics) -> ServingStatus {
    if leads(metrics) || leader_elsewhere(metrics).is_some() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}
