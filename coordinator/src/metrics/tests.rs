#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use rackferry_fleet::{Figures, HostState, LaneView, LinkFigures, LinkView, Phase, ProblemCode};
use rackferry_metrics::{certificates, refused, testing};

use super::{sample::Shown, *};
use crate::driver::Waiting;

/// What `/metrics` shows after `act`.
fn shown(act: impl FnOnce()) -> String {
    let recorder = builder().unwrap().build_recorder();
    let handle = recorder.handle();
    ::metrics::with_local_recorder(&recorder, act);
    handle.render()
}

fn figures() -> Figures {
    let lane = LaneView { moves: 2, allotted: 900, sent: 800 };
    let view = LinkView {
        name: "core".into(),
        link: None,
        limit: None,
        lanes: [lane, LaneView::default()],
    };
    Figures {
        phases: [(Phase::Copying, 2)].into(),
        hosts: [(HostState::Connected, 3), (HostState::Away, 1)].into(),
        cordoned: 1,
        vms: 12,
        problems: [(ProblemCode::AgentAway, 1)].into(),
        links: vec![LinkFigures { view, limit: Some(1000) }],
    }
}

/// What a coordinator shows when there is something of everything.
fn all() -> String {
    shown(|| {
        describe(&METRICS, VERSION);
        turned(Duration::from_millis(3));
        committed(Duration::from_millis(2));
        migrations_ended((End::Moved, 2));
        let mut shown = Shown::default();
        shown.raft(true, 3, vec![(2, 7)]);
        shown.queues(Waiting { inputs: 4, reads: 5 });
        certificates(6, 7);
        refused([("address", 8)]);
        shown.fleet(&figures());
    })
}

#[test]
fn every_metric_is_in_the_manual_and_no_other() {
    let manual = include_str!("../../../docs/operations.md");
    testing::is_in_the_manual(&METRICS, manual, "Metrics of the coordinator");
}

#[test]
fn every_metric_is_shown_with_its_type() {
    testing::is_shown(&METRICS, &all());
}

#[test]
fn promtool_has_no_objections() {
    testing::promtool_accepts(&all());
}

#[test]
fn a_coordinator_that_leads_no_more_shows_nothing_of_the_fleet() {
    let text = shown(|| {
        let mut shown = Shown::default();
        shown.raft(true, 3, vec![(2, 7)]);
        shown.fleet(&figures());
        shown.raft(false, 4, vec![]);
        shown.fleet(&Figures::default());
        migrations_ended((End::Moved, 2));
    });
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (what, value) = line.rsplit_once(' ').unwrap();
        let expected = match what.split('{').next().unwrap() {
            "rackferry_coordinator_term" => "4",
            // Ends are not taken back.
            "rackferry_coordinator_migrations_ended_total" if what.contains("\"moved\"") => "2",
            _ => "0",
        };
        assert_eq!(value, expected, "{line}");
    }
    assert!(text.contains("link_sent_bytes_per_second{link=\"core\",direction=\"forth\"} 0"));
}
