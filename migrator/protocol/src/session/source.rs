//! The source of a moving VM: everything up to the point of no return, and what is left to do after it.
//!
//! # The point of no return
//! It is [`Effect::ForwardShut`]. Until the source QEMU is told `SHUT(0)` it runs again by itself as soon as its
//! migration socket closes, so before that every failure rolls back; after that it never runs again by itself,
//! so from there on the state only moves forward and the coordinator's log decides (qemu-stream 6.3).
//!
//! # Why no two copies run
//! The target runs only on [`Effect::SendGo`] or on the coordinator's order; both need
//! [`Effect::AttestStopped`], which is emitted only in answer to [`Event::Postmigrate`] or [`Event::QemuDied`]
//! after a granted commit. The source resumes only by [`Effect::CloseStream`], which is never emitted after
//! `ForwardShut`. The four ways to lose a message or a process between the two are tests below.

/// What the session is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The target accepted the session.
    Accepted,
    /// The rest fits into the VM's limit: a slot should be asked for.
    Ready {
        /// How long the VM would be stopped, by the forecast.
        predicted_ms: u32,
    },
    /// The coordinator gave a switchover slot.
    SlotGranted,
    /// QEMU stopped the VM for the last pass.
    VmStopped,
    /// The target QEMU has loaded everything and is paused.
    Loaded {
        /// Digest of the target's memory, in verify mode.
        digest: Option<[u8; 32]>,
    },
    /// What QEMU's stream did not carry of the memory as it is now, in answer to [`Effect::FindUnsent`].
    Recorded(Unsent),
    /// Digest of this side's memory, in answer to [`Effect::HashMemory`].
    Hashed([u8; 32]),
    /// The coordinator's answer to [`Effect::AskCommit`].
    Decision {
        /// The commit is durable.
        granted: bool,
        /// Why not.
        reason: String,
    },
    /// The VM has been stopped for too long and the target has not loaded it.
    LoadOverdue,
    /// No answer from the coordinator for too long.
    DecisionOverdue,
    /// The source QEMU is in postmigrate: it cannot run by itself any more.
    Postmigrate,
    /// The source QEMU says its migration failed; the VM runs on at the source.
    QemuFailed(String),
    /// The source QEMU's process is gone.
    QemuDied,
    /// The VM is seen running at the source, in answer to [`Effect::CloseStream`].
    Resumed,
    /// The VM runs at the target.
    Running,
    /// The connection to the target broke.
    PeerLost(String),
    /// The target gave up.
    PeerAbort(String),
    /// An operator or the coordinator wants the move off.
    Cancel(String),
}

/// What the coordinator tells a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Here is the slot that was asked for.
    SlotGranted,
    /// The answer to a commit request.
    Decision {
        /// The commit is durable.
        granted: bool,
        /// Why not.
        reason: String,
    },
    /// Take the move back, if that is still possible.
    Cancel(String),
    /// Stop the VM as soon as its first pass is over, however long it is stopped then.
    ForceSwitchover,
}

/// Pages of the stopped VM's memory whose last content was never in QEMU's stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsent {
    /// How many.
    pub pages: u64,
    /// The first of them by number, in ascending order.
    pub first: Vec<u64>,
}

impl Unsent {
    /// Counts a page; it is named if fewer than `named` are.
    pub fn add(&mut self, page: u64, named: usize) {
        self.pages += 1;
        if self.first.len() < named {
            self.first.push(page);
        }
    }
}

/// What the shell has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start QEMU's migration into our socket.
    StartMigrate,
    /// Ask the coordinator for a switchover slot, now and then again until there is one.
    AskSlot {
        /// The forecast.
        predicted_ms: u32,
    },
    /// Let QEMU stop the VM.
    OpenValve,
    /// Hash the whole guest memory of this side.
    HashMemory,
    /// Find the pages of this side whose last content QEMU never sent: the memories differ.
    FindUnsent,
    /// Ask the coordinator to commit the new owner.
    AskCommit,
    /// Tell the source QEMU that the target has loaded: **no way back from here**.
    ForwardShut,
    /// Tell the coordinator that the source cannot run any more.
    AttestStopped,
    /// Tell the target to run the VM.
    SendGo,
    /// Tell the target that the move is off.
    SendAbort(String),
    /// Close QEMU's migration socket: the VM goes on at the source.
    CloseStream,
    /// End the source QEMU.
    QuitQemu,
    /// The session is over.
    Finish(Outcome),
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Runs at the target, the source is gone.
    Moved,
    /// Runs at the source, and why.
    RolledBack(String),
    /// The source QEMU died before the target had everything.
    VmLost(String),
    /// Stopped at the source after the commit; the coordinator's log decides where it goes on.
    Stopped(String),
}

