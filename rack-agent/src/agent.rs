//! The agent itself: what it knows, and how it obeys.
//!
//! Orders are carried out in tasks of their own; those of one migration find each other by its id. Everything that
//! decides about ownership is in the sessions' state machines and in the coordinator; nothing here does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rackferry_dedup_index::DomainKey;
use rackferry_migrator::pace::Pace;
use rackferry_migrator::rack::{Member, Rack};
use rackferry_migrator::{source, target};
use rackferry_proto::v1;
use rackferry_proto::v1::connect_request::Message as Up;
use rackferry_proto::v1::connect_response::Message as Down;
use rackferry_tls::Tls;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::checks::{self, Programs};
use crate::config::Config;
use crate::control::{Outbox, name_of};
use crate::moves;
use crate::vm::VmManager;
use crate::wire;

/// One MiB.
const MIB: usize = 1 << 20;

/// A VM that is to arrive; its source has not called yet.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The order that made it.
    pub order: v1::PrepareTarget,
}

/// What is under way on this host.
#[derive(Debug, Default)]
struct Moves {
    /// Source sessions by migration.
    sources: HashMap<String, mpsc::Sender<source::Command>>,
    /// Target sessions by migration.
    targets: HashMap<String, mpsc::Sender<target::Command>>,
    /// VMs prepared, by session number.
    expected: HashMap<u64, Expected>,
    /// Numbers of guest memories in the content store, by VM.
    memories: HashMap<String, u32>,
    /// What source sessions have asked the coordinator and wait for, by migration.
    requests: HashMap<String, Up>,
    /// What source sessions may send, by migration; known before they begin.
    paces: HashMap<String, Arc<Pace>>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    boot_id: String,
    vms: VmManager,
    outbox: Outbox,
    tls: Option<Tls>,
    rack: OnceLock<Arc<Rack>>,
    /// Held for look-ups only.
    moves: Mutex<Moves>,
    connected: AtomicBool,
    programs: Programs,
}

/// The agent. Clones share it.
#[derive(Debug, Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

