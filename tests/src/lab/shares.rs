//! The share of the processors that the lab's daemons have.

use std::fs;

const AUTOGROUP: &str = "/proc/self/autogroup";

/// The kernel divides processors among sessions first. Every QEMU has one of its own; all agents and coordinators are
/// in the session of the program that starts them, and so had one share together: with 24 VMs a coordinator heard its
/// followers too late and led no more. This gives them about 15 shares until it is dropped; then the session, which may
/// be a user's shell, has what it had. Without autogroups there is nothing to do.
#[derive(Debug)]
pub(super) struct Shares {
    /// The session's nice value.
    was: Option<i8>,
}

impl Shares {
    /// Takes them; dropping gives them back.
    pub(super) fn take() -> Self {
        // "/autogroup-7 nice 0"
        let said = fs::read_to_string(AUTOGROUP).unwrap_or_default();
        let was = said.split_whitespace().next_back().and_then(|nice| nice.parse().ok());
        let _ = fs::write(AUTOGROUP, "-12");
        Self { was }
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        if let Some(was) = self.was {
            let _ = fs::write(AUTOGROUP, was.to_string());
        }
    }
}
