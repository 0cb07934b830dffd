//! What clients ask for, and why they are refused.

use std::collections::BTreeSet;

use rackferry_fleet::{
    EvacuationId, EvacuationRequest, LinkLimit, LinkName, MigrationRequest, Move, MoveOptions,
    Plan, Refusal, RestoreRequest, StayingVm, VmName,
};
use rackferry_model::name::RECEIVED_NAME_LIMIT;
use rackferry_proto::{Reason, door::Invalid, refuse, v1};
use tonic::Status;

/// The most racks or hosts in a request.
const PLACES_LIMIT: usize = 1000;
/// The most moves in a plan: as many as fit into a message.
const MOVES_LIMIT: usize = 20_000;
/// The longest reason for which a VM stays, bytes.
pub const REASON_LIMIT: usize = 1000;

/// Checks a request for an evacuation, and what was planned for it, if anything.
///
/// # Errors
/// If something is missing or malformed.
pub fn evacuation_request(
    message: v1::CreateEvacuationRequest,
) -> Result<(EvacuationRequest, Plan), Invalid> {
    let request = EvacuationRequest {
        request: text(message.request_id, "request_id", 0)?,
        sources: places(message.sources, "sources")?,
        targets: places(message.targets, "targets")?,
        options: options(message.options)?,
        link_limits: link_limits(message.link_limits)?
            .into_iter()
            .filter_map(|(link, limit)| limit.map(|limit| (link, limit)))
            .collect(),
        deadline_ns: match message.deadline_ms {
            0 => None,
            ms => Some(ms.saturating_mul(1_000_000)),
        },
        exclude: vm_names(message.exclude)?,
        skip_blocked: message.skip_blocked,
        no_cordon: message.no_cordon,
    };
    let moves = planned_moves(message.moves)?;
    Ok((request, Plan { moves, left_out: left_out(message.left_out)? }))
}

fn vm_names(names: Vec<String>) -> Result<BTreeSet<VmName>, Invalid> {
    if names.len() > MOVES_LIMIT {
        return Err(Invalid("exclude"));
    }
    names.into_iter().map(|name| Ok(text(name, "exclude", 1)?.as_str().into())).collect()
}

fn left_out(vms: Vec<v1::StayingVm>) -> Result<Vec<StayingVm>, Invalid> {
    if vms.len() > MOVES_LIMIT {
        return Err(Invalid("left_out"));
    }
    let staying = |one: v1::StayingVm| {
        if one.reason.len() > REASON_LIMIT {
            return Err(Invalid("left_out.reason"));
        }
        let host = text(one.host, "left_out.host", 0)?;
        Ok(StayingVm {
            vm: text(one.vm, "left_out.vm", 1)?.as_str().into(),
            host: (!host.is_empty()).then(|| host.as_str().into()),
            why: one.reason,
        })
    };
    vms.into_iter().map(staying).collect()
}

/// Checks the moves of a plan; none if the coordinator shall plan.
///
/// # Errors
/// If a name or a size is missing, a VM is named twice, or there are too many.
pub fn planned_moves(moves: Vec<v1::PlannedMove>) -> Result<Vec<Move>, Invalid> {
    if moves.len() > MOVES_LIMIT {
        return Err(Invalid("moves"));
    }
    let move_of = |step: v1::PlannedMove| {
        let v1::PlannedMove { vm, source_host, target_host, memory_bytes } = step;
        if memory_bytes == 0 {
            return Err(Invalid("moves.memory_bytes"));
        }
        Ok(Move {
            vm: text(vm, "moves.vm", 1)?.as_str().into(),
            memory_bytes,
            source: text(source_host, "moves.source_host", 1)?.as_str().into(),
            target: text(target_host, "moves.target_host", 1)?.as_str().into(),
        })
    };
    let moves = moves.into_iter().map(move_of).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<_> = moves.iter().map(|step| &step.vm).collect();
    if names.len() == moves.len() { Ok(moves) } else { Err(Invalid("moves.vm")) }
}

/// Checks a request to bring VMs back, but for its id.
///
/// # Errors
/// If something is malformed.
pub fn restore_request(
    evacuation: EvacuationId,
    options: Option<v1::MigrationOptions>,
    request_id: String,
) -> Result<RestoreRequest, Invalid> {
    let request = text(request_id, "request_id", 0)?;
    Ok(RestoreRequest { request, evacuation, options: self::options(options)? })
}

