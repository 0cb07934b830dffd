//! Protobuf stops here: messages become the fleet's values, checked once, and its values messages.

mod event;
mod incoming;
mod inventory;
mod limit;
mod outgoing;
mod request;
mod view;

pub use event::event;
pub use incoming::{check_report, hello, said};
pub use inventory::{import, inventory, links, summary_of};
pub use outgoing::order;
pub use request::{
    REASON_LIMIT, check_request, evacuation_request, link_limits, migration_request, places,
    refusal, restore_request,
};
pub use view::{evacuation, host, migration, plan, problem, restore_plan, staying, vm, vm_detail};
