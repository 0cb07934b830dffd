//! Events: who did what at this site, and what became of it. Written in the same write as the act.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Action, EventId, EventOutcome, Moment};

/// The longest subject of an event, in bytes; the rest is cut.
pub const SUBJECT_LIMIT: usize = 256;
/// The longest detail of an event, in bytes; the rest is cut.
pub const DETAIL_LIMIT: usize = 512;

/// The caller of a request, as its certificate and its connection name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Caller {
    /// The name in the certificate; empty at a site without TLS.
    pub name: String,
    /// The role in the certificate: `admin` and so on; `none` at a site without TLS, `token` of a host that joins by one.
    pub role: String,
    /// The address the request came from; empty if it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
}

impl Caller {
    /// A caller by its certificate.
    pub fn new(role: impl Into<String>, name: impl Into<String>) -> Self {
        Self { name: name.into(), role: role.into(), from: String::new() }
    }

    /// The coordinator itself: for what happens without a request.
    pub fn coordinator() -> Self {
        Self::new("coordinator", "")
    }

    /// A person or a program of the operators. What others do may not fill the history.
    fn is_trusted(&self) -> bool {
        matches!(self.role.as_str(), "operator" | "admin" | "coordinator" | "token" | "none")
    }
}

/// What a caller wants: an action and its subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Act {
    /// Who wants it.
    pub by: Caller,
    /// What: the word of an [`Action`], or of one that another version has.
    pub action: String,
    /// What it is done to: `rack r1`.
    pub subject: String,
}

impl Act {
    /// An act; a subject that is too long is cut.
    pub fn new(by: Caller, action: Action, subject: impl Into<String>) -> Self {
        Self { by, action: action.to_string(), subject: cut(subject.into(), SUBJECT_LIMIT) }
    }
}

/// One event, or several of the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its number; one that happens again gets a new one.
    pub id: EventId,
    /// What was done, by whom.
    pub act: Act,
    /// Whether it was.
    pub outcome: EventOutcome,
    /// The reason of a refusal, as programs read it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What came of it, for people.
    pub detail: String,
    /// When it was first.
    pub first: Moment,
    /// When it was last.
    pub last: Moment,
    /// How often it was.
    pub count: u64,
}

impl EventRecord {
    /// It may be refused or repeated at will by callers that may change nothing: it has a part of the history of its own.
    pub(crate) fn is_minor(&self) -> bool {
        self.outcome == EventOutcome::Refused || !self.act.by.is_trusted()
    }

    pub(crate) fn same(&self) -> Same {
        Same {
            act: self.act.clone(),
            outcome: self.outcome,
            reason: self.reason.clone(),
            detail: self.detail.clone(),
        }
    }
}

/// What events have in common that are one event several times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Same {
    pub(crate) act: Act,
    pub(crate) outcome: EventOutcome,
    pub(crate) reason: String,
    pub(crate) detail: String,
}

impl Same {
    pub(crate) fn new(act: Act, outcome: EventOutcome, reason: &str, detail: &str) -> Self {
        let detail = cut(detail.to_owned(), DETAIL_LIMIT);
        Self { act, outcome, reason: reason.to_owned(), detail }
    }
}

/// The events that are remembered, and what they are found by.
#[derive(Debug, Default)]
pub(crate) struct History {
    events: BTreeMap<EventId, EventRecord>,
    major: BTreeSet<EventId>,
    minor: BTreeSet<EventId>,
    /// Minor ones by what they say; of several the latest.
    same: BTreeMap<Same, EventId>,
}

impl History {
    pub(crate) fn insert(&mut self, event: EventRecord) {
        self.remove(event.id);
        if event.is_minor() {
            self.minor.insert(event.id);
            self.same.insert(event.same(), event.id);
        } else {
            self.major.insert(event.id);
        }
        self.events.insert(event.id, event);
    }

    pub(crate) fn remove(&mut self, id: EventId) {
        let Some(event) = self.events.remove(&id) else { return };
        self.major.remove(&id);
        if self.minor.remove(&id) {
            let same = event.same();
            if self.same.get(&same) == Some(&id) {
                self.same.remove(&same);
            }
        }
    }

    pub(crate) fn get(&self, id: EventId) -> Option<&EventRecord> {
        self.events.get(&id)
    }

    /// Every number, the oldest first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = EventId> {
        self.events.keys().copied()
    }

    /// The number of the next event. The last event is never forgotten, so no number comes twice.
    pub(crate) fn next(&self) -> EventId {
        EventId(self.events.last_key_value().map_or(0, |(id, _)| id.0) + 1)
    }

    /// The event that another one like this is a repetition of: a minor one wherever it is, any other only if nothing has
    /// happened since.
    pub(crate) fn repeated(&self, same: &Same) -> Option<&EventRecord> {
        let last = self.events.last_key_value().map(|(_, event)| event);
        let last = last.filter(|event| event.same() == *same);
        last.or_else(|| self.events.get(self.same.get(same)?))
    }

    /// The oldest ones beyond those that are kept: a quarter of them may be minor.
    pub(crate) fn stale(&self, keep: usize, before: Moment) -> Vec<EventId> {
        let oldest = |ids: &BTreeSet<EventId>, keep: usize| {
            let ids = ids.iter().take(ids.len().saturating_sub(keep));
            ids.copied().collect::<BTreeSet<_>>()
        };
        let mut stale = oldest(&self.minor, keep / 4);
        stale.append(&mut oldest(&self.major, keep - keep / 4));
        let old = self.events.iter().take_while(|(_, event)| event.last < before);
        stale.extend(old.map(|(id, _)| *id));
        if let Some((last, _)) = self.events.last_key_value() {
            stale.remove(last);
        }
        stale.into_iter().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// The text, or as much of its beginning as has room with a mark that something is missing.
pub(crate) fn cut(mut text: String, limit: usize) -> String {
    const MARK: &str = " ...";
    if text.len() > limit {
        let whole = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=limit - MARK.len()).rev().find(whole).unwrap_or_default();
        text.truncate(end);
        text.push_str(MARK);
    }
    text
}
