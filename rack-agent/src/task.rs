//! The task that owns the agent's rules. It only chooses what comes next; the rules say what is done about it, and what
//! takes time is done in tasks of its own, which tell how it went.

use std::collections::HashMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rackferry_agent_core as core;
use rackferry_agent_core::{Core, Effect, Event, MigrationId, Moment, OUTBOX};
use rackferry_migrator::conn::Framed;
use rackferry_migrator::pace::Pace;
use rackferry_migrator::{source, target};
use rackferry_migrator_protocol::session::source::Outcome;
use rackferry_proto::v1;
use rackferry_proto::v1::connect_request::Message as Up;
use rackferry_proto::v1::connect_response::Message as Down;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::agent::{Agent, Input};
use crate::control::{Control, Happened, Sender, name_of};
use crate::convert::{self, Wire};
use crate::incarnation::Incarnation;
use crate::moves::{self, SESSION_QUEUE};
use crate::preflight;

/// A source session, as it is told things.
struct Source {
    commands: mpsc::Sender<source::Command>,
    pace: Arc<Pace>,
}

/// The task's state. Nothing else has any of it.
struct Task {
    agent: Agent,
    core: Core<Wire>,
    control: Control,
    inputs: mpsc::Receiver<Input>,
    changes: watch::Receiver<u64>,
    /// Where the stream that is up takes messages.
    up: Option<Sender>,
    /// The report that is being made.
    report: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Sessions by migration.
    sources: HashMap<MigrationId, Source>,
    targets: HashMap<MigrationId, mpsc::Sender<target::Command>>,
    /// The cluster that is followed.
    incarnation: Incarnation,
    began: Instant,
}

/// What comes next.
enum Next {
    Stream(Happened),
    Input(Input),
    Changed,
    Reported,
    /// A word can be sent.
    Writable(bool),
    Tick,
}

/// Runs until the agent ends.
///
/// # Errors
/// If it cannot be read which cluster of coordinators is followed.
pub async fn run(agent: Agent, inputs: mpsc::Receiver<Input>) -> anyhow::Result<()> {
    let mut task = Task {
        incarnation: Incarnation::open(&agent.config().state_dir)?,
        core: Core::new(OUTBOX),
        control: Control::new(agent.clone()),
        inputs,
        changes: agent.changes(),
        up: None,
        report: None,
        sources: HashMap::new(),
        targets: HashMap::new(),
        began: Instant::now(),
        agent,
    };
    loop {
        let next = task.next().await;
        task.apply(next);
    }
}

impl Task {
    async fn next(&mut self) -> Next {
        let deadline = self.core.deadline().map(|at| self.began + Duration::from_nanos(at.0));
        let writable = self.up.as_ref().filter(|_| self.core.has_word());
        tokio::select! {
            happened = self.control.next() => Next::Stream(happened),
            Some(input) = self.inputs.recv() => Next::Input(input),
            Ok(()) = self.changes.changed() => Next::Changed,
            () = made(&mut self.report) => Next::Reported,
            open = room(writable) => Next::Writable(open),
            () = until(deadline) => Next::Tick,
        }
    }

    fn apply(&mut self, next: Next) {
        match next {
            Next::Stream(Happened::Dialling) => self.handle(Event::Dialling, None),
            Next::Stream(Happened::Connected(up)) => {
                self.up = Some(up);
                self.handle(Event::Connected, None);
            }
            Next::Stream(Happened::Ordered(order)) => self.ordered(order),
            Next::Stream(Happened::Ended) => self.disconnected(),
            Next::Input(Input::Event(event)) => {
                match &event {
                    Event::SourceOver(id, ..) => drop(self.sources.remove(id)),
                    Event::TargetOver(id, _) => drop(self.targets.remove(id)),
                    _ => {}
                }
                self.handle(event, None);
            }
            Next::Input(Input::Called { migration, session, generation, caller, framed }) => {
                let called = Event::Called { migration, session, generation, caller };
                self.handle(called, Some(*framed));
            }
            Next::Changed => self.handle(Event::Changed, None),
            Next::Reported => {
                self.report = None;
                self.handle(Event::Reported, None);
            }
            Next::Writable(true) => self.send_words(),
            // Its end follows from the other direction.
            Next::Writable(false) => self.up = None,
            Next::Tick => self.handle(Event::Tick, None),
        }
    }

    fn disconnected(&mut self) {
        (self.up, self.report) = (None, None);
        self.handle(Event::Disconnected, None);
    }

    fn send_words(&mut self) {
        let Some(up) = &self.up else { return };
        while self.core.has_word()
            && let Ok(room) = up.try_reserve()
            && let Some(word) = self.core.next_word()
        {
            room.send(v1::ConnectRequest { message: Some(convert::word(word)) });
        }
    }

