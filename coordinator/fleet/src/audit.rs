//! The record of who did what: an act and its event are one write; refusals are counted when there are too many of them.

use std::collections::BTreeMap;

use crate::{
    Act, Action, Caller, Effect, EventOutcome, EventRecord, Fleet, HostName, Moment, Record,
    Refusal,
    event::{DETAIL_LIMIT, Same, cut},
};

/// How long a refusal that is repeated is the same event.
const REPEATED_MS: u64 = 600_000;
/// Minor events that are written at once before the rest is only counted.
const BURST: u32 = 60;
/// Kinds of minor events that are counted while none is written, in all and of one caller; further ones are counted
/// together.
const KINDS: usize = 64;
/// See [`KINDS`].
const KINDS_OF_ONE: usize = 8;

/// An act that was done: its value for the caller, and what came of it, for the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// For the caller.
    pub value: T,
    /// For the event: `as evac-3`. Empty if there is nothing to say.
    pub detail: String,
}

impl<T> Done<T> {
    /// An act that was done, and what came of it.
    pub fn new(value: T, detail: impl Into<String>) -> Self {
        Self { value, detail: detail.into() }
    }
}

/// An act that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The act.
    pub act: Act,
    /// The reason, as programs read it.
    pub reason: String,
    /// The reason for people.
    pub detail: String,
    /// How often.
    pub count: u64,
}

/// Minor events that wait for their write. They are lost with their leader.
#[derive(Debug)]
pub(crate) struct Audit {
    /// Minor events that may still be written.
    budget: u32,
    /// The last time that the budget rose.
    raised: Moment,
    counted: BTreeMap<Same, Counted>,
    /// Of more kinds than are counted.
    others: u64,
    /// Events can be written.
    keeps: bool,
    /// No event was ever written, and the first one may be.
    begins: bool,
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    first: Moment,
    last: Moment,
    count: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            budget: BURST,
            raised: Moment(0),
            counted: BTreeMap::new(),
            others: 0,
            keeps: true,
            begins: false,
        }
    }
}

impl Audit {
    /// There is room for one more kind; one caller does not take all of it.
    fn takes(&self, same: &Same) -> bool {
        let of_one = self.counted.keys().filter(|known| known.act.by == same.act.by);
        self.counted.len() < KINDS && of_one.count() < KINDS_OF_ONE
    }
}

impl Fleet {
    /// Does what a caller wants, and writes down in the same turn who wanted it and what came of it. What is refused is
    /// not written down here: see [`Fleet::refused`].
    ///
    /// # Errors
    /// If the turn is refused; then nothing happens.
    pub fn act<T>(
        &mut self,
        act: Act,
        now: Moment,
        out: &mut Vec<Effect>,
        turn: impl FnOnce(&mut Self, Moment, &mut Vec<Effect>) -> Result<Done<T>, Refusal>,
    ) -> Result<T, Refusal> {
        let (is_alone, begun) = (!self.in_batch(), out.len());
        self.open_batch();
        let done = turn(self, now, out);
        if let Ok(done) = &done {
            self.begin(now);
            let same = Same::new(act, EventOutcome::Accepted, "", &done.detail);
            self.note_event(same);
        }
        if is_alone {
            self.close_batch(now, out);
            // What the turn has let out waits for its records, too.
            out[begun..].sort_by_key(|effect| !matches!(effect, Effect::Persist(_)));
        }
        done.map(|done| done.value)
    }

    /// Writes down that acts were refused, or counts them if there are too many. `others` were refused, too, and are
    /// only counted.
    pub fn refused(
        &mut self,
        refused: Vec<Refused>,
        others: u64,
        now: Moment,
        out: &mut Vec<Effect>,
    ) {
        self.begin(now);
        for Refused { act, reason, detail, count } in refused {
            let same = Same::new(act, EventOutcome::Refused, &reason, &detail);
            self.count(same, Counted { first: self.now, last: self.now, count });
        }
        self.audit.others += others;
        if !self.in_batch() {
            self.finish(out);
        }
    }

