//! What is said to the coordinator, and when.
//!
//! Words wait in a bounded outbox while there is no stream. The coordinator waits for some of them, so if one does not fit
//! the stream starts anew: its first message says how everything is. Progress may be lost. What a session has asked stays
//! open until it is answered, and is asked again on every new stream. A report is made now and then, and soon after a
//! change; words wait while one is made, so that a list is never older than a word that came before it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::{Carried, MigrationId, Moment, Question, Word};

/// Words that wait for a stream.
pub const OUTBOX: usize = 1024;
/// A report at least this often.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Changes are collected for so long before they are reported.
const REPORT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    /// Its first message is under way; true: a word was lost after it was made.
    Dialling(bool),
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    At(Moment),
    /// It is being made; true: the list has changed meanwhile.
    UnderWay(bool),
}

/// The agent's end of the stream.
#[derive(Debug)]
pub(crate) struct Stream<C: Carried> {
    state: State,
    report: Report,
    /// Questions that a new stream begins with.
    again: VecDeque<Word<C>>,
    outbox: VecDeque<Word<C>>,
    outbox_bound: usize,
    questions: BTreeMap<MigrationId, Question>,
}

impl<C: Carried + Clone> Stream<C> {
    pub(crate) fn new(outbox_bound: usize) -> Self {
        Self {
            state: State::Down,
            report: Report::At(Moment(0)),
            again: VecDeque::new(),
            outbox: VecDeque::new(),
            outbox_bound,
            questions: BTreeMap::new(),
        }
    }

    /// Tells the coordinator something. False: it was lost, and the stream must start anew.
    #[must_use]
    pub(crate) fn tell(&mut self, word: Word<C>) -> bool {
        if self.outbox.len() < self.outbox_bound {
            self.outbox.push_back(word);
            return true;
        }
        if matches!(word, Word::Progress(..)) || planted!(LossUnnoticed) {
            return true;
        }
        match &mut self.state {
            // The next first message says it.
            State::Down => true,
            State::Dialling(lost) => {
                *lost = true;
                true
            }
            State::Up => false,
        }
    }

    /// Asks something that a session waits for.
    #[must_use]
    pub(crate) fn ask(&mut self, migration: MigrationId, question: Question) -> bool {
        self.questions.insert(migration, question);
        self.tell(Word::Asked(migration, question))
    }

    /// The question of a session is answered, or of no interest any more.
    pub(crate) fn answered(&mut self, migration: MigrationId) {
        self.questions.remove(&migration);
    }

    pub(crate) fn questions(&self) -> &BTreeMap<MigrationId, Question> {
        &self.questions
    }

    pub(crate) fn dialling(&mut self) {
        self.state = State::Dialling(false);
    }

    /// The stream is up. False: a word was lost since its first message was made, so it must start anew.
    #[must_use]
    pub(crate) fn connected(&mut self, now: Moment) -> bool {
        let lost = self.state == State::Dialling(true);
        self.state = State::Up;
        self.report = Report::At(now);
        self.again.clear();
        let open = self.questions.iter().map(|(&id, &question)| Word::Asked(id, question));
        self.again.extend(open);
        !lost
    }

    pub(crate) fn disconnected(&mut self) {
        self.state = State::Down;
    }

    pub(crate) fn changed(&mut self, now: Moment) {
        self.report = match self.report {
            Report::At(at) => Report::At(at.min(now.after(REPORT_PAUSE))),
            Report::UnderWay(_) => Report::UnderWay(true),
        };
    }

    /// Begins a report, if it is time.
    pub(crate) fn begins_report(&mut self, now: Moment) -> bool {
        let due = self.report_at().is_some_and(|at| at <= now);
        if due {
            self.report = Report::UnderWay(false);
        }
        due
    }

    pub(crate) fn reported(&mut self, now: Moment) {
        if let Report::UnderWay(changed) = self.report {
            let pause = if changed { REPORT_PAUSE } else { REPORT_EVERY };
            self.report = Report::At(now.after(pause));
        }
    }

    /// When the next report is due.
    pub(crate) fn report_at(&self) -> Option<Moment> {
        match self.report {
            Report::At(at) if self.state == State::Up => Some(at),
            _ => None,
        }
    }

    /// May a word be sent now?
    pub(crate) fn has_word(&self) -> bool {
        let free = self.state == State::Up && !matches!(self.report, Report::UnderWay(_));
        free && !(self.again.is_empty() && self.outbox.is_empty())
    }

    /// The next word to send.
    pub(crate) fn next_word(&mut self) -> Option<Word<C>> {
        if !self.has_word() {
            return None;
        }
        self.again.pop_front().or_else(|| self.outbox.pop_front())
    }
}
