//! The rules of one agent.

use std::collections::{BTreeMap, BTreeSet};

use rackferry_migrator_protocol::session::source;

use crate::sources::{Command, Sources, State};
use crate::stream::Stream;
use crate::targets::{Expected, Prepared, Targets};
use crate::{
    Act, Carried, Effect, End, Event, MigrationId, Moment, Order, Outcome, Question, Side,
    SourceCommand, SourceWord, TargetCommand, TargetEnd, What, Word,
};

/// What an agent knows, and how it obeys. It is lost with the agent's process.
#[derive(Debug)]
pub struct Core<C: Carried> {
    /// The coordinator has given this host its number.
    welcomed: bool,
    stream: Stream<C>,
    sources: Sources<C>,
    targets: Targets<C>,
    /// What is being done to VMs: the same is not begun twice.
    acting: BTreeSet<Act>,
    /// Ends of target sessions, said when their copies are gone.
    discarded: BTreeMap<MigrationId, String>,
}

impl<C: Carried + Clone> Core<C> {
    /// An agent that has not met the coordinator yet; so many words wait for a stream, usually [`crate::OUTBOX`].
    pub fn new(outbox_bound: usize) -> Self {
        Self {
            welcomed: false,
            stream: Stream::new(outbox_bound),
            sources: Sources::new(),
            targets: Targets::new(),
            acting: BTreeSet::new(),
            discarded: BTreeMap::new(),
        }
    }

    /// Takes an event; what is to be done about it is added to `out`.
    pub fn handle(&mut self, event: Event<C>, now: Moment, out: &mut Vec<Effect<C>>) {
        match event {
            Event::Welcomed => self.welcomed = true,
            Event::Ordered(order) => self.obey(order, out),
            Event::Dialling => self.stream.dialling(),
            Event::Connected => {
                if !self.stream.connected(now) {
                    self.restart_stream(out);
                }
            }
            Event::Disconnected => self.stream.disconnected(),
            Event::Changed => self.stream.changed(now),
            Event::Tick => {
                if self.stream.begins_report(now) {
                    out.push(Effect::Report);
                }
            }
            Event::Reported => self.stream.reported(now),
            Event::Called { migration, session, generation, caller } => {
                match self.targets.called(migration, session, generation, caller.as_ref()) {
                    Some(expected) => out.push(Effect::Receive(migration, expected.prepare)),
                    None => out.push(Effect::Refuse(migration)),
                }
            }
            Event::Prepared(migration, Ok(())) => self.prepared(migration, out),
            Event::Prepared(migration, Err(why)) => {
                if self.targets.not_prepared(migration) {
                    self.discard(migration, out);
                }
                self.end(migration, End::of(Side::Target, Outcome::RolledBack, why), out);
            }
            Event::Acted(act, result) => self.acted(act, result, out),
            Event::SourceSaid(migration, word) => self.source_said(migration, word, out),
            Event::SourceOver(migration, outcome, figures) => {
                self.source_over(migration, outcome, figures, out);
            }
            Event::TargetOver(migration, end) => self.target_over(migration, end, out),
            Event::Undelivered(migration, TargetCommand::Resume(generation)) => {
                self.act(migration, What::Resume(generation), out);
            }
            Event::Undelivered(migration, TargetCommand::Discard(_)) => {
                self.discard(migration, out);
            }
            Event::Checked(findings) => self.tell(Word::Findings(findings), out),
        }
    }

    /// The next word for the coordinator; none while there is no stream, or a report is being made.
    pub fn next_word(&mut self) -> Option<Word<C>> {
        self.stream.next_word()
    }

    /// Is there a word to send now?
    pub fn has_word(&self) -> bool {
        self.stream.has_word()
    }

    /// When [`Event::Tick`] is wanted next.
    pub fn deadline(&self) -> Option<Moment> {
        self.stream.report_at()
    }

    /// Migrations whose VMs leave.
    pub fn sources(&self) -> impl Iterator<Item = MigrationId> {
        self.sources.ids()
    }

    /// Migrations whose VMs are received.
    pub fn targets(&self) -> impl Iterator<Item = MigrationId> {
        self.targets.sessions()
    }

    /// Migrations whose sources may call.
    pub fn expected(&self) -> impl Iterator<Item = MigrationId> {
        self.targets.expected()
    }

    /// What was asked and not answered.
    pub fn questions(&self) -> &BTreeMap<MigrationId, Question> {
        self.stream.questions()
    }

