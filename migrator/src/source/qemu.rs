//! A source session and its QEMU: starting the migration, looking at the memory, the end of either kind.

use std::sync::Arc;
use std::time::Duration;

use rackferry_migrator_protocol::session::source::Event;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast::error::RecvError;
use tracing::debug;

use super::pump::Pump;
use super::{Input, Session, sampler};
use crate::memory::{GuestMemory, MemoryError};
use crate::qmp::{self, QmpError, RunState, SourceCaps};

/// QEMU connects to our socket at once when it is told to migrate.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

impl Session {
    /// Tells the machine what it needs to know of QEMU.
    pub(super) fn watch_qemu(&mut self, died: impl Future<Output = ()> + Send + 'static) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            died.await;
            let _ = inputs.send(Input::Event(Event::QemuDied)).await;
        });
        let (inputs, mut events) = (self.inputs.clone(), self.parts.qmp.events());
        self.tasks.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) if event.event == qmp::Event::Stop => {
                        let _ = inputs.send(Input::Event(Event::VmStopped)).await;
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    pub(super) async fn start_migrate(&mut self) -> Result<(), QmpError> {
        let qmp = self.parts.qmp.clone();
        let facts = self.facts.insert(qmp.check_can_migrate().await?);
        let (valve, rest) = (facts.valve, facts.holding(self.stop.limit_ms().into()));
        let auto_converge = self.auto_converge();
        let caps = SourceCaps { valve, rest, multifd_channels: None, auto_converge };
        let socket = self.spec.socket.clone();
        let failed = |source| QmpError::Connect { path: socket.path.clone(), source };
        let listener = socket.listen().map_err(failed)?;
        qmp.prepare_source(caps).await?;
        qmp.migrate(&socket.qemu_path).await?;
        let accepted = tokio::time::timeout(CONNECT_LIMIT, listener.accept()).await;
        let (stream, _) = accepted.unwrap_or_else(|e| Err(e.into())).map_err(failed)?;
        let (read, write) = stream.into_split();
        self.return_path = Some(write);
        let Some(out) = self.parsed.take() else { return Ok(()) };
        let (flow, counters, reading) =
            (self.flow.clone(), self.counters.clone(), self.reading.clone());
        let pump = Pump::new(read, flow, self.claiming(), counters, reading)
            .recording(self.recording.clone());
        let inputs = self.inputs.clone();
        self.pump = Some(self.tasks.spawn(async move {
            if let Err(error) = pump.run(out).await {
                let _ = inputs.send(Input::Event(Event::QemuFailed(error.to_string()))).await;
            }
        }));
        let sampler = sampler::Sampler {
            qmp,
            flow: self.flow.clone(),
            counters: self.counters.clone(),
            pace: self.parts.pace.clone(),
            inputs: self.inputs.clone(),
        };
        self.tasks.spawn(sampler.run());
        Ok(())
    }

    /// Hashes the memory of this side.
    pub(super) fn hash_memory(&mut self) {
        let rack = self.parts.rack.clone();
        self.look_at_memory(move |memory| Ok(Event::Hashed(rack.digest_memories(&[memory])?)));
    }

    /// Looks for pages that QEMU never sent as they are.
    pub(super) fn find_unsent(&mut self) {
        let recording = self.recording.clone();
        self.look_at_memory(move |memory| {
            let unsent = recording.map(|recorder| recorder.unsent(&memory)).transpose()?;
            Ok(Event::Recorded(unsent.unwrap_or_default()))
        });
    }

    fn look_at_memory(
        &mut self,
        look: impl FnOnce(Arc<GuestMemory>) -> Result<Event, MemoryError> + Send + 'static,
    ) {
        let (memory, inputs) = (self.parts.memory.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let event = match memory {
                None => Err("verify mode needs a VM whose memory this agent has mapped".to_owned()),
                Some(memory) => match tokio::task::spawn_blocking(move || look(memory)).await {
                    Ok(Ok(event)) => Ok(event),
                    Ok(Err(error)) => Err(format!("cannot hash guest memory: {error}")),
                    Err(error) => Err(format!("cannot hash guest memory: {error}")),
                },
            };
            let _ = inputs.send(Input::Event(event.unwrap_or_else(Event::Cancel))).await;
        });
    }

    /// Waits for QEMU's own word that it completed, for as long as it takes.
    pub(super) fn await_postmigrate(&mut self) {
        let (qmp, inputs) = (self.parts.qmp.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let event = loop {
                match qmp.wait_moved_out(Duration::from_secs(60)).await {
                    Ok(()) => break Event::Postmigrate,
                    Err(error @ QmpError::Ended { .. }) => {
                        break Event::QemuFailed(error.to_string());
                    }
                    // The process's end is told by its own watcher, a slow answer by the next round.
                    Err(_) if qmp.is_closed() => return,
                    Err(_) => {}
                }
            };
            let _ = inputs.send(Input::Event(event)).await;
        });
    }

    /// Closes QEMU's migration socket and waits until the VM is seen running again.
    pub(super) fn close_stream(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
        self.parsed = None;
        self.return_path = None;
        let (qmp, inputs) = (self.parts.qmp.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            loop {
                let _ = qmp.within(Duration::from_secs(2)).cancel().await;
                let over = qmp.wait_migration(Duration::from_secs(5), |s| s.is_final()).await;
                let state = qmp.run_state().await;
                let settled = matches!(over, Ok(_) | Err(QmpError::Ended { .. }));
                match state {
                    Ok(RunState::FinishMigrate | RunState::InMigrate | RunState::PostMigrate) => {}
                    Ok(_) if settled => break,
                    Err(_) if qmp.is_closed() => return,
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = inputs.send(Input::Event(Event::Resumed)).await;
        });
    }

    /// Writes to QEMU's return path. An error shows as the end of the stream as well.
    pub(super) async fn write_return_path(&mut self, bytes: &[u8]) {
        if let Some(path) = &mut self.return_path
            && let Err(error) = path.write_all(bytes).await
        {
            debug!(id = %self.spec.migration_id, %error, "return path");
        }
    }
}
