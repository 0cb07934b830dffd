//! gRPC messages and services of `rackferry.v1`, the door between them and the model, and typed refusals.
//!
//! The messages are documented in `proto/rackferry/v1/*.proto`.

pub mod door;
mod refusal;

pub use rackferry_model::Reason;
pub use refusal::{grpc_code, leader_of, reason_of, refuse, refuse_not_leader};

/// Generated from the .proto files.
#[allow(
    missing_docs,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated; documented in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("rackferry.v1");
}

/// Descriptors of every file, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/rackferry.bin"));
