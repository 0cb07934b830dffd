//! What every part of the agent shares: its settings, its VMs, its rack, and the way to the task that keeps its rules.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use rackferry_agent_core as core;
use rackferry_dedup_index::DomainKey;
use rackferry_migrator::conn::Framed;
use rackferry_migrator::rack::{Member, Rack};
use rackferry_proto::v1;
use rackferry_tls::{Admission, Tls};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::config::Config;
use crate::convert::{self, Wire};
use crate::expelled::ExpelledList;
use crate::preflight::{Model, Models, Programs};
use crate::storage::Storage;
use crate::vm::{Needs, VmManager, VmSpec, VmState, VmSummary};

/// One MiB.
const MIB: usize = 1 << 20;

/// Inputs that wait for the agent's task: it never waits itself, so there are never more than a handful.
const INPUTS: usize = 256;

/// What wakes the agent's task.
#[derive(Debug)]
pub enum Input {
    /// An event for the agent's rules.
    Event(core::Event<Wire>),
    /// The source of a session calls.
    Called {
        /// The migration.
        migration: core::MigrationId,
        /// The session's number.
        session: u64,
        /// The generation the target will own with.
        generation: u64,
        /// The host in the source's certificate; none without TLS.
        caller: Option<core::HostName>,
        /// The connection that the source has made.
        framed: Box<Framed>,
    },
}

#[derive(Debug)]
struct Inner {
    config: Config,
    boot_id: String,
    vms: VmManager,
    inputs: mpsc::Sender<Input>,
    tls: Option<Tls>,
    admission: Admission,
    expelled: Option<Arc<ExpelledList>>,
    rack: OnceLock<Arc<Rack>>,
    /// Numbers of guest memories in the content store, by VM.
    memories: DashMap<String, u32>,
    connected: AtomicBool,
    programs: Programs,
    models: Models,
}

/// The agent. Clones share it.
#[derive(Debug, Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

impl Agent {
    /// Makes an agent that has not met the coordinator yet, and the queue of inputs for its task.
    ///
    /// # Errors
    /// If the list of expelled certificates cannot be read.
    pub fn new(
        config: Config,
        vms: VmManager,
        tls: Option<Tls>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Input>)> {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let list = |tls: &Tls| ExpelledList::open(tls.clone(), &config.state_dir);
        let expelled = tls.as_ref().map(list).transpose()?;
        let inner = Inner {
            programs: Programs::new(config.qemu_uids),
            models: Models::new(config.qemu_uids),
            admission: Admission::new(config.admission),
            expelled,
            config,
            boot_id: uuid::Uuid::new_v4().to_string(),
            vms,
            inputs,
            tls,
            rack: OnceLock::new(),
            memories: DashMap::new(),
            connected: AtomicBool::new(false),
        };
        Ok((Self { inner: Arc::new(inner) }, queue))
    }

    /// The agent's settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The VMs of this host.
    pub fn vms(&self) -> &VmManager {
        &self.inner.vms
    }

    /// QEMUs of this host, and what they can.
    pub fn programs(&self) -> &Programs {
        &self.inner.programs
    }

    /// Names of the properties that the CPU of such a VM has here, by QEMU's word, sorted. Cancel safe.
    ///
    /// # Errors
    /// QEMU does not know the model, or does not answer.
    pub async fn cpu_properties(&self, needs: &Needs<'_>) -> anyhow::Result<Vec<String>> {
        let model = Model::of(needs, &self.config().qemu);
        Ok(self.inner.models.get(self.storage(), &model).await?.to_vec())
    }

    /// The way to files that other hosts share.
    pub fn storage(&self) -> &Storage {
        self.inner.vms.storage()
    }

    /// The agent's certificates, unless TLS is off.
    pub fn tls(&self) -> Option<&Tls> {
        self.inner.tls.as_ref()
    }

    /// Which callers the page server takes.
    pub fn admission(&self) -> &Admission {
        &self.inner.admission
    }

    /// The agent's rack; none before the coordinator's welcome.
    pub fn rack(&self) -> Option<&Arc<Rack>> {
        self.inner.rack.get()
    }

