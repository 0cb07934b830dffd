//! What keeps VMs from moving: asked of their agents and of those of their targets, all at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, stream};
use rackferry_fleet::{Candidate, Connection, HostName, Move, MoveOptions, Plan, VmName};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        CheckReport, CheckSource, CheckTarget, Finding, FindingCode, Severity, TargetCheck, VmCheck,
    },
};
use tonic::Status;

use crate::{convert, driver::Handle, questions::Question};

/// VMs looked at at a time.
const VMS: usize = 16;
/// Targets of each of them at a time.
const TARGETS: usize = 16;
/// Clocks that differ by more make logs of several hosts unreadable.
const CLOCK: Duration = Duration::from_secs(2);
/// VMs named in a refusal.
const NAMED: usize = 20;

/// A VM, and the hosts it could move to.
pub struct Wish {
    /// The VM.
    pub candidate: Candidate,
    /// The hosts, and their agents.
    pub targets: Vec<(HostName, Option<Connection>)>,
    /// It moves in verify mode.
    pub verify: bool,
}

/// Checks every VM against its targets. Cancel safe.
pub async fn all(handle: &Handle, wishes: Vec<Wish>) -> Vec<VmCheck> {
    let checks = wishes.into_iter().map(|wish| one(handle, wish));
    stream::iter(checks).buffered(VMS).collect().await
}

/// Refuses moves that cannot be. Cancel safe.
///
/// # Errors
/// With all that was found.
pub async fn before(
    handle: &Handle,
    moves: Vec<Move>,
    options: &MoveOptions,
) -> Result<(), Status> {
    let checks = blocking(handle, moves, options).await?;
    let blocked: Vec<String> = checks.iter().filter_map(blocked).collect();
    if blocked.is_empty() {
        return Ok(());
    }
    let more = match blocked.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let named = blocked[..blocked.len().min(NAMED)].join("; ");
    Err(refuse(Reason::VmNotMovable, format!("cannot move: {named}{more}")))
}

/// The moves that cannot be, with all that was found. An agent that does not answer blocks its VMs: what it would have
/// found is not known. Cancel safe.
///
/// # Errors
/// If this coordinator leads no more.
pub async fn blocking(
    handle: &Handle,
    moves: Vec<Move>,
    options: &MoveOptions,
) -> Result<Vec<VmCheck>, Status> {
    let verify = options.verify;
    let wishes = move |fleet: &rackferry_fleet::Fleet| {
        let wish = |step: &Move| {
            let candidate = fleet.candidate(&step.vm)?;
            let target = (step.target.clone(), fleet.connection_of(&step.target));
            Some(Wish { candidate, targets: vec![target], verify })
        };
        moves.iter().filter_map(wish).collect::<Vec<_>>()
    };
    let wishes = handle.ask(move |fleet, _| wishes(fleet)).await?;
    let mut checks = all(handle, wishes).await;
    checks.retain(|check| blocked(check).is_some());
    Ok(checks)
}

/// The plan without the moves that cannot be: their VMs stay, each for what was found. Cancel safe.
///
/// # Errors
/// If this coordinator leads no more.
pub async fn sift(handle: &Handle, plan: Plan, options: &MoveOptions) -> Result<Plan, Status> {
    let checks = blocking(handle, plan.moves.clone(), options).await?;
    let stays = |check: &VmCheck| {
        let mut why = against(check)?;
        why.truncate(why.floor_char_boundary(convert::REASON_LIMIT));
        Some((check.vm.as_str().into(), why))
    };
    Ok(plan.without(checks.iter().filter_map(stays)))
}

/// VMs that cannot leave, each with what was found where it is. Cancel safe.
///
/// # Errors
/// If this coordinator leads no more.
pub async fn stuck(handle: &Handle, vms: Vec<VmName>) -> Result<Vec<VmCheck>, Status> {
    let wishes = move |fleet: &rackferry_fleet::Fleet| {
        let all = vms.iter().filter_map(|vm| fleet.candidate(vm));
        all.map(|candidate| Wish { candidate, targets: Vec::new(), verify: false })
            .collect::<Vec<_>>()
    };
    let wishes = handle.ask(move |fleet, _| wishes(fleet)).await?;
    Ok(all(handle, wishes).await)
}

/// A VM that cannot move, and why.
fn blocked(check: &VmCheck) -> Option<String> {
    against(check).map(|why| format!("{} ({why})", check.vm))
}

