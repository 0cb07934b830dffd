//! What agents say.

use rackferry_fleet::{
    Activity, Generation, Hello, MigrationId, Phase, Progress, RunState, Said, SessionEnd, VmReport,
};
use rackferry_model::name::is_received_name;
use rackferry_proto::{
    door::{Invalid, word},
    v1::{self, connect_request::Message},
};

/// The most findings about a VM.
const FINDINGS_LIMIT: usize = 64;
/// True properties of a CPU; QEMU 10.0 has 500, true or not.
const CPU_PROPERTIES_LIMIT: usize = 1024;
/// The longest text of a finding.
const TEXT_LIMIT: usize = 1000;
/// The most VMs a host may list.
const VMS_LIMIT: usize = 10_000;
/// Longest spec; agents take no longer ones either.
const SPEC_BYTES_MAX: usize = 64 << 10;

/// An agent's introduction.
///
/// # Errors
/// If something is missing or malformed.
pub fn hello(message: v1::Hello) -> Result<Hello, Invalid> {
    Ok(Hello {
        host: name(message.host, "host")?.as_str().into(),
        rack: name(message.rack, "rack")?.as_str().into(),
        page_addr: name(message.page_addr, "page_addr")?,
        memory_bytes: message.memory_bytes,
        agent_version: message.agent_version,
        boot: name(message.boot_id, "boot_id")?.as_str().into(),
        installation: match message.installation_id.as_str() {
            "" => None,
            _ => Some(name(message.installation_id, "installation_id")?.as_str().into()),
        },
        vms: vms(message.vms)?,
    })
}

/// What an agent found out about a VM: as much of it as people can read.
pub fn check_report(mut report: v1::CheckReport) -> v1::CheckReport {
    report.findings.truncate(FINDINGS_LIMIT);
    report.cpu_properties = cpu_properties(std::mem::take(&mut report.cpu_properties));
    for finding in &mut report.findings {
        for text in [&mut finding.cause, &mut finding.fix] {
            *text = text.chars().filter(|c| !c.is_control()).take(TEXT_LIMIT).collect();
        }
    }
    report
}

/// What an agent says to the fleet after that.
///
/// # Errors
/// If something is missing or malformed.
pub fn said(message: Message) -> Result<Said, Invalid> {
    Ok(match message {
        Message::Hello(_) => return Err(Invalid("message: a second hello")),
        Message::CheckReport(_) => return Err(Invalid("message: not for the fleet")),
        Message::HostReport(report) => {
            Said::Report { memory_free_bytes: report.memory_free_bytes, vms: vms(report.vms)? }
        }
        Message::TargetReady(ready) => Said::TargetReady(migration(&ready.migration_id)?),
        Message::Progress(said) => Said::Progress(migration(&said.migration_id)?, progress(&said)),
        Message::CommitRequest(request) => {
            Said::CommitRequest(migration(&request.migration_id)?, Generation(request.generation))
        }
        Message::SourceStopped(stopped) => Said::SourceStopped(migration(&stopped.migration_id)?),
        Message::TargetRunning(running) => Said::TargetRunning(migration(&running.migration_id)?),
        Message::Ended(ended) => Said::Ended(migration(&ended.migration_id)?, session_end(ended)?),
        Message::TargetDiscarded(gone) => Said::TargetDiscarded(migration(&gone.migration_id)?),
        Message::SwitchoverRequest(request) => {
            Said::SwitchoverRequest(migration(&request.migration_id)?)
        }
    })
}

fn name(text: String, field: &'static str) -> Result<String, Invalid> {
    if is_received_name(&text) { Ok(text) } else { Err(Invalid(field)) }
}

fn migration(text: &str) -> Result<MigrationId, Invalid> {
    text.parse().map_err(|_| Invalid("migration_id"))
}

fn vms(states: Vec<v1::VmState>) -> Result<Vec<VmReport>, Invalid> {
    if states.len() > VMS_LIMIT {
        return Err(Invalid("vms"));
    }
    states.into_iter().map(vm).collect()
}

fn vm(state: v1::VmState) -> Result<VmReport, Invalid> {
    // Unspecified, or a state of a later version: there may be a process, and this version cannot tell what it does.
    let run_state = word(state.run_state).unwrap_or(RunState::Unknown);
    let migration = match state.migration_id.as_str() {
        "" => None,
        id => Some(migration(id)?),
    };
    if state.spec_toml.len() > SPEC_BYTES_MAX {
        return Err(Invalid("spec_toml"));
    }
    Ok(VmReport {
        name: name(state.name, "vm name")?.as_str().into(),
        memory_bytes: state.memory_bytes,
        run_state,
        migration,
        qemu_version: state.qemu_version,
        machine_type: state.machine_type,
        spec_toml: state.spec_toml,
        may_have_run: state.may_have_run,
        destroyed: state.destroyed,
        powered_off: state.powered_off,
        cpu_properties: cpu_properties(state.cpu_properties),
    })
}

