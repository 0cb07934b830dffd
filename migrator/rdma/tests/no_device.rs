//! A machine without the wanted device says so, and how to get one.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::path::Path;

use rackferry_rdma::{Device, RdmaError, Which};

fn refused(which: &Which) -> String {
    match Device::open(which, 0) {
        Err(error @ RdmaError::NoDevice { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_looked_for_is_named() {
    let said = refused(&Which::Named("no-such-card".to_owned()));
    assert!(said.starts_with("no RDMA device no-such-card: "), "{said}");
    let said = refused(&Which::At("192.0.2.254".parse().unwrap()));
    assert!(said.starts_with("no RDMA device with the address 192.0.2.254: "), "{said}");
}

/// As on every machine whose kernel has no RDMA, those that build and test Rackferry among them.
#[tokio::test]
async fn a_machine_without_devices_is_told_what_to_load() {
    if Path::new("/sys/class/infiniband").exists() {
        eprintln!("a_machine_without_devices_is_told_what_to_load: SKIPPED: the kernel has RDMA");
        return;
    }
    let said = refused(&Which::Any);
    assert!(said.starts_with("no RDMA device: "), "{said}");
    assert!(said.contains("load the card's module and ib_uverbs"), "{said}");
}