/// Checks limits of links; none of a link is off.
///
/// # Errors
/// If one is malformed, or there are too many.
pub fn link_limits(
    limits: Vec<v1::LinkLimit>,
) -> Result<Vec<(LinkName, Option<LinkLimit>)>, Invalid> {
    use v1::link_limit::Limit;
    if limits.len() > PLACES_LIMIT {
        return Err(Invalid("limits"));
    }
    let limit_of = |limit: v1::LinkLimit| {
        let link = text(limit.link, "limits.link", 1)?;
        let limit = match limit.limit {
            None => None,
            Some(Limit::BytesPerSecond(rate @ 1..)) => Some(LinkLimit::Rate(rate)),
            Some(Limit::Percent(percent @ 1..=100)) => Some(LinkLimit::Percent(percent as u8)),
            Some(_) => return Err(Invalid("limits.limit")),
        };
        Ok((link.as_str().into(), limit))
    };
    limits.into_iter().map(limit_of).collect()
}

/// Checks a request for a single move.
///
/// # Errors
/// If something is missing or malformed.
pub fn migration_request(message: v1::CreateMigrationRequest) -> Result<MigrationRequest, Invalid> {
    Ok(MigrationRequest {
        request: text(message.request_id, "request_id", 0)?,
        vm: text(message.vm, "vm", 1)?.as_str().into(),
        target: text(message.target_host, "target_host", 1)?.as_str().into(),
        options: options(message.options)?,
    })
}

/// Checks a request to look at VMs: their places, and the targets.
///
/// # Errors
/// If something is missing or malformed.
pub fn check_request(message: v1::CheckVmsRequest) -> Result<(Vec<String>, Vec<String>), Invalid> {
    let targets = match message.targets {
        targets if targets.is_empty() => targets,
        targets => places(targets, "targets")?,
    };
    Ok((places(message.places, "places")?, targets))
}

fn text(text: String, field: &'static str, shortest: usize) -> Result<String, Invalid> {
    if (shortest..=RECEIVED_NAME_LIMIT).contains(&text.len()) {
        Ok(text)
    } else {
        Err(Invalid(field))
    }
}

/// Checks names of racks and hosts.
///
/// # Errors
/// If there are none, or too many.
pub fn places(places: Vec<String>, field: &'static str) -> Result<Vec<String>, Invalid> {
    if places.is_empty() || places.len() > PLACES_LIMIT {
        return Err(Invalid(field));
    }
    places.into_iter().map(|place| text(place, field, 1)).collect()
}

fn options(message: Option<v1::MigrationOptions>) -> Result<MoveOptions, Invalid> {
    message.unwrap_or_default().try_into()
}

