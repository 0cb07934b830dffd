//! A holder that is a process of its own and is killed, and a process that may lock little memory.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rackferry_rdma::{
    Endpoint, Export, Fetching, Gid, Memory, Pages, RdmaError, Region, RemoteRegion, ServingSetup,
    Status,
};

use super::{BATCH, reads_well, singles};
use crate::rig::{Holder, Waiter, device, is_inside, page};

/// Tells a process of a test what to be.
const ROLE: &str = "RACKFERRY_RDMA_ROLE";

/// Runs one test of this binary as a process of its own.
fn process(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role);
    command
}

fn has_role(role: &str) -> bool {
    is_inside() && std::env::var(ROLE).is_ok_and(|own| own == role)
}

/// Connects to a holder in another process, over its standard input and output.
fn connect_to(child: &mut Child, waiter: &Waiter) -> Fetching {
    waiter.connect(|ours| {
        let mut input = child.stdin.take().unwrap();
        let numbers = [ours.qpn(), ours.psn(), ours.mtu().bytes(), ours.reads().into()];
        writeln!(input, "{}", numbers.map(|number| number.to_string()).join(" ")).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("offer ").map(String::from));
        let told: Vec<u64> = line.unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        let [qpn, psn, mtu, reads, base, slots, rkey] = told[..] else { panic!("{told:?}") };
        let gid = waiter.device.gid();
        let small = |number: u64| u32::try_from(number).unwrap();
        let peer = Endpoint::new(gid, small(qpn), small(psn), small(mtu), small(reads)).unwrap();
        (peer, RemoteRegion::new(base, small(slots), small(rkey)).unwrap())
    })
}

#[tokio::test]
async fn holder_process() {
    if !has_role("holder") {
        return;
    }
    let holder = Holder::new(256);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let told: Vec<u32> = line.trim().split(' ').map(|n| n.parse().unwrap()).collect();
    let gid: Gid = holder.device.gid();
    let peer = Endpoint::new(gid, told[0], told[1], told[2], told[3]).unwrap();
    let setup = ServingSetup::new(&holder.domain).unwrap();
    let (ours, region) = (*setup.local(), setup.offer(&holder.region).unwrap());
    let _serving = setup.connect(&peer).unwrap();
    let end = [ours.qpn(), ours.psn(), ours.mtu().bytes(), ours.reads().into()];
    let end = end.map(|number| number.to_string()).join(" ");
    println!("\noffer {end} {} {} {}", region.base(), region.slots(), region.rkey());
    // Until it is killed.
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[tokio::test]
async fn a_killed_holder_loses_no_slot() {
    if !is_inside() {
        return;
    }
    let waiter = Waiter::new(8 * BATCH);
    let mut holder = process("inside::processes::holder_process", "holder");
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let fetching = connect_to(&mut holder, &waiter);
    let slots = fetching.post(waiter.batch(0..BATCH).unwrap()).unwrap().await.ok().unwrap();
    assert!(slots.iter().zip(0..).all(|(slot, number)| *slot.bytes() == page(number)));
    drop(slots);
    let mut tickets: VecDeque<_> =
        (0..4).map(|_| fetching.post(singles(&waiter).unwrap()).unwrap()).collect();
    holder.kill().unwrap();
    holder.wait().unwrap();
    // Whatever was done before it died; the first that comes after it ends the queue pair.
    tickets.extend((0..2).filter_map(|_| fetching.post(singles(&waiter).unwrap()).ok()));
    let mut statuses = vec![];
    for ticket in tickets {
        statuses.push(ticket.await.status);
    }
    println!("batches of a killed holder: {statuses:?}");
    let failed = statuses.iter().position(|status| *status != Status::Success).unwrap();
    assert_eq!(statuses[failed], Status::RetriesExceeded);
    assert!(statuses[failed + 1..].iter().all(|status| *status == Status::Flushed));
    assert!(waiter.has_all());
    // The device is as good as before.
    reads_well(&Holder::new(256), &waiter).await;
}

#[tokio::test]
async fn memlock_process() {
    if !has_role("memlock") {
        return;
    }
    let domain = device().domain::<Export>().unwrap();
    let memory = Memory::new(256, Pages::Small).unwrap();
    match Region::register(&domain, memory) {
        Err(RdmaError::Memlock { needed: 1_048_576, limit: 65_536 }) => {}
        other => panic!("{other:?}"),
    }
    Region::register(&domain, Memory::new(4, Pages::Small).unwrap()).unwrap();
}

#[test]
fn memory_that_may_not_be_locked_is_an_error_with_both_numbers() {
    if !is_inside() {
        return;
    }
    let inner = process("inside::processes::memlock_process", "memlock");
    // Root may lock as much as it likes, unless it gives that up.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]);
    command.args(["prlimit", "--memlock=65536"]).arg(inner.get_program()).args(inner.get_args());
    assert!(command.env(ROLE, "memlock").status().unwrap().success());
}