    /// Says whether every coordinator reads records of events. Once there is one they are written whatever is said: a
    /// coordinator that is away may not have said it, and one that does not read them cannot come back anyway.
    pub fn keep_events(&mut self, all_read: bool) {
        let none = self.store.events().is_empty();
        self.audit.keeps = all_read || !none;
        self.audit.begins = all_read && none;
    }

    /// An agent was refused: what it says is not believed, but its certificate is.
    pub(crate) fn refused_agent(&mut self, host: &HostName, refusal: &Refusal) {
        let act = Act::new(Caller::new("agent", host.as_str()), Action::Connect, "");
        let reason = rackferry_model::Reason::InstallationRefused.as_str();
        let same = Same::new(act, EventOutcome::Refused, reason, &refusal.to_string());
        self.count(same, Counted { first: self.now, last: self.now, count: 1 });
    }

    /// Something has happened that operators ask about, without a request.
    pub(crate) fn happened(&mut self, action: Action, subject: impl Into<String>, detail: &str) {
        let act = Act::new(Caller::coordinator(), action, subject);
        self.note_event(Same::new(act, EventOutcome::Happened, "", detail));
    }

    fn note_event(&mut self, same: Same) {
        let once = Counted { first: self.now, last: self.now, count: 1 };
        let event = self.event(same, once);
        if event.is_minor() {
            // An agent's renewal, say: as it likes.
            return self.count(event.same(), once);
        }
        self.put_event(event);
    }

    fn event(&self, same: Same, counted: Counted) -> EventRecord {
        let Same { act, outcome, reason, detail } = same;
        let Counted { first, last, count } = counted;
        let id = self.store.events().next();
        EventRecord { id, act, outcome, reason, detail, first, last, count }
    }

    /// Writes a minor event, or counts it until one may be written again.
    fn count(&mut self, same: Same, counted: Counted) {
        if let Some(known) = self.audit.counted.get_mut(&same) {
            known.last = counted.last;
            known.count += counted.count;
        } else if self.audit.budget > 0 {
            self.audit.budget -= 1;
            self.put_event(self.event(same, counted));
        } else if self.audit.takes(&same) {
            self.audit.counted.insert(same, counted);
        } else {
            self.audit.others += counted.count;
        }
    }

    /// Writes an event. If it is one of before once more, in place of that, as the latest.
    fn put_event(&mut self, mut event: EventRecord) {
        if !self.audit.keeps {
            let Act { by: Caller { name, role, .. }, action, subject } = &event.act;
            let text = format!(
                "not kept before all coordinators are of this version: {role} {name}: {action} {subject}"
            );
            return self.note(false, text);
        }
        let before = self.store.events().repeated(&event.same());
        let before = before.filter(|before| event.last.since(before.last) <= REPEATED_MS * MS_NS);
        if let Some(EventRecord { id, first, count, .. }) = before.cloned() {
            (event.first, event.count) = (first, count.saturating_add(event.count));
            self.store.remove_event(id);
        }
        self.store.put(Record::Event(Box::new(event)));
        self.forget_events();
        self.outbox.publish = true;
    }

    fn forget_events(&mut self) {
        let before = Moment(self.now.0.saturating_sub(self.limits.events_age_ns));
        for id in self.store.events().stale(self.limits.events, before) {
            self.store.remove_event(id);
        }
    }

    /// A second has passed: one more minor event may be written, and events may have become too old.
    pub(crate) fn audit_tick(&mut self) {
        self.forget_events();
        if std::mem::take(&mut self.audit.begins) {
            self.happened(Action::RecordBegins, "", "from here on acts are recorded");
        }
        if self.now.since(self.audit.raised) < SECOND_NS {
            return;
        }
        self.audit.raised = self.now;
        if let Some((same, counted)) = self.audit.counted.pop_first() {
            return self.put_event(self.event(same, counted));
        }
        match std::mem::take(&mut self.audit.others) {
            0 => self.audit.budget = (self.audit.budget + 1).min(BURST),
            others => {
                let text = format!(
                    "{others} further requests were refused, of more kinds than are counted"
                );
                self.happened(Action::Refusals, "", &cut(text, DETAIL_LIMIT));
            }
        }
    }
}

const MS_NS: u64 = 1_000_000;
const SECOND_NS: u64 = 1000 * MS_NS;
