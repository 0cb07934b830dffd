//! The fleet at scale: how long turns take, how long readmission after a failover takes, and how much memory it needs,
//! at several sizes.
//!
//! `cargo bench -p rackferry-fleet --bench scale`, or `cargo xtask bench fleet`.

mod samples;
mod site;

use std::time::{Duration, Instant};

use samples::{Samples, cpu_time};
use site::{Site, Size};

/// Sizes, so that growth shows.
const SIZES: [Size; 3] = [
    Size { hosts: 20, vms: 1_000, queued: 100 },
    Size { hosts: 200, vms: 10_000, queued: 1_000 },
    Size { hosts: 1_000, vms: 50_000, queued: 5_000 },
];
/// How long turns are measured at each size, unless it is given.
const SECONDS: u64 = 20;

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let number = std::env::args().skip_while(|argument| argument != "--seconds").nth(1);
    let seconds = number.and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let (sizes, time) = if measured {
        (&SIZES[..], Duration::from_secs(seconds))
    } else {
        (&SIZES[..1], Duration::from_millis(200))
    };
    for &size in sizes {
        measure(size, time);
    }
}

fn measure(size: Size, time: Duration) {
    let Size { hosts, vms, queued } = size;
    println!("\n{hosts} hosts, {vms} VMs, {queued} queued moves");
    let before = rss_mib();
    let mut site = Site::new(size);
    let begin = cpu_time();
    site.connect_all();
    println!("  first admission of all agents: {:.2} s", (cpu_time() - begin).as_secs_f64());
    let begin = cpu_time();
    site.evacuate();
    println!("  the evacuation is planned and queued: {:.1} ms", ms(cpu_time() - begin));
    println!(
        "  memory of the fleet and the played agents: {} MiB",
        rss_mib().saturating_sub(before)
    );
    let mut samples = Samples::default();
    let end = Instant::now() + time;
    while Instant::now() < end && site.moves_go_on() {
        site.round(&mut samples, end);
    }
    print!("{samples}");
    readmit(&site, time);
}

/// Another leader begins with the records, and every agent introduces itself with its complete list.
fn readmit(site: &Site, time: Duration) {
    let begin = cpu_time();
    let mut next = site.failover();
    println!("  failover: the fleet from its records: {:.1} ms", ms(cpu_time() - begin));
    let begin = cpu_time();
    let (admitted, all) = next.connect_until(Instant::now() + time);
    let took = (cpu_time() - begin).as_secs_f64();
    if admitted == all {
        println!("  failover: all {all} agents admitted again: {took:.2} s");
    } else {
        let whole = took * all as f64 / admitted as f64;
        println!(
            "  failover: {admitted} of {all} agents admitted in {took:.1} s: {whole:.0} s for all"
        );
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Resident memory of this process.
fn rss_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    (pages * 4096) >> 20
}