    fn obey(&mut self, order: Order<C>, out: &mut Vec<Effect<C>>) {
        match order {
            Order::PrepareTarget { migration, session, generation, source, prepare } => {
                let expected = Expected { session, generation, source, prepare };
                self.prepare(migration, expected, out);
            }
            Order::StartSource { migration, vm, generation, rate, start } => {
                if self.sources.start(migration, generation, rate, start) {
                    self.leave(migration, vm, generation, out);
                }
            }
            Order::SetRate(migration, rate) => self.set_rate(migration, rate, out),
            Order::ForceSwitchover(migration) => {
                self.tell_source(migration, SourceCommand::ForceSwitchover, out);
            }
            Order::SwitchoverGrant(migration) => {
                self.stream.answered(migration);
                self.tell_source(migration, SourceCommand::SlotGranted, out);
            }
            Order::CommitDecision { migration, granted, reason } => {
                self.stream.answered(migration);
                self.tell_source(migration, SourceCommand::Decision { granted, reason }, out);
            }
            Order::Cancel(migration, why) => {
                self.tell_source(migration, SourceCommand::Cancel(why), out);
            }
            Order::ResumeTarget(migration, generation) => {
                if self.targets.receives(migration) {
                    out.push(Effect::TellTarget(migration, TargetCommand::Resume(generation)));
                } else {
                    self.act(migration, What::Resume(generation), out);
                }
            }
            Order::DiscardTarget(migration, why) => {
                if self.targets.receives(migration) {
                    out.push(Effect::TellTarget(migration, TargetCommand::Discard(why)));
                } else {
                    self.discard(migration, out);
                }
            }
            Order::KeepDead(migration, generation) => {
                self.act(migration, What::KeepDead(generation), out);
            }
            Order::Forget(vm) => out.push(Effect::Forget(vm)),
            Order::ReleaseSource { migration, resume: false, .. } => {
                self.act(migration, What::Release, out);
            }
            Order::ReleaseSource { migration, generation, resume: true } => {
                self.act(migration, What::TakeBack(generation), out);
            }
        }
    }

    fn prepare(&mut self, id: MigrationId, expected: Expected<C>, out: &mut Vec<Effect<C>>) {
        if !self.welcomed {
            let end = End::of(Side::Target, Outcome::RolledBack, NOT_WELCOMED);
            return self.end(id, end, out);
        }
        let prepare = expected.prepare.clone();
        if self.targets.prepare(id, expected) {
            out.push(Effect::Prepare(id, prepare));
        }
    }

    fn prepared(&mut self, migration: MigrationId, out: &mut Vec<Effect<C>>) {
        match self.targets.prepared(migration) {
            Some(Prepared::Ready) => self.tell(Word::TargetReady(migration), out),
            Some(Prepared::Unwanted) => self.discard(migration, out),
            None => {}
        }
    }

    /// Removes what is to arrive, as soon as it is there if it is being prepared, and says so also if there is nothing: that
    /// is what is asked.
    fn discard(&mut self, migration: MigrationId, out: &mut Vec<Effect<C>>) {
        self.targets.forget(migration);
        if planted!(DiscardedInPrepare) || !self.targets.unwanted(migration) {
            self.act(migration, What::Discard, out);
        }
    }

    fn leave(
        &mut self,
        migration: MigrationId,
        vm: String,
        generation: u64,
        out: &mut Vec<Effect<C>>,
    ) {
        if self.welcomed {
            self.act(migration, What::Leave { vm, generation }, out);
        } else {
            self.not_begun(migration, NOT_WELCOMED, out);
        }
    }

    fn not_begun(&mut self, id: MigrationId, why: impl Into<String>, out: &mut Vec<Effect<C>>) {
        self.sources.remove(id);
        self.end(id, End::of(Side::Source, Outcome::RolledBack, why), out);
    }

    fn set_rate(&mut self, id: MigrationId, new: Option<u64>, out: &mut Vec<Effect<C>>) {
        match self.sources.get_mut(id).map(|source| &mut source.state) {
            Some(State::Marking { rate, .. }) => *rate = new,
            Some(State::Running) => out.push(Effect::SetRate(id, new)),
            Some(State::Ending(_)) | None => {}
        }
    }

    fn tell_source(&mut self, id: MigrationId, command: SourceCommand, out: &mut Vec<Effect<C>>) {
        if let Command::Deliver(command) = self.sources.command(id, command) {
            out.push(Effect::TellSource(id, command));
        }
    }

    fn source_said(&mut self, id: MigrationId, word: SourceWord<C>, out: &mut Vec<Effect<C>>) {
        let Some(generation) = self.sources.get(id).map(|source| source.generation) else { return };
        match word {
            SourceWord::AskSlot => self.ask(id, Question::Slot, out),
            SourceWord::AskCommit => self.ask(id, Question::Commit { generation }, out),
            SourceWord::Stopped => self.tell(Word::SourceStopped(id, generation), out),
            SourceWord::Progress(progress) => self.tell(Word::Progress(id, progress), out),
        }
    }

