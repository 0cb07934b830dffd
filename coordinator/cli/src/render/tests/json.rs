//! JSON, whatever it is about.

use insta::assert_snapshot;

use super::{host::hosts, incomplete, moved, running, vm::vms};
use crate::{
    exit::{Code, Failure},
    render::json,
};

#[test]
fn json_answers() {
    assert_snapshot!("json_evacuation", json::evacuation(&running(), &[], Code::StillRunning));
    assert_snapshot!("json_migration", json::migration(&moved(), Code::Done));
    assert_snapshot!("json_vms", json::vms(&vms()));
    assert_snapshot!("json_hosts", json::hosts(&hosts()));
    let refused = rackferry_proto::refuse(rackferry_proto::Reason::DoesNotFit, "does not fit");
    assert_snapshot!("json_failure", json::failure(&Failure::from(refused)));
}

#[test]
fn json_results() {
    let result = |text: String| -> u64 {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["result_code"].as_u64().expect("every answer has a result")
    };
    assert_eq!(result(json::evacuation(&incomplete(), &[], Code::Incomplete)), 4);
    assert_eq!(result(json::evacuations(&[running()])), 0);
    assert_eq!(result(json::failure(&Failure::Declined)), 5);
}

#[test]
fn a_line_is_the_same_value() {
    let mut strange = running();
    strange.migrations[0].reason = "a\nb  \"c\" {\n   d".to_owned();
    let text = json::evacuation(&strange, &[], Code::StillRunning);
    let line = json::line(&text);
    assert!(!line.contains('\n'));
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&line), value(&text));
}
