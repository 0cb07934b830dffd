//! What an evacuation leaves on its sources, for people.

use rackferry_proto::v1::{Evacuation, EvacuationState, StayingVm};

use super::plan::stays;

/// VMs that it does not move, if there are any. At its end those are left out that are named with all that remains.
pub fn left_out(evacuation: &Evacuation) -> String {
    let remains = |one: &&StayingVm| evacuation.remaining.iter().any(|other| other.vm == one.vm);
    let vms: Vec<_> = evacuation.left_out.iter().filter(|one| !remains(one)).collect();
    let each: String = vms.iter().map(|one| stays(one)).collect();
    if vms.is_empty() { each } else { format!("\n\nLeft out, {} VMs:{each}", vms.len()) }
}

/// What is on the sources at its end, if anything is, and hosts that do not say. Of a cancelled one that is no news.
pub fn remaining(evacuation: &Evacuation) -> String {
    let Evacuation { remaining, silent_hosts, .. } = evacuation;
    let none = remaining.is_empty() && silent_hosts.is_empty();
    if none || evacuation.state() == EvacuationState::Cancelled {
        return String::new();
    }
    let mut text = format!("\n\nThe sources are not known to be empty, {} VMs:", remaining.len());
    remaining.iter().for_each(|one| text += &stays(one));
    for host in silent_hosts {
        text += &format!("\n    {host}: its agent is not connected, so its VMs are not known");
    }
    text
}

/// What lets the sources take VMs again.
pub fn sources_stay_cordoned(evacuation: &Evacuation) -> String {
    let cordons = !evacuation.no_cordon && evacuation.restores.is_empty();
    if !cordons || evacuation.state() == EvacuationState::Cancelled {
        return String::new();
    }
    let sources = evacuation.sources.join(" ");
    format!(
        "\n\nThe sources stay cordoned; when they may take VMs again: rackferry uncordon {sources}"
    )
}
