//! What QEMU is told of the stop; [`Stop`](rackferry_migrator_protocol::session::stop::Stop) decides.

use rackferry_migrator_protocol::session::open::{Hurry, SETTLE_LIMIT};
use rackferry_migrator_protocol::session::source::{Event, Phase};
use rackferry_migrator_protocol::session::stop::{SHARE_TIMEOUT, Share, Sight, Verdict};
use rackferry_model::Disruption;
use tracing::{debug, info, warn};

use super::emit::Order;
use super::{Input, Notice, Progress, Session};
use crate::qmp::{Accelerator, QmpError, Rest, Valve};

/// SWITCHOVER_ACK: QEMU may stop the VM.
const SWITCHOVER_ACK: [u8; 4] = [0, 7, 0, 0];

impl Session {
    /// Takes the sampler's look at QEMU; the event that follows from it, if there is one.
    pub(super) fn looked(&mut self, mut progress: Progress) -> Option<Event> {
        let sight = Sight {
            at: self.began.elapsed(),
            round: progress.round,
            first_pass_done: progress.first_pass_done,
            stopped: self.stopped_at.is_some(),
            stop_ms: progress.predicted_stop_ms,
            last_pass_rate: progress.last_pass_rate,
        };
        let Verdict { event, raised } = self.stop.look(&sight, self.machine.phase());
        if raised {
            self.limit_raised();
        }
        progress.switching = self.machine.is_switching();
        progress.limit_ms = self.stop.limit_ms();
        let _ = self.notices.try_send(Notice::Progress(progress));
        event
    }

    /// The VM is to be stopped soon, however long. It still waits for its slot.
    pub(super) fn force_switchover(&mut self) {
        if self.stop.force_switchover() {
            self.limit_raised();
        }
    }

    fn limit_raised(&mut self) {
        let (limit_ms, forecast_ms) = (self.stop.limit_ms(), self.stop.forecast_ms());
        info!(id = %self.spec.migration_id, limit_ms, forecast_ms, "longer stop");
        self.let_qemu_know();
        if !self.auto_converge() {
            return;
        }
        let qmp = self.parts.qmp.clone();
        self.tasks.spawn(async move {
            // Nothing depends on it.
            let _ = qmp.slow_guest_down().await;
        });
    }

    /// QEMU can be told to slow the guest down. Under emulation it must not: auto-converge looks for dirty pages every
    /// few seconds, also in the middle of a pass.
    pub(super) fn auto_converge(&self) -> bool {
        let kvm = self.facts.as_ref().is_some_and(|f| f.accelerator == Accelerator::Kvm);
        kvm && self.spec.options.disruption != Disruption::None
    }

    /// Gives QEMU the limit as it is now, unless it is still held. After the stop it changes nothing.
    pub(super) fn let_qemu_know(&mut self) {
        let (true, Some(rest)) = (self.valve_open, self.last_rest(Share::Later)) else { return };
        let qmp = self.parts.qmp.clone();
        self.tasks.spawn(async move {
            let _ = qmp.allow_rest(rest).await;
        });
    }

    /// What QEMU may have left when it stops the VM now, by the session's own forecast where QEMU takes that.
    fn last_rest(&self, share: Share) -> Option<Rest> {
        let facts = self.facts.as_ref()?;
        Some(if facts.counts_bytes() {
            Rest::Bytes(self.stop.rest_bytes(share, facts.memory_bytes))
        } else {
            Rest::Millis(self.stop.rest_ms(share))
        })
    }

    /// Lets QEMU stop the VM, once no reference has been open for long: what is, is supplied at once, and its arrival
    /// waited for, but not for ever.
    pub(super) async fn prepare_stop(&mut self) -> Result<(), QmpError> {
        self.flow.hurry(Hurry::StopsSoon);
        if self.flow.is_settled() {
            return self.open_valve().await;
        }
        self.supply_due().await;
        let (flow, inputs) = (self.flow.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let _ = tokio::time::timeout(SETTLE_LIMIT, flow.settled()).await;
            let _ = inputs.send(Input::Settled).await;
        });
        Ok(())
    }

    /// What was open at the slot has been resolved, or waited for long enough.
    pub(super) async fn settled(&mut self) {
        if !matches!(self.machine.phase(), Phase::Switching) || self.stopped_at.is_some() {
            return;
        }
        if let Err(error) = self.open_valve().await {
            warn!(id = %self.spec.migration_id, %error, "source QEMU");
            let failed = Event::QemuFailed(error.to_string());
            let _ = self.inputs.try_send(Input::Event(failed));
        }
    }

    /// What the VM's stop must not wait for, and has not been supplied yet, goes out.
    pub(super) async fn supply_due(&self) {
        let due = self.flow.take_due();
        if !due.is_empty() {
            debug!(id = %self.spec.migration_id, references = due.len(), "supplied unasked");
            let _ = self.orders.send(Order::SupplyUnasked(due)).await;
        }
    }

    pub(super) async fn open_valve(&mut self) -> Result<(), QmpError> {
        let Some(rest) = self.last_rest(Share::First) else { return Ok(()) };
        self.valve_open = true;
        if self.facts.as_ref().is_some_and(|facts| facts.valve == Valve::SwitchoverAck) {
            // Before the limit: a QEMU that waits for it would look for dirty pages within the limit, again and again.
            self.write_return_path(&SWITCHOVER_ACK).await;
        }
        self.later(SHARE_TIMEOUT, Input::LargerShare);
        self.parts.qmp.allow_rest(rest).await
    }
}