impl Agent {
    /// An agent that has not met the coordinator yet.
    pub fn new(config: Config, vms: VmManager, outbox: Outbox, tls: Option<Tls>) -> Self {
        let inner = Inner {
            config,
            boot_id: uuid::Uuid::new_v4().to_string(),
            vms,
            outbox,
            tls,
            rack: OnceLock::new(),
            moves: Mutex::default(),
            connected: AtomicBool::new(false),
            programs: Programs::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Its VMs.
    pub fn vms(&self) -> &VmManager {
        &self.inner.vms
    }

    /// QEMUs of this host, and what they can.
    pub fn programs(&self) -> &Programs {
        &self.inner.programs
    }

    /// Its certificates, unless TLS is off.
    pub fn tls(&self) -> Option<&Tls> {
        self.inner.tls.as_ref()
    }

    /// Where messages to the coordinator go.
    pub fn outbox(&self) -> &Outbox {
        &self.inner.outbox
    }

    /// The rack; none before the coordinator's welcome.
    pub fn rack(&self) -> Option<&Arc<Rack>> {
        self.inner.rack.get()
    }

    /// Rises whenever a report would say something new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.vms.changes()
    }

    /// Is the coordinator's stream up?
    pub fn is_connected(&self) -> bool {
        self.inner.connected.load(Ordering::Relaxed)
    }

    /// Notes whether the coordinator's stream is up.
    pub fn set_connected(&self, connected: bool) {
        self.inner.connected.store(connected, Ordering::Relaxed);
    }

    fn moves(&self) -> MutexGuard<'_, Moves> {
        self.inner.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// First message of a stream.
    pub async fn hello(&self) -> v1::Hello {
        let config = self.config();
        v1::Hello {
            host: config.host.clone(),
            rack: config.rack.clone(),
            page_addr: config.page_addr().to_string(),
            memory_bytes: config.guest_memory_mib * MIB as u64,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.inner.boot_id.clone(),
            vms: self.inner.vms.list().await.into_iter().map(wire::vm_state).collect(),
        }
    }

    /// Everything there is on this host.
    pub async fn report(&self) -> v1::HostReport {
        v1::HostReport {
            memory_free_bytes: self.inner.vms.memory_free_bytes(),
            vms: self.inner.vms.list().await.into_iter().map(wire::vm_state).collect(),
        }
    }

    /// Carries out an order of the coordinator; what takes time goes on in a task.
    pub fn obey(&self, order: Down) {
        debug!(order = name_of(&order), "order");
        match order {
            Down::Welcome(welcome) => self.welcome(&welcome),
            Down::RackView(view) => self.rack_view(&view),
            Down::PrepareTarget(order) => {
                tokio::spawn(moves::prepare_target(self.clone(), order));
            }
            Down::StartSource(order) => {
                self.pace_of(&order.migration_id).set(order.bytes_per_second);
                tokio::spawn(moves::start_source(self.clone(), order));
            }
            Down::SetRate(order) => {
                if let Some(pace) = self.moves().paces.get(&order.migration_id) {
                    pace.set(order.bytes_per_second);
                }
            }
            Down::SwitchoverGrant(grant) => {
                self.answered(&grant.migration_id);
                self.tell_source(&grant.migration_id, source::Command::SlotGranted);
            }
            Down::CommitDecision(d) => {
                self.answered(&d.migration_id);
                let decision = source::Command::Decision { granted: d.granted, reason: d.reason };
                self.tell_source(&d.migration_id, decision);
            }
            Down::Cancel(cancel) => {
                self.tell_source(&cancel.migration_id, source::Command::Cancel(cancel.reason));
            }
            Down::HurrySource(order) => {
                self.tell_source(&order.migration_id, source::Command::Hurry);
            }
            Down::ResumeTarget(order) => {
                if !self.tell_target(&order.migration_id, target::Command::Resume) {
                    tokio::spawn(moves::resume_loaded(self.clone(), order));
                }
            }
            Down::DiscardTarget(order) => {
                let discard = target::Command::Discard(order.reason.clone());
                if !self.tell_target(&order.migration_id, discard) {
                    tokio::spawn(moves::discard(self.clone(), order.migration_id));
                }
            }
            Down::ReleaseSource(order) => {
                tokio::spawn(moves::release_source(self.clone(), order));
            }
            Down::CheckSource(order) => {
                tokio::spawn(checks::check_source(self.clone(), order));
            }
            Down::CheckTarget(order) => {
                tokio::spawn(checks::check_target(self.clone(), order));
            }
        }
    }

    fn welcome(&self, welcome: &v1::Welcome) {
        let Ok(key) = <[u8; 32]>::try_from(welcome.domain_key.as_slice()) else {
            warn!("the coordinator's domain key is not 32 bytes long: no page can be hashed");
            return;
        };
        let config = self.config();
        let (index, content) = (config.index_mib * MIB, config.content_mib * MIB);
        let tls = self.inner.tls.clone();
        let make = || Arc::new(Rack::new(welcome.host_id, &DomainKey(key), index, content, tls));
        let rack = self.inner.rack.get_or_init(make);
        if rack.own_host != welcome.host_id {
            warn!(
                was = rack.own_host,
                is = welcome.host_id,
                "the coordinator has renumbered this host: restart the agent"
            );
        }
    }

    fn rack_view(&self, view: &v1::RackView) {
        let Some(rack) = self.rack() else { return };
        let member = |m: &v1::RackMember| Member {
            host_id: m.host_id,
            host: m.host.clone(),
            page_addr: m.page_addr.clone(),
        };
        let members: Vec<Member> = view.members.iter().map(member).collect();
        debug!(epoch = view.epoch, members = members.len(), "rack view");
        rack.set_members(&members);
        rack.shard.retain_crossings(&view.open_crossings);
    }

    /// Sends a command to a source session; false if there is none.
    pub fn tell_source(&self, migration_id: &str, command: source::Command) -> bool {
        let sender = self.moves().sources.get(migration_id).cloned();
        sender.is_some_and(|s| s.try_send(command).is_ok())
    }

    fn tell_target(&self, migration_id: &str, command: target::Command) -> bool {
        let sender = self.moves().targets.get(migration_id).cloned();
        sender.is_some_and(|s| s.try_send(command).is_ok())
    }

    /// A source session begins; false if that migration has one already.
    pub fn source_begins(
        &self,
        migration_id: &str,
        commands: mpsc::Sender<source::Command>,
    ) -> bool {
        let mut moves = self.moves();
        let fresh = !moves.sources.contains_key(migration_id);
        if fresh {
            moves.sources.insert(migration_id.to_owned(), commands);
        }
        fresh
    }

    /// A source session is over.
    pub fn source_ends(&self, migration_id: &str) {
        let mut moves = self.moves();
        moves.sources.remove(migration_id);
        moves.requests.remove(migration_id);
        moves.paces.remove(migration_id);
    }

    /// What a source session may send.
    pub fn pace_of(&self, migration_id: &str) -> Arc<Pace> {
        self.moves().paces.entry(migration_id.to_owned()).or_default().clone()
    }

    /// Asks the coordinator something that a source session waits for. Question and answer may be lost with the
    /// stream or with the coordinator, so it is asked again on every new stream until it is answered.
    pub fn ask(&self, migration_id: &str, request: Up) {
        self.moves().requests.insert(migration_id.to_owned(), request.clone());
        self.tell(request);
    }

    fn answered(&self, migration_id: &str) {
        self.moves().requests.remove(migration_id);
    }

    /// What has been asked and not answered.
    pub fn open_requests(&self) -> Vec<Up> {
        self.moves().requests.values().cloned().collect()
    }

    /// Does a target session of this migration live?
    pub fn receives(&self, migration_id: &str) -> bool {
        self.moves().targets.contains_key(migration_id)
    }

    /// A target session begins.
    pub fn target_begins(&self, migration_id: &str, commands: mpsc::Sender<target::Command>) {
        self.moves().targets.insert(migration_id.to_owned(), commands);
    }

    /// A target session is over.
    pub fn target_ends(&self, migration_id: &str) {
        self.moves().targets.remove(migration_id);
    }

    /// A VM is ready to arrive with this session.
    pub fn expect(&self, expected: Expected) {
        self.moves().expected.insert(expected.order.session, expected);
    }

    /// The source of a session calls: what was prepared for it? Each session is answered once.
    pub fn take_expected(&self, session: u64) -> Option<Expected> {
        self.moves().expected.remove(&session)
    }

    /// Forgets what was prepared for a migration; returns the VM's name if there was anything.
    pub fn forget_expected(&self, migration_id: &str) -> Option<String> {
        let mut moves = self.moves();
        let found = moves.expected.iter().find(|(_, e)| e.order.migration_id == migration_id);
        let session = found.map(|(session, _)| *session)?;
        moves.expected.remove(&session).map(|e| e.order.vm)
    }

    /// A VM's memory is in the content store under this number.
    pub fn memory_added(&self, vm: &str, id: u32) {
        if let Some(old) = self.moves().memories.insert(vm.to_owned(), id) {
            self.drop_memory(old);
        }
    }

    /// A VM's memory goes away: its contents are no longer on offer, and nothing keeps its bytes.
    pub fn memory_gone(&self, vm: &str) {
        let id = self.moves().memories.remove(vm);
        if let Some(id) = id {
            self.drop_memory(id);
        }
    }

    fn drop_memory(&self, id: u32) {
        if let Some(rack) = self.rack() {
            rack.store.remove_memory(id);
        }
    }

    /// Tells the coordinator something.
    pub fn tell(&self, message: Up) {
        self.inner.outbox.send(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{ManagerConfig, Qemu};

    const ID: &str = "mig-1";

    fn slot() -> Up {
        let request = v1::SwitchoverRequest { migration_id: ID.into(), predicted_stop_ms: 9 };
        Up::SwitchoverRequest(request)
    }

    async fn agent(state_dir: &std::path::Path) -> (Agent, mpsc::Receiver<Up>) {
        let file = state_dir.join("agent.toml");
        let text = format!(
            "host = 'h'\nrack = 'r'\ncoordinator = 'http://[::1]:1'\nlisten = '[::1]:1'\n\
             state_dir = '{}'\nguest_memory_mib = 1\n",
            state_dir.display()
        );
        std::fs::write(&file, text).unwrap();
        let manager = ManagerConfig {
            state_dir: state_dir.to_owned(),
            memory_ceiling_bytes: 1 << 20,
            qemu: Qemu::default(),
            preallocate: None,
        };
        let (vms, _) = VmManager::open(manager).await.unwrap();
        let (outbox, messages) = Outbox::new();
        (Agent::new(Config::load(&file).unwrap(), vms, outbox, None), messages)
    }

    #[tokio::test]
    async fn a_question_stays_open_until_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, mut messages) = agent(folder.path()).await;
        agent.ask(ID, slot());
        assert_eq!(messages.recv().await, Some(slot()));
        assert_eq!(agent.open_requests(), [slot()], "it is asked again on a new stream");
        agent.obey(Down::SwitchoverGrant(v1::SwitchoverGrant { migration_id: ID.into() }));
        assert!(agent.open_requests().is_empty());
    }

    #[tokio::test]
    async fn a_rate_is_known_before_its_session_begins_and_forgotten_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, _messages) = agent(folder.path()).await;
        let rate = |bytes_per_second| {
            Down::SetRate(v1::SetRate { migration_id: ID.into(), bytes_per_second })
        };
        agent.obey(rate(7));
        assert_eq!(agent.pace_of(ID).get(), None, "of no session");
        agent.obey(rate(8));
        assert_eq!(agent.pace_of(ID).get(), Some(8));
        agent.source_ends(ID);
        assert_eq!(agent.pace_of(ID).get(), None);
    }

    #[tokio::test]
    async fn a_session_that_is_over_asks_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, _messages) = agent(folder.path()).await;
        agent.ask(ID, slot());
        agent.source_ends(ID);
        assert!(agent.open_requests().is_empty());
    }
}
