//! What is durable: records, what they are found by, and the names in them. Only the store changes a record, and each
//! change marks it.

pub(crate) mod event;
pub(crate) mod expelled;
pub(crate) mod index;
pub(crate) mod name;
mod prune;
pub(crate) mod record;
pub(crate) mod spec;
pub(crate) mod store;
pub(crate) mod tokens;
