//! Problems of the site.

use insta::assert_snapshot;
use rackferry_proto::v1;

use crate::render::{doctor, json};

#[test]
fn what_is_not_as_it_should_be() {
    let problem =
        |code: v1::ProblemCode, host: &str, vm: &str, cause: &str, fix: &str| v1::Problem {
            code: code.into(),
            host: host.to_owned(),
            vm: vm.to_owned(),
            cause: cause.to_owned(),
            fix: fix.to_owned(),
            repairable: code == v1::ProblemCode::Leftover,
        };
    let all = [
        problem(
            v1::ProblemCode::Astray,
            "r2-h1",
            "web-1",
            "it runs here, and r1-h1 owns it",
            "look at both hosts",
        ),
        problem(
            v1::ProblemCode::Leftover,
            "r2-h2",
            "db-3",
            "a copy is left that is loaded and stopped; r1-h1 owns the VM",
            "rackferry doctor --repair",
        ),
        problem(
            v1::ProblemCode::Clock,
            "r1-h2",
            "",
            "its clock and the coordinator's are 7.0 s apart",
            "synchronise both with NTP",
        ),
        problem(
            v1::ProblemCode::Certificate,
            "",
            "",
            "the coordinator's certificate ends in 3 days",
            "make it a new one",
        ),
    ];
    assert_snapshot!("doctor", doctor::problems(&all, &[]));
    assert_snapshot!("doctor_repaired", doctor::problems(&[], &all[1..2]));
    assert_snapshot!("json_doctor", json::problems(&all, &all[1..2]));
    assert_eq!(doctor::problems(&[], &[]), "No problems.");
}
