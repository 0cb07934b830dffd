//! Evacuations, and what becomes of them.

use insta::assert_snapshot;
use rackferry_proto::v1;

use super::{NOW, copying, host::hosts, incomplete, moved, one, plan::way_back, running};
use crate::render::{evacuation, follow, json, site};

#[test]
fn evacuations() {
    assert_snapshot!("detail", evacuation::detail(&running(), NOW));
    assert_snapshot!("outcome", evacuation::outcome(&incomplete()));
    let left_out = v1::Evacuation { left_out: way_back().1, ..incomplete() };
    assert_snapshot!("outcome_left_out", evacuation::outcome(&left_out));
    let text = evacuation::detail(&left_out, NOW);
    let line =
        "Left out, 2 VMs:\n    db-3 on r2-h1: the agent of r1-h2 is not connected\n    ci-88:";
    assert!(text.contains(line), "{text}");
    let mut remaining = v1::Evacuation { remaining: way_back().1[..1].into(), ..left_out };
    remaining.silent_hosts = vec!["r1-h2".to_owned()];
    assert_snapshot!("outcome_remaining", evacuation::outcome(&remaining));
    let cancelled =
        v1::Evacuation { state: v1::EvacuationState::Cancelled.into(), ..remaining.clone() };
    assert!(!evacuation::outcome(&cancelled).contains("cordon"));
    let open = v1::Evacuation { no_cordon: true, ..remaining };
    assert!(!evacuation::outcome(&open).contains("cordon"));
    assert_snapshot!("list", evacuation::list(&[incomplete(), running()]));
    assert_snapshot!("cancelled", evacuation::cancelled(&running()));
    assert_snapshot!("detached", follow::goes_on("evac-1"));
    let late = v1::Evacuation { overdue: true, ..running() };
    assert_snapshot!("overdue", evacuation::overdue(&late));
    assert_snapshot!("late", evacuation::list(&[late]));
    assert_eq!(evacuation::list(&[]), "No evacuations.");
}

#[test]
fn what_goes_on_has_no_result() {
    let value = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let of_it = value(json::evacuation_snapshot(&running(), &[]));
    assert!(of_it["id"] == "evac-1" && of_it.get("result_code").is_none(), "{of_it}");
    let of_it = value(json::migration_snapshot(&copying()));
    assert!(of_it["id"] == "mig-db-3" && of_it.get("result_code").is_none(), "{of_it}");
    let listed = value(json::evacuations(&[incomplete(), running()]));
    assert_eq!(listed["evacuations"][0]["result_code"], 4);
    assert!(listed["evacuations"][1].get("result_code").is_none(), "{listed}");
}

#[test]
fn an_operator_is_called() {
    let stuck = v1::Migration {
        wait_reason: Some(v1::WaitReason {
            code: v1::WaitCode::SourceDisconnected.into(),
            detail: "r1-h1".to_owned(),
            ..v1::WaitReason::default()
        }),
        ..one("db-3", v1::Phase::OwnerUnknown)
    };
    let left = v1::Evacuation { migrations: vec![moved(), stuck], ..running() };
    assert_snapshot!("stuck", evacuation::stuck(&left));
    let mut evacuation = running();
    evacuation.totals.as_mut().unwrap().uncertain = 1;
    assert!(evacuation::summary(&evacuation).contains("OPERATOR NEEDED 1"));
}

#[test]
fn held_back() {
    let paused = v1::Evacuation { state: v1::EvacuationState::Paused.into(), ..running() };
    assert_snapshot!("paused", evacuation::held(&paused));
    assert_snapshot!("resumed", evacuation::held(&running()));
    assert_eq!(site::cordoned(&hosts()[..2], true), "cordoned: r1-h1, r1-h2");
    assert_eq!(site::cordoned(&hosts()[..1], false), "open: r1-h1");
}

#[test]
fn every_reason_to_wait_has_words() {
    for number in 1..=14 {
        let code = v1::WaitCode::try_from(number).expect("these are all");
        let reason =
            v1::WaitReason { code: code.into(), detail: "h1".to_owned(), limit: 4, used: 4 };
        let words = evacuation::wait(&reason);
        // It is about no single host.
        let everywhere = code == v1::WaitCode::FleetBusy;
        assert!(everywhere || words.contains("h1"), "{code:?}");
        assert!(words.len() > 10, "{code:?}: {words}");
    }
    assert!(v1::WaitCode::try_from(15).is_err(), "a new one needs words");
}