    fn source_over(
        &mut self,
        migration: MigrationId,
        outcome: source::Outcome,
        figures: Option<C::Figures>,
        out: &mut Vec<Effect<C>>,
    ) {
        let Some(source) = self.sources.get_mut(migration) else { return };
        let (outcome, reason) = crate::word::outcome(outcome);
        source.state = State::Ending(End { side: Side::Source, outcome, reason, figures });
        match outcome {
            Outcome::Moved => self.act(migration, What::Release, out),
            Outcome::RolledBack => self.act(migration, What::Stay, out),
            // What died is the coordinator's to remove: the VM may have no other trace.
            Outcome::VmLost | Outcome::Stopped => self.source_ended(migration, out),
        }
    }

    /// What was left to do after a source session is done, as far as it can be.
    fn source_ended(&mut self, migration: MigrationId, out: &mut Vec<Effect<C>>) {
        let ending = |s: &crate::sources::Source<C>| matches!(s.state, State::Ending(_));
        if !self.sources.get(migration).is_some_and(ending) {
            return;
        }
        let source = self.sources.remove(migration);
        self.stream.answered(migration);
        if let Some(State::Ending(end)) = source.map(|source| source.state) {
            self.end(migration, end, out);
        }
    }

    fn target_over(&mut self, migration: MigrationId, end: TargetEnd, out: &mut Vec<Effect<C>>) {
        let Some(generation) = self.targets.over(migration) else { return };
        match end {
            TargetEnd::Running => self.act(migration, What::Own(generation), out),
            TargetEnd::Discard(why) => {
                self.discarded.insert(migration, why);
                self.discard(migration, out);
            }
            TargetEnd::NotBegun => self.discard(migration, out),
            // The coordinator sees it in the next report.
            TargetEnd::LeftLoaded => {}
            TargetEnd::Stuck(why) => {
                self.end(migration, End::of(Side::Target, Outcome::Stopped, why), out);
            }
        }
    }

    fn acted(&mut self, act: Act, result: Result<bool, String>, out: &mut Vec<Effect<C>>) {
        self.acting.remove(&act);
        let migration = act.migration;
        match (act.what, result) {
            (What::Leave { .. }, Ok(true)) => self.begin_source(migration, out),
            (What::Leave { vm, .. }, Ok(false)) => {
                self.not_begun(migration, format!("no VM {vm} on this host"), out);
            }
            (What::Leave { .. }, Err(why)) => self.not_begun(migration, why, out),
            (What::Stay | What::Release, _) => self.source_ended(migration, out),
            (What::Own(generation), _) | (What::Resume(generation), Ok(true)) => {
                self.tell(Word::TargetRunning(migration, generation), out);
            }
            (What::Discard, result) => {
                // A repeated order to prepare may have come in between: what that makes goes, too, before it is said.
                if self.targets.unwanted(migration) && !planted!(DiscardedInPrepare) {
                    return;
                }
                if result.is_ok() {
                    self.targets.forget(migration);
                    self.tell(Word::TargetDiscarded(migration), out);
                }
                if let Some(why) = self.discarded.remove(&migration) {
                    self.end(migration, End::of(Side::Target, Outcome::RolledBack, why), out);
                }
            }
            (What::Resume(_) | What::KeepDead(_) | What::TakeBack(_), _) => {}
        }
    }

    fn begin_source(&mut self, migration: MigrationId, out: &mut Vec<Effect<C>>) {
        if let Some((rate, start, early)) = self.sources.begin(migration) {
            out.push(Effect::Send(migration, rate, start));
            out.extend(early.into_iter().map(|one| Effect::TellSource(migration, one)));
        }
    }

    fn act(&mut self, migration: MigrationId, what: What, out: &mut Vec<Effect<C>>) {
        let act = Act { migration, what };
        if self.acting.insert(act.clone()) {
            out.push(Effect::Act(act));
        }
    }

    fn end(&mut self, migration: MigrationId, end: End<C>, out: &mut Vec<Effect<C>>) {
        self.tell(Word::Ended(migration, end), out);
    }

    fn ask(&mut self, id: MigrationId, question: Question, out: &mut Vec<Effect<C>>) {
        if !self.stream.ask(id, question) {
            self.restart_stream(out);
        }
    }

    fn tell(&mut self, word: Word<C>, out: &mut Vec<Effect<C>>) {
        if !self.stream.tell(word) {
            self.restart_stream(out);
        }
    }

    fn restart_stream(&mut self, out: &mut Vec<Effect<C>>) {
        self.stream.disconnected();
        out.push(Effect::RestartStream);
    }
}

const NOT_WELCOMED: &str = "this agent has not been welcomed by the coordinator yet";