/// Names of a CPU's properties; none if they cannot be such names.
pub fn cpu_properties(names: Vec<String>) -> Vec<String> {
    if names.len() <= CPU_PROPERTIES_LIMIT && names.iter().all(|name| is_received_name(name)) {
        names
    } else {
        Vec::new()
    }
}

fn progress(said: &v1::MigrationProgress) -> Progress {
    let activity = match word(said.phase) {
        Some(Phase::Switching | Phase::Announcing) => Activity::Switching,
        Some(Phase::Verifying) => Activity::Verifying,
        _ => Activity::Copying,
    };
    Progress {
        activity,
        // Neither NaN nor beyond the whole.
        pass1_ratio: if said.pass1_ratio >= 0.0 { said.pass1_ratio.min(1.0) } else { 0.0 },
        round: said.round,
        remaining_bytes: said.remaining_bytes,
        dirty_bytes_per_second: said.dirty_bytes_per_second,
        send_bytes_per_second: said.send_bytes_per_second,
        counters: said.counters.unwrap_or_default().into(),
        predicted_stop_ms: said.predicted_stop_ms,
        stop_limit_ms: said.stop_limit_ms,
    }
}

fn session_end(ended: v1::MigrationEnded) -> Result<SessionEnd, Invalid> {
    let outcome = word(ended.outcome).ok_or(Invalid("outcome"))?;
    Ok(SessionEnd {
        outcome,
        reason: ended.reason,
        counters: ended.counters.unwrap_or_default().into(),
        qemu_downtime_ms: ended.qemu_downtime_ms,
        blackout_ms: ended.blackout_ms,
        memory_digest: ended.memory_digest,
        not_converged: ended.not_converged,
        powered_off: ended.powered_off,
    })
}

#[cfg(test)]
mod tests {
    use rackferry_model::name::RECEIVED_NAME_LIMIT;

    use super::*;

    fn state() -> v1::VmState {
        v1::VmState {
            name: "web".to_owned(),
            run_state: v1::RunState::Running.into(),
            ..v1::VmState::default()
        }
    }

    #[test]
    fn properties_of_a_cpu_are_names_of_bounded_number() {
        let names = |n: usize| (0..n).map(|n| format!("f{n}")).collect::<Vec<_>>();
        assert_eq!(cpu_properties(names(CPU_PROPERTIES_LIMIT)).len(), CPU_PROPERTIES_LIMIT);
        assert!(cpu_properties(names(CPU_PROPERTIES_LIMIT + 1)).is_empty());
        assert!(cpu_properties(vec!["x".repeat(RECEIVED_NAME_LIMIT + 1)]).is_empty());
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "a\nb", &"x".repeat(RECEIVED_NAME_LIMIT + 1)] {
            let state = v1::VmState { name: bad.to_owned(), ..state() };
            assert_eq!(vm(state), Err(Invalid("vm name")), "{bad:?}");
        }
        assert!(vm(state()).is_ok());
    }

    #[test]
    fn unknown_values_of_enums_are_unknown_or_refused() {
        let state = v1::VmState { run_state: 99, ..state() };
        assert_eq!(vm(state).map(|vm| vm.run_state), Ok(RunState::Unknown));
        let ended = v1::MigrationEnded {
            migration_id: "mig-1".to_owned(),
            outcome: 99,
            ..v1::MigrationEnded::default()
        };
        assert_eq!(said(Message::Ended(ended)), Err(Invalid("outcome")));
    }

    #[test]
    fn a_ratio_is_a_ratio() {
        for (said, taken) in [(f64::NAN, 0.0), (-1.0, 0.0), (0.5, 0.5), (f64::INFINITY, 1.0)] {
            let message = v1::MigrationProgress { pass1_ratio: said, ..Default::default() };
            assert_eq!(progress(&message).pass1_ratio, taken);
        }
    }

    #[test]
    fn too_many_vms_are_refused() {
        assert_eq!(vms(vec![state(); VMS_LIMIT + 1]), Err(Invalid("vms")));
    }

    #[test]
    fn a_spec_is_no_longer_than_an_agent_takes() {
        let with = |bytes| vec![v1::VmState { spec_toml: "#".repeat(bytes), ..state() }];
        assert!(vms(with(SPEC_BYTES_MAX)).is_ok());
        assert_eq!(vms(with(SPEC_BYTES_MAX + 1)), Err(Invalid("spec_toml")));
    }

    #[test]
    fn a_second_hello_is_refused() {
        assert!(said(Message::Hello(v1::Hello::default())).is_err());
    }
}
