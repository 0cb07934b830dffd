//! State x event -> exactly these effects and words.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

mod acts;
mod common;
mod sources;
mod stream;
mod targets;
