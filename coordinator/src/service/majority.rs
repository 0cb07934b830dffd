//! Whether a change of the site leaves a majority of coordinators that answer: without one nothing is decided any more,
//! and no command brings it back.

use std::collections::BTreeMap;

use rackferry_proto::{Reason, refuse};
use tonic::Status;

use crate::raft::{Metrics, Network, NodeId};

/// Coordinators that vote, and which of them answer.
pub struct Voters(BTreeMap<NodeId, Voter>);

struct Voter {
    addr: String,
    answers: bool,
}

impl Voters {
    /// As this coordinator sees them, which leads.
    pub fn of(metrics: &Metrics, network: &Network) -> Self {
        let members = metrics.membership_config.membership();
        let voters = members.voter_ids().filter_map(|id| {
            let addr = members.get_node(&id)?.addr.clone();
            let answers = id == metrics.id || network.answers(&addr);
            Some((id, Voter { addr, answers }))
        });
        Self(voters.collect())
    }

    /// The same without one that is to be removed.
    pub fn without(mut self, id: NodeId) -> Self {
        self.0.remove(&id);
        self
    }

    /// The same, if those whom it concerns answer no more. It is told the number and the address.
    pub fn silenced(mut self, concerns: impl Fn(NodeId, &str) -> bool) -> Self {
        for (id, voter) in &mut self.0 {
            voter.answers &= !concerns(*id, &voter.addr);
        }
        self
    }

    /// Checks that those who answer are a majority.
    ///
    /// # Errors
    /// [`Reason::NoMajority`]; `what` is what was asked for, `instead` what to do.
    pub fn check_majority(&self, what: &str, instead: &str) -> Result<(), Status> {
        let answer = self.0.values().filter(|voter| voter.answers).count();
        // The last one may not be removed; that is said elsewhere.
        if self.0.is_empty() || answer > self.0.len() / 2 {
            return Ok(());
        }
        let silent = self.0.iter().filter(|(_, voter)| !voter.answers);
        let silent: Vec<_> = silent.map(|(id, voter)| format!("{id} ({})", voter.addr)).collect();
        let text = format!(
            "{what} would leave {} coordinators that vote, of which {answer} would answer: no majority, and nothing could \
             be decided any more. Not answering: {}. {instead}",
            self.0.len(),
            silent.join(", "),
        );
        Err(refuse(Reason::NoMajority, text))
    }
}

#[cfg(test)]
mod tests {
    use rackferry_proto::reason_of;

    use super::*;

    fn voters(answers: &[bool]) -> Voters {
        let voter = |(id, &answers)| (id, Voter { addr: format!("c{id}:7400"), answers });
        Voters((1..).zip(answers).map(voter).collect())
    }

    fn refused(voters: Voters) -> bool {
        match voters.check_majority("this", "Remove the dead ones first.") {
            Ok(()) => false,
            Err(status) => {
                assert_eq!(reason_of(&status), Some(Reason::NoMajority));
                assert!(status.message().ends_with("Remove the dead ones first."));
                true
            }
        }
    }

    #[test]
    fn one_may_go_if_most_of_the_others_answer() {
        assert!(!refused(voters(&[true, true, true]).without(1)));
        assert!(!refused(voters(&[true, true, false]).without(3)), "the dead one");
        assert!(refused(voters(&[true, true, false]).without(2)), "one of the living");
        assert!(refused(voters(&[true, true, false]).without(1)), "also if it leads");
        assert!(!refused(voters(&[true, true, true, true, false]).without(4)));
        assert!(refused(voters(&[true, true, true, false, false]).without(3)));
        assert!(!refused(voters(&[true, false]).without(2)), "down to a single one");
        assert!(refused(voters(&[true, false]).without(1)));
        assert!(!refused(voters(&[true]).without(1)), "openraft refuses that by itself");
    }

    #[test]
    fn those_who_are_expelled_answer_no_more() {
        let by_id = |id| move |voter, _: &str| voter == id;
        assert!(!refused(voters(&[true, true, true]).silenced(by_id(3))));
        assert!(refused(voters(&[true, true, false]).silenced(by_id(2))));
        assert!(refused(voters(&[true]).silenced(|_, addr| addr == "c1:7400")));
    }
}
