//! Where VMs go: requests, plans, and what they are compared with before they start.

pub(crate) mod anti_affinity;
pub(crate) mod candidate;
pub(crate) mod evacuate;
pub mod placement;
pub(crate) mod planned;
pub(crate) mod restore;
pub(crate) mod topology;
