//! The target of a moving VM: receive, load, wait for ownership, run.
//!
//! While it receives, the source can run by itself, so a lost source means: kill the incoming QEMU. Once it has
//! loaded, a lost source means nothing is known, so the VM stays paused until the coordinator says what its log
//! says. It runs only on [`Event::Go`], which the source or the coordinator sends after the commit.
//!
//! Before it lets the guest run it writes that down, durably: a copy that is found dead later either never ran, and its
//! source may go on, or may have run, and its source's memory is old. The write begins as soon as everything is loaded, so
//! that it is usually done when Go comes.
//!
//! Verify mode hashes guest memory before QEMU gets the state of devices: loading that writes to guest memory (KVM puts
//! the wall clock there when its register is set), and the two sides would differ although every page came whole.

/// What the session is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All guest memory is in place, and the state of devices is held back from QEMU until [`Effect::PassOn`].
    Placed,
    /// The target QEMU sent SHUT(0) and is paused.
    QemuLoaded,
    /// Digest of this side's memory, in answer to [`Effect::HashMemory`].
    Hashed([u8; 32]),
    /// [`Effect::WriteAboutToRun`] is durable.
    AboutToRun,
    /// It could not be written.
    NotWritten(String),
    /// The target QEMU failed to load, or died.
    QemuFailed(String),
    /// Ownership has passed: run. From the source or from the coordinator, any number of times.
    Go,
    /// QEMU answered `cont`.
    Resumed,
    /// The connection to the source broke.
    PeerLost(String),
    /// The source says the move is off.
    PeerAbort(String),
    /// The coordinator says the move is off.
    Discard(String),
}

/// What the shell has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Hash the whole guest memory of this side.
    HashMemory,
    /// Give QEMU the state of devices, which was held back.
    PassOn,
    /// Write down, durably, that the guest may run here from now on.
    WriteAboutToRun,
    /// Tell the source that everything is loaded.
    SendLoaded(Option<[u8; 32]>),
    /// `cont`, then announce the VM to the network.
    Resume,
    /// Tell the source and the coordinator that the VM runs.
    SendRunning,
    /// Tell the source that this side gave up.
    SendAbort(String),
    /// Kill the incoming QEMU and free its memory, then tell the coordinator.
    Discard(String),
    /// The session is over; the QEMU stays as it is.
    Finish,
}

/// Where the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Pages and device state arrive.
    Receiving,
    /// Verify mode: the own digest is awaited, and QEMU has not got the state of devices.
    Hashing,
    /// Verify mode: the own digest is awaited, and QEMU has loaded everything: it read the pages itself.
    HashingLoaded,
    /// Paused with everything loaded; ownership is elsewhere.
    Loaded,
    /// Ownership has passed; that the guest may run is not written down yet.
    Going,
    /// `cont` was given.
    Resuming,
    /// Over.
    Ended,
}

/// The target's state machine.
#[derive(Debug)]
pub struct Target {
    phase: Phase,
    verify: bool,
    digest: Option<[u8; 32]>,
    /// It is written down that the guest may run.
    written: bool,
}

impl Target {
    /// A session whose QEMU waits for the stream.
    pub fn new(verify: bool) -> Self {
        Self { phase: Phase::Receiving, verify, digest: None, written: false }
    }

