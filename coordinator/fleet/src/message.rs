//! What comes in (events) and what goes out (effects).

use crate::{
    BootId, Change, Connection, Counters, Crossing, Generation, HostId, HostName, Installation,
    MigrationId, MoveOptions, Outcome, RackName, RunState, VmName,
};

/// Something that happened at an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An agent opened a stream and introduced itself. Its list of VMs is complete: it is sent after the
    /// agent has looked for every QEMU it may have left behind.
    Connected(Connection, Hello),
    /// A stream is gone.
    Disconnected(Connection),
    /// An agent said something on its stream.
    Said(Connection, Said),
    /// Time has passed.
    Tick,
}

/// An agent introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its host.
    pub host: HostName,
    /// The rack of its host.
    pub rack: RackName,
    /// Where its pages are served.
    pub page_addr: String,
    /// The host's whole memory.
    pub memory_bytes: u64,
    /// Its version, for people.
    pub agent_version: String,
    /// Its start.
    pub boot: BootId,
    /// Its installation; none if it is from before these were told apart.
    pub installation: Option<Installation>,
    /// Every VM on the host.
    pub vms: Vec<VmReport>,
}

/// A VM as an agent sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmReport {
    /// Its name.
    pub name: VmName,
    /// Guest memory.
    pub memory_bytes: u64,
    /// What its QEMU does.
    pub run_state: RunState,
    /// The migration it takes part in, or took part in last.
    pub migration: Option<MigrationId>,
    /// Its QEMU.
    pub qemu_version: String,
    /// Its machine type.
    pub machine_type: String,
    /// How to start it elsewhere; empty if the agent does not know.
    pub spec_toml: String,
    /// Its guest may have run on this host, so that other copies may be older. Agents before this was known say false.
    pub may_have_run: bool,
    /// The operator of its host has ended it. It is dead, and listed until the host is told to forget it.
    pub destroyed: bool,
    /// It is dead because its guest powered itself off.
    pub powered_off: bool,
    /// Properties that its CPU has where it is, sorted; empty: not known. A target that lacks one must not take it.
    pub cpu_properties: Vec<String>,
}

/// What an agent says after it introduced itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Everything on the host.
    Report {
        /// Memory it may hand out.
        memory_free_bytes: u64,
        /// Every VM.
        vms: Vec<VmReport>,
    },
    /// The target waits for the source.
    TargetReady(MigrationId),
    /// The source goes on.
    Progress(MigrationId, Progress),
    /// May ownership pass?
    CommitRequest(MigrationId, Generation),
    /// The source cannot run the VM any more.
    SourceStopped(MigrationId),
    /// The target runs the VM.
    TargetRunning(MigrationId),
    /// A session is over.
    Ended(MigrationId, SessionEnd),
    /// Nothing of this migration is left at the target.
    TargetDiscarded(MigrationId),
    /// The source wants to stop the VM.
    SwitchoverRequest(MigrationId),
}

/// How far a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// What it does.
    pub activity: Activity,
    /// Of the first pass, 0 to 1.
    pub pass1_ratio: f64,
    /// Of the pre-copy.
    pub round: u32,
    /// Left in this round.
    pub remaining_bytes: u64,
    /// How fast the guest writes.
    pub dirty_bytes_per_second: u64,
    /// How fast pages leave.
    pub send_bytes_per_second: u64,
    /// So far.
    pub counters: Counters,
    /// How long the VM would be stopped now; `u32::MAX`: not known.
    pub predicted_stop_ms: u32,
    /// How long it may be; `u32::MAX`: as long as it takes.
    pub stop_limit_ms: u32,
}

/// What a source does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Sends pages while the guest runs.
    #[default]
    Copying,
    /// Hashes the guest's memory.
    Verifying,
    /// Has let QEMU stop the guest.
    Switching,
}

/// How a session ended at one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// What became of the VM.
    pub outcome: Outcome,
    /// For people.
    pub reason: String,
    /// All in all.
    pub counters: Counters,
    /// QEMU's own figure.
    pub qemu_downtime_ms: u32,
    /// Until the target answered that it runs.
    pub blackout_ms: u32,
    /// Hex, verify mode only.
    pub memory_digest: String,
    /// Rolled back because the VM writes faster than is sent.
    pub not_converged: bool,
    /// The guest powered itself off.
    pub powered_off: bool,
}

/// What the shell must do, in this order: a `Persist` is durable before anything after it leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write these together.
    Persist(Vec<Change>),
    /// Tell the agent on this connection.
    Send(Connection, Order),
    /// What watchers see has changed.
    Publish,
    /// Tell the operator's log.
    Log(Notice),
}

/// What the operator's log should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A human must look.
    pub urgent: bool,
    /// What.
    pub text: String,
}

/// What an agent is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// It is accepted.
    Welcome(HostId),
    /// A VM died where it belongs: it takes part in the migration no more.
    KeepDead(MigrationId, Generation),
    /// Remove what is left of a VM that is dead and takes part in no migration.
    ForgetVm(VmName),
    /// The live agents of its rack.
    RackView {
        /// Rises with every change.
        epoch: u64,
        /// Those agents.
        members: Vec<Member>,
        /// Crossings that are not over; claims for all others are void.
        open: Vec<Crossing>,
    },
    /// Prepare to receive.
    PrepareTarget {
        /// The migration.
        migration: MigrationId,
        /// The VM.
        vm: VmName,
        /// The generation it will own with.
        generation: Generation,
        /// The host that it comes from.
        source: HostName,
        /// How to start it.
        spec_toml: String,
        /// Properties that its CPU has at its source.
        cpu_properties: Vec<String>,
        /// Guest memory.
        memory_bytes: u64,
        /// How to move.
        options: MoveOptions,
    },
    /// Move the VM.
    StartSource {
        /// The migration.
        migration: MigrationId,
        /// The VM.
        vm: VmName,
        /// The generation the target will own with.
        generation: Generation,
        /// What claims are kept for.
        crossing: Crossing,
        /// Where to.
        target: Member,
        /// How to move.
        options: MoveOptions,
        /// What it may send, bytes per second; none: as fast as it can.
        rate: Option<u64>,
    },
    /// What a source may send from now on, bytes per second; none: as fast as it can.
    SetRate(MigrationId, Option<u64>),
    /// Stop the VM soon, for as long as it takes.
    ForceSwitchover(MigrationId),
    /// The answer to a commit request.
    CommitDecision {
        /// The migration.
        migration: MigrationId,
        /// As asked.
        generation: Generation,
        /// Why not, or granted.
        refusal: Option<String>,
    },
    /// Stop moving; the VM stays.
    Cancel(MigrationId, String),
    /// Run the VM.
    ResumeTarget(MigrationId, Generation),
    /// Remove the incoming copy.
    DiscardTarget(MigrationId, String),
    /// The VM may stop now.
    SwitchoverGrant(MigrationId),
    /// Remove the copy that moved out, or run it again.
    ReleaseSource {
        /// The migration it moved out with.
        migration: MigrationId,
        /// The generation that decides.
        generation: Generation,
        /// Run it again.
        resume: bool,
    },
}

/// A live agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its host's number.
    pub id: HostId,
    /// Its host.
    pub host: HostName,
    /// Where its pages are served.
    pub page_addr: String,
    /// VMs are on their way to it: it may fetch contents from the others.
    pub receives: bool,
}
