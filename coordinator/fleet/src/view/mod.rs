//! What clients see. Nothing here changes what is decided.

pub(crate) mod problems;
pub(crate) mod published;
mod rows;
pub(crate) mod shown;
