//! What keeps VMs from moving, for people.

use rackferry_proto::v1::{Finding, Severity, VmCheck};

use super::table;

/// One line for each VM that can move, a paragraph for each that cannot, or will be a surprise.
pub fn vms(vms: &[VmCheck]) -> String {
    if vms.is_empty() {
        return "No VMs.".to_owned();
    }
    let rows = vms.iter().map(|vm| {
        let takes = vm.targets.iter().filter(|target| free(&target.findings)).count();
        let targets = match vm.targets.len() {
            0 => "-".to_owned(),
            all => format!("{takes} of {all}"),
        };
        let word = if vm.can_move { "can move" } else { "cannot move" };
        vec![vm.vm.clone(), vm.host.clone(), word.to_owned(), targets]
    });
    let mut text = table(&["vm", "host", "result", "targets"], &["targets"], rows);
    for vm in vms {
        let here = vm.findings.iter().map(|finding| (&vm.host, finding));
        let there = vm.targets.iter().flat_map(|t| t.findings.iter().map(|f| (&t.host, f)));
        for (host, finding) in here.chain(there) {
            let Finding { cause, fix, .. } = finding;
            let word = if finding.severity() == Severity::Blocks { "" } else { "warning: " };
            text += &format!("\n\n{} on {host}: {word}{cause}\n  fix: {fix}", vm.vm);
        }
    }
    text
}

fn free(findings: &[Finding]) -> bool {
    !findings.iter().any(|finding| finding.severity() == Severity::Blocks)
}