/// Where the session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the target to accept.
    Connecting,
    /// Passes over the running VM's memory.
    Copying,
    /// Ready, waiting for a slot; copying goes on.
    AwaitingSlot,
    /// The valve is open: QEMU stops the VM, sends the rest, the target loads it.
    Switching,
    /// Verify mode: the digest of this side is awaited.
    Verifying {
        /// The target's.
        theirs: [u8; 32],
    },
    /// Verify mode: the digests differ, and the reason is looked for before the move is taken back.
    Differing,
    /// The coordinator was asked.
    Committing {
        /// The source QEMU's process is known to be dead.
        dead: bool,
    },
    /// SHUT(0) was forwarded; waiting until QEMU confirms that it stopped for good.
    Stopping {
        /// The target was lost meanwhile. The loss is told only once; Go would reach no peer.
        lost: Option<String>,
    },
    /// Go was sent.
    Handed {
        /// The source QEMU's process is known to be dead.
        dead: bool,
    },
    /// The stream was closed; waiting until the VM is seen running.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// Over.
    Ended,
}

/// The source's state machine.
#[derive(Debug)]
pub struct Source {
    phase: Phase,
    verify: bool,
}

impl Source {
    /// A session that has not connected yet. With `verify` the whole memory is compared before the commit.
    pub fn new(verify: bool) -> Self {
        Self { phase: Phase::Connecting, verify }
    }

    /// Where the session is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The switchover has begun: the session holds a slot, or QEMU did not wait for one.
    pub fn is_switching(&self) -> bool {
        !matches!(self.phase, Phase::Copying | Phase::AwaitingSlot)
    }