/// A refusal as a status with its reason.
pub fn refusal(refusal: &Refusal) -> Status {
    let reason = match refusal {
        Refusal::UnknownHost(_) => Reason::UnknownHost,
        Refusal::UnknownPlace(_) => Reason::UnknownPlace,
        Refusal::UnknownVm(_) => Reason::UnknownVm,
        Refusal::UnknownEvacuation(_) => Reason::UnknownEvacuation,
        Refusal::UnknownMigration(_) => Reason::UnknownMigration,
        Refusal::UnknownLink(_) => Reason::UnknownLink,
        Refusal::Cordoned(_) => Reason::HostCordoned,
        Refusal::Ended(_) => Reason::EvacuationEnded,
        Refusal::PlanChanged(_) => Reason::PlanChanged,
        Refusal::Running(_) => Reason::EvacuationRunning,
        Refusal::NoneRestorable(_) | Refusal::NoneMovable(_) => Reason::VmNotMovable,
        Refusal::NotEmpty(_) => Reason::NotEmpty,
        Refusal::NotOnSources(_) => Reason::InvalidArgument,
        Refusal::SameHost(_) => Reason::SameHost,
        Refusal::VmBusy { .. } => Reason::VmBusy,
        Refusal::NotMovable(_) => Reason::VmNotMovable,
        Refusal::Disconnected(_) => Reason::HostDisconnected,
        Refusal::Connected(_) => Reason::HostConnected,
        Refusal::HostInUse(..) => Reason::HostInUse,
        Refusal::Installation(_) | Refusal::DeclaredDead(_) => Reason::InstallationRefused,
        Refusal::VmMayRun(..) => Reason::VmMayRun,
        Refusal::SpecDiffers(..) => Reason::SpecDiffers,
        Refusal::DoesNotFit(_) => Reason::DoesNotFit,
        Refusal::KeptApart(_) => Reason::KeptApart,
        Refusal::NothingToMove => Reason::NothingToMove,
        Refusal::Token => Reason::TokenRefused,
        Refusal::Expelled(_) => Reason::Expelled,
        Refusal::NotExpelled(_) => Reason::InvalidArgument,
        Refusal::TooManyExpelled(_) => Reason::TooManyExpelled,
        Refusal::TooManyTokens(_) => Reason::TooManyTokens,
        Refusal::RequestReused(_) => Reason::RequestIdReused,
    };
    refuse(reason, refusal.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_needed() {
        let message = v1::CreateEvacuationRequest::default();
        assert_eq!(evacuation_request(message).unwrap_err(), Invalid("sources"));
        let message = v1::CreateEvacuationRequest {
            sources: vec!["r1".to_owned()],
            targets: vec![String::new()],
            ..Default::default()
        };
        assert_eq!(evacuation_request(message).unwrap_err(), Invalid("targets"));
    }

    #[test]
    fn a_plan_names_each_vm_once_and_completely() {
        let step = v1::PlannedMove {
            vm: "web".to_owned(),
            source_host: "a1".to_owned(),
            target_host: "b1".to_owned(),
            memory_bytes: 1,
        };
        let of = |step: &v1::PlannedMove| planned_moves(vec![step.clone()]);
        assert_eq!(of(&step).map(|moves| moves.len()), Ok(1));
        assert_eq!(planned_moves(vec![]), Ok(vec![]));
        let twice = planned_moves(vec![step.clone(), step.clone()]);
        assert_eq!(twice, Err(Invalid("moves.vm")));
        let long = "x".repeat(256);
        for (bad, field) in [
            (v1::PlannedMove { vm: String::new(), ..step.clone() }, "moves.vm"),
            (v1::PlannedMove { source_host: long, ..step.clone() }, "moves.source_host"),
            (v1::PlannedMove { target_host: String::new(), ..step.clone() }, "moves.target_host"),
            (v1::PlannedMove { memory_bytes: 0, ..step.clone() }, "moves.memory_bytes"),
        ] {
            assert_eq!(of(&bad), Err(Invalid(field)));
        }
        assert_eq!(planned_moves(vec![step; MOVES_LIMIT + 1]), Err(Invalid("moves")));
    }

    #[test]
    fn vms_that_stay_have_names_and_short_reasons() {
        let message = |exclude: &str, vm: &str, reason: usize| v1::CreateEvacuationRequest {
            sources: vec!["a".to_owned()],
            targets: vec!["b".to_owned()],
            exclude: vec![exclude.to_owned()],
            left_out: vec![v1::StayingVm {
                vm: vm.to_owned(),
                reason: "x".repeat(reason),
                ..v1::StayingVm::default()
            }],
            ..v1::CreateEvacuationRequest::default()
        };
        let of = |exclude, vm, reason| evacuation_request(message(exclude, vm, reason));
        let (request, plan) = of("web", "db", REASON_LIMIT).unwrap();
        assert!(request.exclude.contains(&"web".into()) && !request.skip_blocked);
        assert_eq!((plan.left_out[0].vm.as_str(), &plan.left_out[0].host), ("db", &None));
        assert_eq!(of("", "db", 0).unwrap_err(), Invalid("exclude"));
        assert_eq!(of("web", "", 0).unwrap_err(), Invalid("left_out.vm"));
        assert_eq!(of("web", "db", REASON_LIMIT + 1).unwrap_err(), Invalid("left_out.reason"));
    }

    #[test]
    fn a_limit_is_something_or_off() {
        use v1::link_limit::Limit;
        let of = |limit| link_limits(vec![v1::LinkLimit { link: "core0".to_owned(), limit }]);
        assert_eq!(of(None), Ok(vec![("core0".into(), None)]));
        let forty = Some(LinkLimit::Percent(40));
        assert_eq!(of(Some(Limit::Percent(40))), Ok(vec![("core0".into(), forty)]));
        for bad in [Limit::Percent(0), Limit::Percent(101), Limit::BytesPerSecond(0)] {
            assert_eq!(of(Some(bad)), Err(Invalid("limits.limit")));
        }
    }
}
