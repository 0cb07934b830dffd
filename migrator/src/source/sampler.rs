//! Looks at QEMU and at the session's counters now and then: progress for people, the forecast for the valve.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rackferry_migrator_protocol::session::predict::{self, Sample};
use tokio::sync::mpsc;

use super::Input;
use super::flow::Flow;
use crate::pace::Pace;
use crate::qmp::{MigrationInfo, MigrationStatus, Qmp};
use crate::stats::{Counters, Totals};

/// Time between two looks: short beside a pass, long beside a query.
const INTERVAL: Duration = Duration::from_millis(60);

/// Rates are taken over about this time.
const SMOOTHING: f64 = 0.3;

/// What this host gets through before anything was measured, guest bytes per second.
const LOCAL_RATE_START: f64 = 300e6;

/// How far a copy is. Everything in bytes and bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Part of the first full pass, 0..1; only rises.
    pub pass1_ratio: f64,
    /// Number of the pass, from 1.
    pub round: u32,
    /// Dirty memory QEMU has still to send.
    pub remaining_bytes: u64,
    /// Rate at which the guest dirties memory.
    pub dirty_rate: u64,
    /// Rate at which bytes go over the core link.
    pub send_rate: u64,
    /// How long the VM would be stopped now, milliseconds.
    pub predicted_stop_ms: u32,
    /// Guest bytes per second at which the last pass would go; 0 if that is not known.
    pub last_pass_rate: u64,
    /// How long it may be stopped, milliseconds; `u32::MAX`: as long as it takes.
    pub limit_ms: u32,
    /// The first full pass is over.
    pub first_pass_done: bool,
    /// The switchover has begun: the session holds a slot, or QEMU did not wait for one.
    pub switching: bool,
    /// Counters so far.
    pub totals: Totals,
}

pub(super) struct Sampler {
    pub qmp: Qmp,
    pub flow: Arc<Flow>,
    pub counters: Arc<Counters>,
    pub pace: Arc<Pace>,
    pub inputs: mpsc::Sender<Input>,
}

/// Rates between two looks.
#[derive(Debug, Clone, Copy)]
struct Trend {
    at: Instant,
    totals: Totals,
    wire_rate: f64,
    wire_ratio: f64,
    local_rate: f64,
    pass1_ratio: f64,
}

impl Sampler {
    /// Runs until the session ends or QEMU leaves its active state.
    pub async fn run(self) {
        let mut trend = Trend {
            at: Instant::now(),
            totals: Totals::default(),
            wire_rate: 0.0,
            wire_ratio: 1.0,
            local_rate: LOCAL_RATE_START,
            pass1_ratio: 0.0,
        };
        loop {
            tokio::time::sleep(INTERVAL).await;
            let Ok(info) = self.qmp.within(Duration::from_secs(2)).migration_status().await else {
                continue;
            };
            match info.status() {
                MigrationStatus::Active => {}
                status if status.is_final() && status != MigrationStatus::None => return,
                _ => continue,
            }
            let progress = self.look(&info, &mut trend);
            if self.inputs.send(Input::Progress(progress)).await.is_err() {
                return;
            }
        }
    }

    fn look(&self, info: &MigrationInfo, trend: &mut Trend) -> Progress {
        let ram = info.ram.clone().unwrap_or_default();
        let totals = self.counters.totals();
        trend.follow(totals);
        let (in_flight, _, link_rate) = self.flow.link();
        let handled = (ram.normal + ram.duplicate) as f64 * 4096.0;
        let first_pass_done = ram.dirty_sync_count > 1;
        let ratio = if first_pass_done { 1.0 } else { handled / (ram.total.max(1)) as f64 };
        trend.pass1_ratio = trend.pass1_ratio.max(ratio.min(1.0));
        let sample = Sample {
            remaining_bytes: ram.remaining,
            in_flight_bytes: in_flight as u64,
            wire_ratio: trend.wire_ratio,
            link_rate: self.pace.held(link_rate),
            local_rate: trend.local_rate,
        };
        Progress {
            pass1_ratio: trend.pass1_ratio,
            round: ram.dirty_sync_count.max(1) as u32,
            remaining_bytes: ram.remaining,
            dirty_rate: ram.dirty_pages_rate * 4096,
            send_rate: trend.wire_rate as u64,
            predicted_stop_ms: predict::stop_ms(&sample),
            last_pass_rate: predict::last_pass_rate(&sample),
            first_pass_done,
            // These two are the session's to say.
            limit_ms: 0,
            switching: false,
            totals,
        }
    }
}

impl Trend {
    fn follow(&mut self, totals: Totals) {
        let seconds = self.at.elapsed().as_secs_f64().max(1e-3);
        let wire = (totals.wire_bytes - self.totals.wire_bytes) as f64;
        let content = |t: &Totals| t.raw_bytes + t.duplicate_bytes;
        let guest = (content(&totals) - content(&self.totals)) as f64;
        self.wire_rate += (wire / seconds - self.wire_rate) * SMOOTHING;
        if guest > 0.0 {
            self.wire_ratio += ((wire / guest).min(1.0) - self.wire_ratio) * SMOOTHING;
            self.local_rate = self.local_rate.max(guest / seconds);
        }
        self.totals = totals;
        self.at = Instant::now();
    }
}
