//! When the valve opens, and how far: the forecast against the VM's limit, and what becomes of the limit.

use std::time::Duration;

use rackferry_migrator_protocol::session::patience::{Advice, Look, UNBOUNDED_MS};
use rackferry_migrator_protocol::session::source::{Event, Phase};
use tracing::info;

use super::{Input, Notice, Progress, Session};
use crate::limits::{LOAD_FORECASTS, LOAD_PATIENCE, LOAD_PATIENCE_MAX, LOAD_PATIENCE_VERIFY};
use crate::qmp::{QmpError, Rest, Valve};

/// SWITCHOVER_ACK: QEMU may stop the VM.
const SWITCHOVER_ACK: [u8; 4] = [0, 7, 0, 0];

/// A rest that is never worth another pass.
const LAST_REST_LEAST: u64 = 64 << 10;

/// The part of the VM's limit that its last pages may take at first.
const PAGES_SHARE: u64 = 4;
/// A VM that does not converge to that by then may take a larger part. Never all of it: commit, load and start need theirs.
const PAGES_SHARE_PATIENCE: Duration = Duration::from_secs(3);
/// That part.
const PAGES_SHARE_LATER: u64 = 2;

impl Session {
    /// Takes the sampler's look at QEMU; the event that follows from it, if there is one.
    pub(super) fn looked(&mut self, mut progress: Progress) -> Option<Event> {
        let phase = self.machine.phase();
        let waits = *phase == Phase::AwaitingSlot;
        let copies =
            matches!(phase, Phase::Copying | Phase::Switching) && self.stopped_at.is_none();
        progress.switching = !matches!(phase, Phase::Copying | Phase::AwaitingSlot);
        let (at, stop_ms) = (self.began.elapsed(), progress.predicted_stop_ms);
        self.forecast_ms = stop_ms;
        if progress.first_pass_done && stop_ms != u32::MAX {
            self.worst_forecast_ms = self.worst_forecast_ms.max(stop_ms);
        }
        self.last_pass_rate = progress.last_pass_rate;
        let advice = if copies && progress.first_pass_done {
            self.patience.look(&Look { at, round: progress.round, stop_ms })
        } else {
            self.patience.rest(at);
            Advice::GoOn
        };
        if advice == Advice::Raised {
            self.limit_raised();
        }
        progress.limit_ms = self.patience.limit_ms();
        let ready = self.patience.fits(stop_ms, progress.first_pass_done);
        let _ = self.notices.try_send(Notice::Progress(progress));
        match advice {
            Advice::GiveUp(why) => {
                self.not_converged = true;
                Some(Event::Cancel(why))
            }
            _ => (ready && (copies || waits)).then_some(Event::Ready { predicted_ms: stop_ms }),
        }
    }

    /// The VM is to be stopped soon, however long. It still waits for its slot.
    pub(super) fn hurry(&mut self) {
        if self.patience.hurry() {
            self.limit_raised();
        }
    }

    fn limit_raised(&mut self) {
        let limit_ms = self.patience.limit_ms();
        info!(id = %self.spec.migration_id, limit_ms, forecast_ms = self.forecast_ms, "longer stop");
        self.let_qemu_know();
        if !self.auto_converge {
            return;
        }
        let qmp = self.parts.qmp.clone();
        self.tasks.spawn(async move {
            // Nothing depends on it.
            let _ = qmp.slow_guest_down().await;
        });
    }

    /// Gives QEMU the limit as it is now, unless it is still held. After the stop it changes nothing.
    pub(super) fn let_qemu_know(&mut self) {
        let (true, Some(rest)) = (self.valve_open, self.last_rest(PAGES_SHARE_LATER)) else {
            return;
        };
        let qmp = self.parts.qmp.clone();
        self.tasks.spawn(async move {
            let _ = qmp.allow_rest(rest).await;
        });
    }

    /// What QEMU may have left when it stops the VM now, by the session's own forecast where QEMU takes that.
    fn last_rest(&self, share: u64) -> Option<Rest> {
        let facts = self.facts.as_ref()?;
        let limit_ms = self.pages_limit(share);
        if !facts.counts_bytes() {
            return Some(Rest::Millis(limit_ms));
        }
        let bytes = limit_ms.saturating_mul(self.last_pass_rate / 1000);
        Some(Rest::Bytes(bytes.clamp(LAST_REST_LEAST, facts.memory_bytes.max(LAST_REST_LEAST))))
    }

    /// What QEMU is told of the limit: a part of it, until it is raised because the VM does not converge.
    fn pages_limit(&self, share: u64) -> u64 {
        let limit = u64::from(self.patience.limit_ms());
        let raised = limit > u64::from(self.spec.max_downtime_ms);
        if raised { limit } else { (limit / share).max(1) }
    }

    /// Lets QEMU stop the VM. The limit on what is left is for the last pages alone, and they share the VM's limit with
    /// device state, commit and load: so a part first, a larger one if the VM does not come to that, and all of it if
    /// the limit was raised.
    pub(super) async fn open_valve(&mut self) -> Result<(), QmpError> {
        let Some(rest) = self.last_rest(PAGES_SHARE) else { return Ok(()) };
        self.valve_open = true;
        if self.facts.as_ref().is_some_and(|facts| facts.valve == Valve::SwitchoverAck) {
            // Before the limit: a QEMU that waits for it would look for dirty pages within the limit, again and again.
            self.write_return_path(&SWITCHOVER_ACK).await;
        }
        self.later(PAGES_SHARE_PATIENCE, Input::LargerShare);
        self.parts.qmp.allow_rest(rest).await
    }

    /// How long a stopped VM may take to be loaded.
    pub(super) fn load_patience(&self) -> Duration {
        let least = if self.spec.verify { LOAD_PATIENCE_VERIFY } else { LOAD_PATIENCE };
        if self.patience.limit_ms() != UNBOUNDED_MS {
            return least;
        }
        // Not the latest: near the end of a pass it knows nothing of what was written since the pass began.
        let forecast = Duration::from_millis(self.worst_forecast_ms.into());
        least.max((forecast * LOAD_FORECASTS).min(LOAD_PATIENCE_MAX))
    }
}
