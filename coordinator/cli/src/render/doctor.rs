//! What is not as it should be, for people.

use rackferry_proto::v1::Problem;

use super::word;
use crate::exit::needs_operator;

/// What was removed, then a paragraph for each problem, then how many there are.
pub fn problems(problems: &[Problem], repaired: &[Problem]) -> String {
    let mut text = String::new();
    for one in repaired {
        text += &format!("removed: {}\n", place(one));
    }
    if problems.is_empty() {
        return text + "No problems.";
    }
    text += &list(problems);
    let repairable = problems.iter().filter(|one| one.repairable).count();
    text += &format!("\n{} problems", problems.len());
    if repairable > 0 {
        text += &format!("; --repair removes {repairable} of them");
    }
    text
}

/// A paragraph for each problem.
pub fn list(problems: &[Problem]) -> String {
    let mut text = String::new();
    for one in problems {
        let urgent = if needs_operator(one) { "OPERATOR NEEDED: " } else { "" };
        let Problem { cause, fix, .. } = one;
        let code = word::problem(one.code());
        text += &format!("{urgent}{code}: {}: {cause}\n  fix: {fix}\n", place(one));
    }
    text
}

fn place(one: &Problem) -> String {
    match (one.vm.as_str(), one.host.as_str()) {
        ("", "") => "coordinator".to_owned(),
        ("", host) => host.to_owned(),
        (vm, host) => format!("{vm} on {host}"),
    }
}