    fn ordered(&mut self, order: Down) {
        debug!(order = name_of(&order), "order");
        match order {
            Down::Welcome(welcome) => match self.incarnation.follow(welcome.incarnation) {
                Ok(()) => {
                    if self.agent.welcome(&welcome) {
                        self.handle(Event::Welcomed, None);
                    }
                }
                Err(why) => {
                    self.control.restart(&why.to_string());
                    self.disconnected();
                }
            },
            Down::RackView(view) => self.agent.rack_view(&view),
            Down::Expelled(list) => self.agent.expelled(list),
            Down::CheckSource(order) => {
                let agent = self.agent.clone();
                tokio::spawn(async move {
                    let found = preflight::check_source(&agent, order).await;
                    agent.happened(Event::Checked(found)).await;
                });
            }
            Down::CheckTarget(order) => {
                let agent = self.agent.clone();
                tokio::spawn(async move {
                    let found = preflight::check_target(&agent, order).await;
                    agent.happened(Event::Checked(found)).await;
                });
            }
            order => match convert::order(order) {
                Some(order) => self.handle(Event::Ordered(order), None),
                None => warn!("an order that names no migration"),
            },
        }
    }

    /// The rules take an event; what they say is done. `caller` is the one of [`Event::Called`].
    fn handle(&mut self, event: Event<Wire>, mut caller: Option<Framed>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.core.handle(event, self.now(), &mut effects);
            for effect in effects {
                events.extend(self.perform(effect, &mut caller));
            }
        }
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Does something, or begins to; what is known about it at once comes back.
    fn perform(
        &mut self,
        effect: Effect<Wire>,
        caller: &mut Option<Framed>,
    ) -> Option<Event<Wire>> {
        let agent = self.agent.clone();
        match effect {
            Effect::Prepare(id, order) => {
                let lost = Event::Prepared(id, Err(ENDED.to_owned()));
                self.begin(lost, async move { moves::prepare(&agent, id, &order).await });
            }
            Effect::Act(act) => {
                let lost = Event::Acted(act.clone(), Err(ENDED.to_owned()));
                self.begin(lost, async move { moves::act(&agent, act).await });
            }
            Effect::Send(id, rate, order) => self.send(id, rate, order),
            Effect::Receive(id, order) => {
                if let Some(framed) = caller.take() {
                    self.receive(id, order, framed);
                }
            }
            Effect::Refuse(id) => {
                drop(caller.take());
                warn!(%id, "a source calls for a VM that was not prepared here, or not for it");
            }
            Effect::TellSource(id, command) => {
                let source = self.sources.get(&id);
                // One that is about to end needs no command any more.
                let _ = source.map(|s| s.commands.try_send(command));
            }
            Effect::TellTarget(id, command) => {
                let target = self.targets.get(&id);
                let sent = target.map(|t| t.try_send(convert::target_command(&command)));
                if !matches!(sent, Some(Ok(()))) {
                    return Some(Event::Undelivered(id, command));
                }
            }
            Effect::SetRate(id, rate) => {
                if let Some(source) = self.sources.get(&id) {
                    source.pace.set(rate.unwrap_or(0));
                }
            }
            Effect::Forget(vm) => {
                tokio::spawn(async move { moves::forget(&agent, &vm).await });
            }
            Effect::Report => {
                let up = self.up.clone();
                self.report = Some(Box::pin(async move {
                    let message = Some(Up::HostReport(agent.report().await));
                    if let Some(up) = up {
                        // A stream that is gone says so itself.
                        let _ = up.send(v1::ConnectRequest { message }).await;
                    }
                }));
            }
            Effect::RestartStream => {
                self.control.restart("a message was lost");
                (self.up, self.report) = (None, None);
                return Some(Event::Disconnected);
            }
        }
        None
    }

    /// Begins something that takes time; it is told how it went, also if its task was lost.
    fn begin(&self, lost: Event<Wire>, work: impl Future<Output = Event<Wire>> + Send + 'static) {
        let agent = self.agent.clone();
        tokio::spawn(async move {
            let event = tokio::spawn(work).await.unwrap_or(lost);
            agent.happened(event).await;
        });
    }

    fn send(&mut self, id: MigrationId, rate: Option<u64>, order: v1::StartSource) {
        let (commands, queue) = mpsc::channel(SESSION_QUEUE);
        let pace = Arc::new(Pace::default());
        pace.set(rate.unwrap_or(0));
        self.sources.insert(id, Source { commands, pace: pace.clone() });
        let agent = self.agent.clone();
        let lost = Event::SourceOver(id, Outcome::Stopped(ENDED.to_owned()), None);
        self.begin(lost, async move { moves::send(&agent, id, order, pace, queue).await });
    }

    fn receive(&mut self, id: MigrationId, order: v1::PrepareTarget, framed: Framed) {
        let (commands, queue) = mpsc::channel(SESSION_QUEUE);
        self.targets.insert(id, commands);
        let agent = self.agent.clone();
        let lost = Event::TargetOver(id, core::TargetEnd::LeftLoaded);
        self.begin(lost, async move { moves::receive(&agent, id, order, framed, queue).await });
    }
}

const ENDED: &str = "its task in the agent ended";

async fn made(report: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match report {
        Some(report) => report.await,
        None => pending().await,
    }
}

/// Waits until the stream takes a message; false if it is gone.
async fn room(up: Option<&Sender>) -> bool {
    match up {
        Some(up) => up.reserve().await.is_ok(),
        None => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
