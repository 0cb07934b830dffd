//! Compiles the .proto files; protox is pure Rust, so no protoc is needed.
use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 9] = [
    "rackferry/v1/agent.proto",
    "rackferry/v1/check.proto",
    "rackferry/v1/cluster.proto",
    "rackferry/v1/enrolment.proto",
    "rackferry/v1/evacuation.proto",
    "rackferry/v1/event.proto",
    "rackferry/v1/inventory.proto",
    "rackferry/v1/migration.proto",
    "rackferry/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("rackferry.bin"), files.encode_to_vec())?;
    // Without the generated `connect` constructor, whose name AgentService.Connect needs; clients are
    // made from a channel with `new`.
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