    /// The source QEMU will not run by itself any more.
    pub fn past_no_return(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Handed { .. })
    }

    /// Advances the session; the consequences are appended to `out`, nothing happens here. An event that has
    /// no meaning in the present phase (late, repeated) changes nothing.
    pub fn handle(&mut self, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::QemuDied => self.qemu_died(out),
            Event::QemuFailed(why) => self.qemu_failed(why, out),
            Event::PeerLost(why) => {
                self.lost(format!("connection to the target lost: {why}"), out);
            }
            Event::PeerAbort(why) => self.lost(format!("the target gave up: {why}"), out),
            Event::Cancel(why) => self.failed(why, out),
            Event::LoadOverdue => {
                if matches!(self.phase, Phase::Switching) {
                    self.failed("the target did not load the stopped VM in time".into(), out);
                }
            }
            Event::DecisionOverdue => {
                if matches!(self.phase, Phase::Committing { dead: false }) {
                    self.failed("no answer from the coordinator to the commit request".into(), out);
                }
            }
            event => self.forward(event, out),
        }
    }

    fn forward(&mut self, event: Event, out: &mut Vec<Effect>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Ended);
        self.phase = match (phase, event) {
            (Phase::Connecting, Event::Accepted) => {
                out.push(Effect::StartMigrate);
                Phase::Copying
            }
            (Phase::Copying, Event::Ready { predicted_ms }) => {
                out.push(Effect::AskSlot { predicted_ms });
                Phase::AwaitingSlot
            }
            // The coordinator that was asked may have been restarted; it takes a second question for the first.
            (Phase::AwaitingSlot, Event::Ready { predicted_ms }) => {
                out.push(Effect::AskSlot { predicted_ms });
                Phase::AwaitingSlot
            }
            (Phase::AwaitingSlot, Event::SlotGranted) => {
                out.push(Effect::OpenValve);
                Phase::Switching
            }
            // QEMU 7.2 completes by itself when nothing is dirty, valve or not.
            (Phase::Copying | Phase::AwaitingSlot, Event::VmStopped) => Phase::Switching,
            (Phase::Switching, Event::Loaded { digest }) => match digest {
                Some(theirs) if self.verify => {
                    out.push(Effect::HashMemory);
                    Phase::Verifying { theirs }
                }
                None if self.verify => {
                    self.phase = Phase::Switching;
                    return self.failed("the target did not send its memory digest".into(), out);
                }
                _ => {
                    out.push(Effect::AskCommit);
                    Phase::Committing { dead: false }
                }
            },
            (Phase::Verifying { theirs }, Event::Hashed(ours)) if ours != theirs => {
                out.push(Effect::FindUnsent);
                Phase::Differing
            }
            (Phase::Verifying { .. }, Event::Hashed(_)) => {
                out.push(Effect::AskCommit);
                Phase::Committing { dead: false }
            }
            (Phase::Differing, Event::Recorded(unsent)) => {
                self.phase = Phase::Differing;
                return self.failed(difference(&unsent), out);
            }
            (Phase::Committing { dead }, Event::Decision { granted, reason }) => {
                return self.decided(granted, dead, reason, out);
            }
            (Phase::Stopping { lost }, Event::Postmigrate) => handed(lost, false, out),
            (Phase::Handed { dead }, Event::Running) => {
                if !dead {
                    out.push(Effect::QuitQemu);
                }
                out.push(Effect::Finish(Outcome::Moved));
                Phase::Ended
            }
            (Phase::RollingBack { reason }, Event::Resumed) => {
                out.push(Effect::Finish(Outcome::RolledBack(reason)));
                Phase::Ended
            }
            (phase, _) => phase,
        };
    }

    fn decided(&mut self, granted: bool, dead: bool, reason: String, out: &mut Vec<Effect>) {
        self.phase = match (granted, dead) {
            (true, false) => {
                out.push(Effect::ForwardShut);
                Phase::Stopping { lost: None }
            }
            (true, true) => {
                out.extend([Effect::AttestStopped, Effect::SendGo]);
                Phase::Handed { dead: true }
            }
            (false, dead) => {
                self.phase = Phase::Committing { dead };
                return self.failed(format!("the coordinator refused the commit: {reason}"), out);
            }
        };
    }

    /// A failure that has nothing to do with the source QEMU's own health.
    fn failed(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Committing { dead: true } => {
                out.push(Effect::SendAbort(reason.clone()));
                out.push(Effect::Finish(Outcome::VmLost(reason)));
                Phase::Ended
            }
            // SHUT is out: only forward. Postmigrate will still be attested to the coordinator.
            phase @ Phase::Stopping { .. } => phase,
            Phase::Handed { .. } => {
                out.push(Effect::Finish(Outcome::Stopped(reason)));
                Phase::Ended
            }
            Phase::Connecting => {
                out.push(Effect::SendAbort(reason.clone()));
                out.push(Effect::Finish(Outcome::RolledBack(reason)));
                Phase::Ended
            }
            phase @ (Phase::RollingBack { .. } | Phase::Ended) => phase,
            _ => {
                out.extend([Effect::CloseStream, Effect::SendAbort(reason.clone())]);
                Phase::RollingBack { reason }
            }
        };
    }

    /// The target will not answer any more. Between SHUT and postmigrate that is kept for later.
    fn lost(&mut self, reason: String, out: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Stopping { lost } => *lost = Some(reason),
            _ => self.failed(reason, out),
        }
    }

    fn qemu_failed(&mut self, why: String, out: &mut Vec<Effect>) {
        let reason = format!("QEMU's migration failed: {why}");
        match self.phase {
            // SHUT(0) and a failure crossed: QEMU says itself that it did not complete.
            Phase::Stopping { .. } => {
                out.push(Effect::SendAbort(reason.clone()));
                out.push(Effect::Finish(Outcome::RolledBack(reason)));
                self.phase = Phase::Ended;
            }
            Phase::Handed { .. } => {}
            _ => self.failed(reason, out),
        }
    }

    fn qemu_died(&mut self, out: &mut Vec<Effect>) {
        let reason = "the source QEMU's process ended".to_owned();
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended) {
            // The target has everything: a dead source is as good as a stopped one.
            Phase::Committing { .. } => Phase::Committing { dead: true },
            Phase::Stopping { lost } => handed(lost, true, out),
            Phase::Handed { .. } => Phase::Handed { dead: true },
            Phase::Ended => Phase::Ended,
            _ => {
                out.push(Effect::SendAbort(reason.clone()));
                out.push(Effect::Finish(Outcome::VmLost(reason)));
                Phase::Ended
            }
        };
    }
}

/// What verify mode says of memories that differ: whose loss it is.
fn difference(unsent: &Unsent) -> String {
    let whose = if unsent.pages == 0 {
        "QEMU sent the last content of every page, so a page changed on its way".to_owned()
    } else {
        let mut named: Vec<String> = unsent.first.iter().map(|p| format!("{p:#x}")).collect();
        if (named.len() as u64) < unsent.pages {
            named.push("...".to_owned());
        }
        let (pages, named) = (unsent.pages, named.join(", "));
        format!("QEMU never sent the last content of {pages} pages of the VM's memory ({named})")
    };
    format!("guest memory differs between source and target: {whose}")
}

/// The source cannot run the VM any more; if the target cannot be told, the coordinator will.
fn handed(lost: Option<String>, dead: bool, out: &mut Vec<Effect>) -> Phase {
    out.extend([Effect::AttestStopped, Effect::SendGo]);
    match lost {
        None => Phase::Handed { dead },
        Some(reason) => {
            out.push(Effect::Finish(Outcome::Stopped(reason)));
            Phase::Ended
        }
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