/// What speaks against one VM's move, as one text.
fn against(check: &VmCheck) -> Option<String> {
    let here = check.findings.iter().map(|finding| (&check.host, finding));
    let there = check.targets.iter().flat_map(|t| t.findings.iter().map(|f| (&t.host, f)));
    let against = here.chain(there).filter(|(_, finding)| finding.severity() == Severity::Blocks);
    let texts: Vec<String> =
        against.map(|(host, f)| format!("on {host}: {}: {}", f.cause, f.fix)).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

async fn one(handle: &Handle, wish: Wish) -> VmCheck {
    let Wish { candidate, targets, verify } = wish;
    let mut findings = Vec::new();
    let question = Question::Source(CheckSource { check: 0, vm: candidate.vm.to_string() });
    let report = ask(handle, candidate.connection, question).await;
    match &report {
        Ok(report) => {
            findings.extend(report.findings.iter().cloned());
            findings.extend(clock(report));
        }
        Err(silent) => findings.push(silent.clone()),
    }
    if verify {
        findings.iter_mut().for_each(verified);
    }
    // The agent says the same in its own words.
    if let Some(why) = &candidate.obstacle
        && !findings.iter().any(|finding| finding.severity() == Severity::Blocks)
    {
        let fix = "wait until it runs and does not move, then ask again".to_owned();
        findings.push(finding(Severity::Blocks, FindingCode::VmState, why.clone(), fix));
    }
    let report = report.unwrap_or_default();
    let others = targets.into_iter().filter(|(host, _)| *host != candidate.host);
    let checks = others.map(|(host, connection)| {
        let question = Question::Target(CheckTarget {
            check: 0,
            vm: candidate.vm.to_string(),
            spec_toml: candidate.spec_toml.clone(),
            machine_type: candidate.machine_type.clone(),
            qemu_version: candidate.qemu_version.clone(),
            cpu_features: report.cpu_features.clone(),
            cpu_properties: report.cpu_properties.clone(),
        });
        target(handle, host, connection, question, report.page_protocol_version)
    });
    let targets: Vec<TargetCheck> = stream::iter(checks).buffered(TARGETS).collect().await;
    let free = |findings: &[Finding]| !findings.iter().any(|f| f.severity() == Severity::Blocks);
    let can_move =
        free(&findings) && (targets.is_empty() || targets.iter().any(|t| free(&t.findings)));
    VmCheck {
        vm: candidate.vm.to_string(),
        host: candidate.host.to_string(),
        findings,
        targets,
        can_move,
    }
}

/// What verify mode finds out by itself, and takes the move back for, blocks none.
fn verified(finding: &mut Finding) {
    if finding.code() == FindingCode::DirtyTracking {
        finding.set_severity(Severity::Warns);
    }
}

async fn target(
    handle: &Handle,
    host: HostName,
    connection: Option<Connection>,
    question: Question,
    protocol: u32,
) -> TargetCheck {
    let findings = match ask(handle, connection, question).await {
        Ok(report) => {
            let theirs = report.page_protocol_version;
            let differs = (protocol != 0 && theirs != protocol).then(|| {
                let cause = format!(
                    "its agent speaks version {theirs} of the page protocol, the VM's {protocol}"
                );
                let fix = "update the older agent".to_owned();
                finding(Severity::Blocks, FindingCode::Protocol, cause, fix)
            });
            let clock = clock(&report);
            report.findings.into_iter().chain(differs).chain(clock).collect()
        }
        Err(silent) => vec![silent],
    };
    TargetCheck { host: host.to_string(), findings }
}

async fn ask(
    handle: &Handle,
    whom: Option<Connection>,
    question: Question,
) -> Result<CheckReport, Finding> {
    let silent = |cause: &str| {
        let fix = "start the agent, or look into its log".to_owned();
        finding(Severity::Blocks, FindingCode::Silent, cause.to_owned(), fix)
    };
    let connection = whom.ok_or_else(|| silent("its agent is not connected"))?;
    handle.check(connection, question).await.ok_or_else(|| silent("its agent does not answer"))
}

/// A finding about an agent's clock, if that is far from the coordinator's.
pub fn clock(report: &CheckReport) -> Option<Finding> {
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let apart = here.abs_diff(Duration::from_millis(report.clock_unix_ms));
    (apart > CLOCK).then(|| {
        let cause =
            format!("its clock and the coordinator's are {:.1} s apart", apart.as_secs_f64());
        let fix = "synchronise both with NTP".to_owned();
        finding(Severity::Warns, FindingCode::Clock, cause, fix)
    })
}

fn finding(severity: Severity, code: FindingCode, cause: String, fix: String) -> Finding {
    Finding { severity: severity.into(), code: code.into(), cause, fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(severity: Severity, code: FindingCode) -> Finding {
        finding(severity, code, "the disk is away".into(), "bring it".into())
    }

    fn check(findings: Vec<Finding>) -> VmCheck {
        let target = TargetCheck { host: "b-1".into(), findings };
        VmCheck {
            vm: "web".into(),
            host: "a-1".into(),
            targets: vec![target],
            ..VmCheck::default()
        }
    }

    #[test]
    fn what_blocks_is_told_with_its_place_and_its_cure() {
        let all = check(vec![found(Severity::Blocks, FindingCode::File)]);
        assert_eq!(blocked(&all).unwrap(), "web (on b-1: the disk is away: bring it)");
    }

    #[test]
    fn silence_refuses_a_move_and_a_warning_does_not() {
        let warned = found(Severity::Warns, FindingCode::QemuOlder);
        assert_eq!(blocked(&check(vec![warned])), None);
        let silent = found(Severity::Blocks, FindingCode::Silent);
        assert!(blocked(&check(vec![silent])).is_some());
    }

    #[test]
    fn a_qemu_that_loses_writes_moves_its_vm_in_verify_mode_only() {
        let mut loses = found(Severity::Blocks, FindingCode::DirtyTracking);
        assert!(blocked(&check(vec![loses.clone()])).is_some());
        verified(&mut loses);
        assert_eq!(blocked(&check(vec![loses])), None);
        let mut away = found(Severity::Blocks, FindingCode::File);
        verified(&mut away);
        assert!(blocked(&check(vec![away])).is_some());
    }

    #[test]
    fn clocks_may_differ_a_little() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let report = |clock_unix_ms| CheckReport { clock_unix_ms, ..CheckReport::default() };
        assert_eq!(clock(&report(now - 100)), None);
        assert_eq!(clock(&report(now - 60_000)).unwrap().severity(), Severity::Warns);
        assert!(clock(&report(0)).is_some());
    }
}
