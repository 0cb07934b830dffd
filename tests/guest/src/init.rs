//! PID 1.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::content::{Content, SplitMix};
use crate::params::{Params, Profile};
use crate::region::Region;
use crate::serial::{self, Serial};
use crate::service::Service;
use crate::sweep::Memory;
use crate::{boot, busy, heartbeat, hot};

/// Never returns: the kernel panics when PID 1 exits.
pub fn run() -> ! {
    let failure = match boot::mount_kernel_files().and_then(|()| Serial::open()) {
        Err(error) => format!("no serial line: {error}"),
        Ok(serial) => match work(&serial) {
            Ok(never) => match never {},
            Err(error) => {
                serial.line(&format!("RF FAIL {error}"));
                error.to_string()
            }
        },
    };
    eprintln!("RF FAIL {failure}");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn work(serial: &Serial) -> io::Result<std::convert::Infallible> {
    let start = Instant::now();
    let params = Params::parse(&fs::read_to_string("/proc/cmdline")?).map_err(io::Error::other)?;
    let plan = Plan::of(&params);
    heartbeat::start(serial.clone(), params.heartbeat);
    let cache = if plan.cache_mib == 0 {
        Cache::default()
    } else {
        boot::load_modules(Path::new("/modules"))?;
        boot::mount_base()?;
        Cache::fill(Path::new(boot::BASE), plan.cache_mib)?
    };
    let cache_mib = cache.mib();
    let mut seeds = SplitMix(params.seed);
    let private = Arc::new(Region::filled(plan.content, seeds.next(), plan.private_mib));
    let working_set = Arc::new(Region::filled(Content::Heap, seeds.next(), plan.wss_mib));
    match params.profile {
        Profile::Hot => hot::start(working_set.clone(), params.rate_kib, serial.clone()),
        _ => busy::start(working_set.clone(), seeds.next(), params.rate_kib),
    }
    let mut services = (0..plan.services)
        .map(|n| {
            Service::start(&format!("service{n}"), seeds.next(), SERVICE_MIB, SERVICE_SWEEP_KIB)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let memory = Arc::new(Memory::new("init", vec![private, working_set], cache, serial.clone()));
    memory.clone().sweep(params.sweep_kib, true);
    serial.line(&format!(
        "RF READY {:?} cache={cache_mib} private={} services={}x{SERVICE_MIB} took={}ms",
        params.profile,
        plan.private_mib + plan.wss_mib,
        plan.services,
        start.elapsed().as_millis()
    ));
    obey(serial, &memory, &mut services)
}

/// Answers `check` with the number of wrong pages.
fn obey(
    serial: &Serial,
    memory: &Memory,
    services: &mut [Service],
) -> io::Result<std::convert::Infallible> {
    for line in BufReader::new(serial::open_port()?).lines() {
        if line?.trim() == "check" {
            let mut wrong = memory.check_all();
            for service in services.iter_mut() {
                wrong += service.check_all()?;
            }
            serial.line(&format!("RF CHECKED {wrong}"));
        }
    }
    Err(io::Error::other("the serial line was closed"))
}

/// Heap of one service.
const SERVICE_MIB: usize = 2;
/// A service looks over its heap in about half a minute.
const SERVICE_SWEEP_KIB: usize = 64;

/// What a profile means in MiB.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    cache_mib: usize,
    private_mib: usize,
    content: Content,
    wss_mib: usize,
    services: usize,
}

impl Plan {
    fn of(params: &Params) -> Self {
        let fill = params.fill_mib;
        let plan = |cache_mib, private_mib, content, services| Self {
            cache_mib,
            private_mib,
            content,
            wss_mib: 0,
            services,
        };
        match params.profile {
            Profile::Idle => plan(fill, 0, Content::Heap, 4),
            Profile::Template => plan(fill, 1, Content::Heap, 0),
            Profile::Busy => Self { wss_mib: params.wss_mib, ..plan(fill, 0, Content::Heap, 4) },
            Profile::Hot => Self { wss_mib: params.wss_mib, ..plan(fill, 0, Content::Heap, 0) },
            Profile::Mixed => plan(fill / 2, fill - fill / 2, Content::Heap, 4),
            Profile::Unique => plan(0, fill, Content::Random, 0),
            Profile::Zero => plan(0, fill, Content::Zero, 0),
        }
    }
}