    /// Where the session is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Digest of this side's memory, once it is hashed.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.digest
    }

    /// Whether the state of devices is held back: nothing that follows it may be taken.
    pub fn holds_back(&self) -> bool {
        self.phase == Phase::Hashing
    }

    /// Advances the session; the consequences are appended to `out`.
    pub fn handle(&mut self, event: Event, out: &mut Vec<Effect>) {
        self.phase = match (self.phase, event) {
            (Phase::Ended, _) => Phase::Ended,
            (Phase::Receiving, Event::Placed) if self.verify => {
                out.push(Effect::HashMemory);
                Phase::Hashing
            }
            (Phase::Receiving, Event::Placed) => {
                out.push(Effect::PassOn);
                Phase::Receiving
            }
            (Phase::Hashing, Event::Hashed(digest)) => {
                self.digest = Some(digest);
                out.push(Effect::PassOn);
                Phase::Receiving
            }
            (Phase::Receiving, Event::QemuLoaded) if self.verify && self.digest.is_none() => {
                out.push(Effect::HashMemory);
                Phase::HashingLoaded
            }
            (Phase::Receiving, Event::QemuLoaded) => self.loaded(out),
            (Phase::HashingLoaded, Event::Hashed(digest)) => {
                self.digest = Some(digest);
                self.loaded(out)
            }
            (Phase::Loaded, Event::AboutToRun) => {
                self.written = true;
                Phase::Loaded
            }
            (Phase::Loaded, Event::Go) if !self.written => Phase::Going,
            (Phase::Loaded, Event::Go) | (Phase::Going, Event::AboutToRun) => {
                out.push(Effect::Resume);
                Phase::Resuming
            }
            (Phase::Resuming, Event::Resumed) => {
                out.extend([Effect::SendRunning, Effect::Finish]);
                Phase::Ended
            }
            (phase, event) => Self::broke(phase, event, out),
        };
    }

    /// What breaks the session, or its end by another's word.
    fn broke(phase: Phase, event: Event, out: &mut Vec<Effect>) -> Phase {
        let receiving = matches!(phase, Phase::Receiving | Phase::Hashing | Phase::HashingLoaded);
        match event {
            Event::PeerLost(why) if receiving => {
                let why = format!("connection to the source lost: {why}");
                out.extend([Effect::Discard(why), Effect::Finish]);
            }
            // Loaded, and the session does not know which host owns the VM: leave it paused, the coordinator asks.
            Event::PeerLost(_) if phase == Phase::Loaded => out.push(Effect::Finish),
            // It was never let run: the source may go on.
            Event::QemuFailed(why) if phase != Phase::Resuming => {
                let why = format!("the target QEMU failed in phase {phase:?}: {why}");
                discard(why, out);
            }
            // It may be the VM's only copy by now: the coordinator says what becomes of it, and has it tried again.
            Event::NotWritten(why) if matches!(phase, Phase::Loaded | Phase::Going) => {
                let why = format!("cannot write down that the VM may run here: {why}");
                out.extend([Effect::SendAbort(why), Effect::Finish]);
            }
            Event::PeerAbort(why) | Event::Discard(why) if receiving || phase == Phase::Loaded => {
                discard(why, out);
            }
            Event::QemuFailed(why) => out.extend([Effect::SendAbort(why), Effect::Finish]),
            _ => return phase,
        }
        Phase::Ended
    }

    fn loaded(&self, out: &mut Vec<Effect>) -> Phase {
        out.extend([Effect::WriteAboutToRun, Effect::SendLoaded(self.digest)]);
        Phase::Loaded
    }
}

