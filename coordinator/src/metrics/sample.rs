//! Figures that are looked at now and then.

use std::{collections::BTreeSet, time::Duration};

use metrics::gauge;
use rackferry_fleet::{Figures, HostState, LinkFigures, Phase, ProblemCode};
use rackferry_metrics::{certificates, refused};
use rackferry_model::Word;
use rackferry_tls::{Admission, Tls};

use super::{
    CORDONED, ENDED, HOSTS, LEADS, LINK_LIMIT, LINK_MIGRATIONS, LINK_RESERVED, LINK_SENT, LOG_LAG,
    MIGRATIONS, PROBLEMS, QUEUE_DEPTH, TERM, VERSION, VMS,
};
use crate::{
    driver::{Handle, Waiting},
    gate::leads,
    raft::{Metrics, NodeId, Raft},
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// Looks at everything now and then until the program ends.
pub async fn sample(handle: Handle, raft: Raft, tls: Option<Tls>, admission: Admission) {
    let mut shown = Shown::default();
    loop {
        let seen = raft.metrics().borrow().clone();
        shown.log(&seen);
        shown.queues(handle.waiting());
        if let Some(tls) = &tls {
            certificates(tls.expires(), tls.ca_expires());
        }
        refused(admission.refusals().map(|(why, count)| (why.as_str(), count)));
        let figures = match leads(&seen) {
            true => handle.ask(|fleet, _| fleet.figures(VERSION)).await.unwrap_or_default(),
            false => Figures::default(),
        };
        shown.fleet(&figures);
        tokio::time::sleep(EVERY).await;
    }
}

/// Labels that were shown before: what is gone is 0 from then on, not what it was last.
#[derive(Debug, Default)]
pub(super) struct Shown {
    followers: BTreeSet<NodeId>,
    links: BTreeSet<String>,
}

impl Shown {
    fn log(&mut self, seen: &Metrics) {
        let leads = leads(seen);
        let last = seen.last_log_index.unwrap_or_default();
        let others = seen.replication.iter().flatten().filter(|(id, _)| leads && **id != seen.id);
        let behind = others.map(|(&id, at)| (id, last.saturating_sub(at.map_or(0, |at| at.index))));
        self.raft(leads, seen.current_term, behind.collect());
    }

    pub(super) fn raft(&mut self, leads: bool, term: u64, behind: Vec<(NodeId, u64)>) {
        gauge!(LEADS).set(f64::from(u8::from(leads)));
        gauge!(TERM).set(term as f64);
        self.lag(behind);
    }

    fn lag(&mut self, behind: Vec<(NodeId, u64)>) {
        let gone = self.followers.iter().filter(|&id| behind.iter().all(|(other, _)| other != id));
        let gone = gone.map(|&id| (id, 0)).collect::<Vec<_>>();
        for (id, entries) in behind.into_iter().chain(gone) {
            self.followers.insert(id);
            gauge!(LOG_LAG, "node" => id.to_string()).set(entries as f64);
        }
    }

    pub(super) fn queues(&self, waiting: Waiting) {
        gauge!(QUEUE_DEPTH, "queue" => "inputs").set(waiting.inputs as f64);
        gauge!(QUEUE_DEPTH, "queue" => "reads").set(waiting.reads as f64);
    }

    pub(super) fn fleet(&mut self, figures: &Figures) {
        for &phase in Phase::ALL.iter().filter(|phase| !phase.is_over()) {
            let count = figures.phases.get(&phase).copied().unwrap_or_default();
            gauge!(MIGRATIONS, "phase" => phase.as_str()).set(count);
        }
        for &end in rackferry_fleet::End::ALL {
            // It is there from the start: a rate needs a value from before the first end.
            ::metrics::counter!(ENDED, "outcome" => end.as_str()).increment(0);
        }
        for (state, word) in [
            (HostState::Connected, "connected"),
            (HostState::Away, "away"),
            (HostState::Dead, "dead"),
        ] {
            let count = figures.hosts.get(&state).copied().unwrap_or_default();
            gauge!(HOSTS, "state" => word).set(count);
        }
        gauge!(CORDONED).set(figures.cordoned);
        gauge!(VMS).set(figures.vms);
        for &code in ProblemCode::ALL {
            let count = figures.problems.get(&code).copied().unwrap_or_default();
            gauge!(PROBLEMS, "code" => code.as_str()).set(count);
        }
        self.show_links(&figures.links);
    }

    fn show_links(&mut self, links: &[LinkFigures]) {
        let mut gone = std::mem::take(&mut self.links);
        for LinkFigures { view, limit } in links {
            let link = view.name.to_string();
            gone.remove(&link);
            gauge!(LINK_LIMIT, "link" => link.clone()).set(limit.unwrap_or_default() as f64);
            for (direction, lane) in ["forth", "back"].into_iter().zip(view.lanes) {
                let labels = [("link", link.clone()), ("direction", direction.to_owned())];
                gauge!(LINK_MIGRATIONS, &labels).set(lane.moves);
                gauge!(LINK_RESERVED, &labels).set(lane.allotted as f64);
                gauge!(LINK_SENT, &labels).set(lane.sent as f64);
            }
            self.links.insert(link);
        }
        for link in gone {
            gauge!(LINK_LIMIT, "link" => link.clone()).set(0.0);
            for direction in ["forth", "back"] {
                let labels = [("link", link.clone()), ("direction", direction.to_owned())];
                for metric in [LINK_MIGRATIONS, LINK_RESERVED, LINK_SENT] {
                    gauge!(metric, &labels).set(0.0);
                }
            }
            self.links.insert(link);
        }
    }
}
