//! What comes in, and what goes out.

use rackferry_migrator_protocol::session::source::Outcome;

use crate::{Act, Carried, HostName, MigrationId, SourceCommand};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<C: Carried> {
    /// The coordinator has given this host its number: sessions may begin.
    Welcomed,
    /// An order of the coordinator.
    Ordered(Order<C>),
    /// A stream to a coordinator is being opened: what is told from now on is not in its first message.
    Dialling,
    /// The coordinator takes the stream.
    Connected,
    /// The stream is gone.
    Disconnected,
    /// The list of VMs has changed.
    Changed,
    /// Time has passed.
    Tick,
    /// A report was sent.
    Reported,
    /// The source of a session calls.
    Called {
        /// The migration.
        migration: MigrationId,
        /// Its session.
        session: u64,
        /// The generation the target will own with.
        generation: u64,
        /// The host in the caller's certificate; none without TLS.
        caller: Option<HostName>,
    },
    /// [`Effect::Prepare`] is done, or why not.
    Prepared(MigrationId, Result<(), String>),
    /// [`Effect::Act`] is done, or why not; false: there was no such VM.
    Acted(Act, Result<bool, String>),
    /// A source session says something.
    SourceSaid(MigrationId, SourceWord<C>),
    /// A source session is over.
    SourceOver(MigrationId, Outcome, Option<C::Figures>),
    /// A target session is over.
    TargetOver(MigrationId, TargetEnd),
    /// A target session did not take a command: it is about to end.
    Undelivered(MigrationId, TargetCommand),
    /// A check is done.
    Checked(C::Findings),
}

/// An order of the coordinator. Each may come more than once, and late.
#[derive(Clone, Debug, PartialEq)]
pub enum Order<C: Carried> {
    /// Make everything ready for a VM to arrive.
    PrepareTarget {
        /// The migration.
        migration: MigrationId,
        /// Number of the session its source will call with.
        session: u64,
        /// The generation it will own with.
        generation: u64,
        /// The host that it comes from; none if an older coordinator did not say.
        source: Option<HostName>,
        /// How.
        prepare: C::Prepare,
    },
    /// Move a VM away.
    StartSource {
        /// The migration.
        migration: MigrationId,
        /// The VM.
        vm: String,
        /// The generation the target will own with.
        generation: u64,
        /// What it may send, bytes per second; none: as fast as it can.
        rate: Option<u64>,
        /// How.
        start: C::Start,
    },
    /// What a source may send from now on.
    SetRate(MigrationId, Option<u64>),
    /// Stop the VM soon, for as long as it takes.
    ForceSwitchover(MigrationId),
    /// The VM may stop now.
    SwitchoverGrant(MigrationId),
    /// The answer to a commit request.
    CommitDecision {
        /// The migration.
        migration: MigrationId,
        /// The commit is durable.
        granted: bool,
        /// Why not.
        reason: String,
    },
    /// Stop moving; the VM stays.
    Cancel(MigrationId, String),
    /// Run the VM, with this generation.
    ResumeTarget(MigrationId, u64),
    /// Remove the incoming copy.
    DiscardTarget(MigrationId, String),
    /// A VM died where it belongs, with this generation: it takes part in the migration no more.
    KeepDead(MigrationId, u64),
    /// Remove what is left of a dead VM.
    Forget(String),
    /// Remove the copy that moved out, or run it again.
    ReleaseSource {
        /// The migration it moved out with.
        migration: MigrationId,
        /// The generation that decides.
        generation: u64,
        /// Run it again.
        resume: bool,
    },
}

/// What the shell must do, in this order. Each may take its time unless it says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<C: Carried> {
    /// Make memory and a QEMU for a VM that arrives, as [`crate::preparation`] says; [`Event::Prepared`] follows.
    Prepare(MigrationId, C::Prepare),
    /// Do this to a VM; [`Event::Acted`] follows.
    Act(Act),
    /// Run a source session, no faster than this. It takes commands at once; [`Event::SourceOver`] follows.
    Send(MigrationId, Option<u64>, C::Start),
    /// Run a target session with the caller. It takes commands at once; [`Event::TargetOver`] follows.
    Receive(MigrationId, C::Prepare),
    /// The caller is not the one that is expected: hang up.
    Refuse(MigrationId),
    /// Tell a source session.
    TellSource(MigrationId, SourceCommand),
    /// Tell a target session; [`Event::Undelivered`] if it does not take it.
    TellTarget(MigrationId, TargetCommand),
    /// What a source session may send.
    SetRate(MigrationId, Option<u64>),
    /// Remove what is left of a VM that is dead and takes part in no migration.
    Forget(String),
    /// List every VM for the coordinator; [`Event::Reported`] follows.
    Report,
    /// End the stream: the first message of the next says how everything is.
    RestartStream,
}

/// What a target session is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetCommand {
    /// Ownership has passed, with this generation, and the source is stopped for good: run.
    Resume(u64),
    /// The move is off.
    Discard(String),
}

/// What a source session says.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceWord<C: Carried> {
    /// A switchover slot is wanted.
    AskSlot,
    /// May ownership pass?
    AskCommit,
    /// The source QEMU cannot run any more.
    Stopped,
    /// How far it is.
    Progress(C::Progress),
}

/// How a target session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetEnd {
    /// The VM runs here.
    Running,
    /// The incoming QEMU must be killed.
    Discard(String),
    /// Everything is loaded and paused; the coordinator says what becomes of it.
    LeftLoaded,
    /// QEMU refused to run the VM.
    Stuck(String),
    /// The caller was gone, or the VM, before anything was received.
    NotBegun,
}
