//! Who owns a VM: what agents attest, the table that decides by it, and what follows.

mod adopt;
pub(crate) mod agents;
mod reconcile;
mod sessions;
mod table;

pub use table::*;
