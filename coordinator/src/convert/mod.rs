//! Protobuf stops here: messages become the fleet's values, checked once, and its values messages.

mod incoming;
mod outgoing;
mod request;
mod view;

pub use incoming::{Invalid, check_report, hello, said};
pub use outgoing::order;
pub use request::{check_request, evacuation_request, migration_request, refusal};
pub use view::{evacuation, host, migration, plan, vm};
