//! Plans.

use insta::assert_snapshot;
use rackferry_proto::v1;

use super::{check::checks, one, running};
use crate::{
    exit::Code,
    render::{json, plan},
};

pub(super) fn way_back() -> (v1::Evacuation, Vec<v1::StayingVm>) {
    let plan = v1::Evacuation {
        restores: "evac-1".to_owned(),
        sources: vec!["r2-h1".to_owned()],
        targets: vec!["r1-h1".to_owned()],
        migrations: vec![one("web-1", v1::Phase::Queued)],
        ..v1::Evacuation::default()
    };
    let stays = |vm: &str, host: &str, reason: &str| v1::StayingVm {
        vm: vm.to_owned(),
        host: host.to_owned(),
        reason: reason.to_owned(),
    };
    let staying = vec![
        stays("db-3", "r2-h1", "the agent of r1-h2 is not connected"),
        stays("ci-88", "", "it is gone"),
    ];
    (plan, staying)
}

#[test]
fn plans() {
    assert_snapshot!("plan", plan::screen(&running(), &[], &[]));
    let gpu = one("gpu-1", v1::Phase::Queued);
    let with_gpu =
        v1::Evacuation { migrations: vec![gpu, one("web-1", v1::Phase::Queued)], ..running() };
    let checks = checks();
    let blocked = &checks[1..];
    assert_snapshot!("plan_blocked", plan::screen(&with_gpu, blocked, &[]));
    let nothing = v1::Evacuation { migrations: vec![], ..running() };
    assert!(plan::screen(&nothing, blocked, &[]).starts_with("Plan: evacuate r1 -> r2, r3  NOT"));
    let (way, staying) = way_back();
    let left_out = v1::Evacuation { left_out: staying.clone(), ..running() };
    assert_snapshot!("plan_left_out", plan::screen(&left_out, &[], &[]));
    assert_snapshot!("plan_restore", plan::screen(&way, &[], &staying));
    assert_snapshot!("staying", plan::staying(&staying));
    let file = Some("plan-7f3a.json");
    assert_snapshot!("json_plan", json::plan(&running(), &[], file, Code::Done));
    assert_snapshot!("json_plan_blocked", json::plan(&with_gpu, blocked, None, Code::NotFeasible));
    assert_snapshot!("json_restore", json::evacuation(&way, &staying, Code::Done));
}