fn discard(why: String, out: &mut Vec<Effect>) {
    out.extend([Effect::SendAbort(why.clone()), Effect::Discard(why), Effect::Finish]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drive(verify: bool, events: &[Event]) -> Vec<Effect> {
        let (mut target, mut out) = (Target::new(verify), Vec::new());
        events.iter().for_each(|e| target.handle(e.clone(), &mut out));
        out
    }

    #[test]
    fn a_move_takes_the_steps_in_order() {
        let events = [Event::QemuLoaded, Event::Hashed([7; 32]), Event::AboutToRun, Event::Go];
        let out = drive(true, &[&events[..], &[Event::Resumed]].concat());
        let loaded = Effect::SendLoaded(Some([7; 32]));
        let end = [Effect::Resume, Effect::SendRunning, Effect::Finish];
        assert_eq!(out[..3], [Effect::HashMemory, Effect::WriteAboutToRun, loaded]);
        assert_eq!(out[3..], end);
    }

    #[test]
    fn a_copy_runs_only_when_it_is_written_down() {
        let out = drive(false, &[Event::QemuLoaded, Event::Go]);
        assert_eq!(out, [Effect::WriteAboutToRun, Effect::SendLoaded(None)]);
        let out = drive(false, &[Event::QemuLoaded, Event::Go, Event::AboutToRun]);
        assert_eq!(out[2..], [Effect::Resume]);
    }

    /// It has not run. One that died lets its source go on; one that lives may be the only copy by now.
    #[test]
    fn a_copy_that_was_not_written_down_is_left_and_one_that_died_is_discarded() {
        for before in [&[Event::QemuLoaded][..], &[Event::QemuLoaded, Event::Go]] {
            let out = drive(false, &[before, &[Event::NotWritten("full".into())]].concat());
            assert!(matches!(out[2..], [Effect::SendAbort(_), Effect::Finish]), "{out:?}");
            let out = drive(false, &[before, &[Event::QemuFailed("died".into())]].concat());
            let end = &out[2..];
            assert!(
                matches!(end, [Effect::SendAbort(_), Effect::Discard(_), Effect::Finish]),
                "{out:?}"
            );
        }
    }

    #[test]
    fn memory_is_hashed_before_devices_are_loaded() {
        let out = drive(true, &[Event::Placed, Event::Hashed([7; 32]), Event::QemuLoaded]);
        let loaded = Effect::SendLoaded(Some([7; 32]));
        let about = Effect::WriteAboutToRun;
        assert_eq!(out, [Effect::HashMemory, Effect::PassOn, about, loaded]);
    }

    #[test]
    fn without_verification_nothing_is_held_back() {
        let (mut verifying, mut target) = (Target::new(true), Target::new(false));
        verifying.handle(Event::Placed, &mut Vec::new());
        let mut out = Vec::new();
        target.handle(Event::Placed, &mut out);
        assert_eq!((verifying.holds_back(), target.holds_back()), (true, false));
        target.handle(Event::QemuLoaded, &mut out);
        assert_eq!(out, [Effect::PassOn, Effect::WriteAboutToRun, Effect::SendLoaded(None)]);
    }

    #[test]
    fn a_copy_that_is_hashed_ends_with_its_source() {
        for before in [Event::Placed, Event::QemuLoaded] {
            let out = drive(true, &[before, Event::PeerLost("reset".into())]);
            assert!(
                matches!(out[..], [Effect::HashMemory, Effect::Discard(_), Effect::Finish]),
                "{out:?}"
            );
        }
    }

    #[test]
    fn a_lost_source_ends_the_copy_only_before_it_is_loaded() {
        let lost = Event::PeerLost("reset".into());
        assert!(matches!(
            drive(false, std::slice::from_ref(&lost))[..],
            [Effect::Discard(_), Effect::Finish]
        ));
        let out = drive(false, &[Event::QemuLoaded, lost]);
        assert_eq!(out, [Effect::WriteAboutToRun, Effect::SendLoaded(None), Effect::Finish]);
    }

    #[test]
    fn nothing_ends_a_copy_that_was_told_to_run() {
        for event in
            [Event::PeerLost("x".into()), Event::PeerAbort("x".into()), Event::Discard("x".into())]
        {
            let going = [Event::QemuLoaded, Event::Go, event, Event::AboutToRun, Event::Resumed];
            let out = drive(false, &going);
            assert!(!out.iter().any(|e| matches!(e, Effect::Discard(_))));
            assert!(out.contains(&Effect::SendRunning));
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Placed),
            Just(Event::QemuLoaded),
            Just(Event::Hashed([1; 32])),
            Just(Event::AboutToRun),
            Just(Event::NotWritten("x".into())),
            Just(Event::QemuFailed("x".into())),
            Just(Event::Go),
            Just(Event::Resumed),
            Just(Event::PeerLost("x".into())),
            Just(Event::PeerAbort("x".into())),
            Just(Event::Discard("x".into())),
        ]
    }

    proptest! {
        #[test]
        fn it_runs_only_after_loaded_and_go(events in prop::collection::vec(any_event(), 0..20), verify: bool) {
            let mut target = Target::new(verify);
            let (mut loaded, mut went, mut written, mut ends) = (false, false, false, 0);
            for event in events {
                went |= event == Event::Go;
                written |= loaded && event == Event::AboutToRun;
                let mut out = Vec::new();
                target.handle(event, &mut out);
                for effect in out {
                    match effect {
                        Effect::SendLoaded(_) => loaded = true,
                        Effect::Resume => prop_assert!(loaded && went && written),
                        Effect::Finish => ends += 1,
                        _ => {}
                    }
                }
            }
            prop_assert!(ends <= 1);
        }
    }
}
