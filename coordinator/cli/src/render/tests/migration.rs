//! Migrations.

use insta::assert_snapshot;
use rackferry_proto::v1;

use super::{NOW, copying, failed, moved, one, queued, running};
use crate::render::{json, migration};

#[test]
fn migrations() {
    let all = [moved(), copying(), queued(), failed()];
    assert_snapshot!("migrations", migration::list(&all, NOW));
    assert_snapshot!("json_migrations", json::migrations(&all[1..3]));
    assert_eq!(migration::list(&[], NOW), "No migrations.");
    let forecast = v1::Migration {
        predicted_stop_ms: 420,
        stop_limit_ms: 300,
        counters: moved().counters,
        ..copying()
    };
    assert_snapshot!("migration", migration::detail(&forecast, NOW));
    assert_snapshot!("migration_queued", migration::detail(&queued(), NOW));
    assert_snapshot!("migration_failed", migration::detail(&failed(), NOW));
}

#[test]
fn what_is_detached_says_how_to_follow_it() {
    assert_snapshot!("migration_detached", migration::detached(&queued()));
    let follow = |text: String| -> (serde_json::Value, serde_json::Value) {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["result_code"], 0);
        (value["id"].clone(), value["follow"].clone())
    };
    assert_eq!(
        follow(json::detached_migration(&queued())),
        ("mig-ci-88".into(), "rackferry migration show --watch mig-ci-88".into())
    );
    assert_eq!(
        follow(json::detached_evacuation(&running(), &[])),
        ("evac-1".into(), "rackferry status --watch evac-1".into())
    );
}

#[test]
fn there_is_no_eta_without_a_rate_or_at_the_end() {
    let eta = |one: v1::Migration| rackferry_model::view::Migration::from(one).eta_ms;
    assert_eq!(eta(copying()), Some(2560));
    assert_eq!(eta(v1::Migration { send_bytes_per_second: 0, ..copying() }), None);
    assert_eq!(eta(v1::Migration { remaining_bytes: 0, ..copying() }), None);
    assert_eq!(eta(v1::Migration { ended_unix_ms: 1, ..copying() }), None);
}

#[test]
fn single_moves() {
    assert_snapshot!("moved", migration::outcome(&moved()));
    assert_snapshot!("stayed", migration::outcome(&failed()));
    assert_snapshot!("forced", migration::forced(&copying()));
    assert_eq!(migration::forced(&moved()), "mig-web-1 is over: VM web-1 moved");
    let switching = one("web-1", v1::Phase::Switching);
    assert_eq!(
        migration::cancelled(&switching),
        "mig-web-1: VM web-1 is switching and goes on to r2-h1"
    );
}