    /// A number that rises whenever a report would say something new.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.vms.changes()
    }

    /// Whether the stream to the coordinator is up.
    pub fn is_connected(&self) -> bool {
        self.inner.connected.load(Ordering::Relaxed)
    }

    /// Notes whether the coordinator's stream is up.
    pub fn set_connected(&self, connected: bool) {
        self.inner.connected.store(connected, Ordering::Relaxed);
    }

    /// Wakes the agent's task.
    pub async fn input(&self, input: Input) {
        // It ends with the agent only.
        let _ = self.inner.inputs.send(input).await;
    }

    /// Tells the agent's task what happened.
    pub async fn happened(&self, event: core::Event<Wire>) {
        self.input(Input::Event(event)).await;
    }

    /// Makes the first message of a stream.
    pub async fn hello(&self) -> v1::Hello {
        let config = self.config();
        v1::Hello {
            host: config.host.clone(),
            rack: config.rack.clone(),
            page_addr: config.page_addr().to_string(),
            memory_bytes: config.guest_memory_mib * MIB as u64,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.inner.boot_id.clone(),
            installation_id: self.inner.vms.installation().to_owned(),
            vms: self.vm_states().await,
        }
    }

    /// All VMs of this host, as the coordinator wants to see them. What their CPUs have is told as soon as it is known.
    async fn vm_states(&self) -> Vec<v1::VmState> {
        let list = self.inner.vms.list().await;
        list.into_iter()
            .map(|vm| {
                let cpu_properties = self.known_properties(&vm);
                v1::VmState { cpu_properties, ..convert::vm_state(vm) }
            })
            .collect()
    }

    fn known_properties(&self, vm: &VmSummary) -> Vec<String> {
        let spec = match VmSpec::parse(&vm.spec_toml) {
            Ok(spec) if vm.run_state == VmState::Running && spec.attach().is_none() => spec,
            _ => return Vec::new(),
        };
        let model = Model::of(&spec.needs(), &self.config().qemu);
        if let Some(known) = self.inner.models.last(&model) {
            return known.to_vec();
        }
        let agent = self.clone();
        tokio::spawn(async move {
            // Not known is told as nothing; it is asked for again with the next report.
            let _ = agent.inner.models.get(agent.storage(), &model).await;
        });
        Vec::new()
    }

    /// Makes a report of all VMs of this host.
    pub async fn report(&self) -> v1::HostReport {
        v1::HostReport {
            memory_free_bytes: self.inner.vms.memory_free_bytes(),
            vms: self.vm_states().await,
        }
    }

    /// Takes the number of this host from the coordinator. False: nothing can be hashed with the coordinator's key.
    pub fn welcome(&self, welcome: &v1::Welcome) -> bool {
        let Ok(key) = <[u8; 32]>::try_from(welcome.domain_key.as_slice()) else {
            warn!("the coordinator's domain key is not 32 bytes long: no page can be hashed");
            return false;
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
        true
    }

    /// Takes the list of expelled certificates from the coordinator.
    pub fn expelled(&self, list: v1::Expelled) {
        if let Some(expelled) = &self.inner.expelled {
            expelled.take(list);
        }
    }

    /// Takes the agents of the rack from the coordinator.
    pub fn rack_view(&self, view: &v1::RackView) {
        let Some(rack) = self.rack() else { return };
        let member = |m: &v1::RackMember| Member {
            host_id: m.host_id,
            host: m.host.clone(),
            page_addr: m.page_addr.clone(),
        };
        let members: Vec<Member> = view.members.iter().map(member).collect();
        debug!(epoch = view.epoch, members = members.len(), "rack view");
        rack.set_receivers(convert::receivers(view));
        rack.set_members(&members);
        rack.shard.retain_crossings(&view.open_crossings);
    }

    /// Notes that a VM's memory is in the content store under this number.
    pub fn memory_added(&self, vm: &str, id: u32) {
        if let Some(old) = self.inner.memories.insert(vm.to_owned(), id) {
            self.drop_memory(old);
        }
    }

    /// Drops a VM's memory from the content store: its contents are no longer on offer, and nothing keeps its bytes.
    pub fn memory_gone(&self, vm: &str) {
        if let Some((_, id)) = self.inner.memories.remove(vm) {
            self.drop_memory(id);
        }
    }

    fn drop_memory(&self, id: u32) {
        if let Some(rack) = self.rack() {
            rack.store.remove_memory(id);
        }
    }
}
