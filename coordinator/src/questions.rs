//! Questions to agents that are answered once or not at all, beside the fleet: nothing of them is durable.

use std::collections::HashMap;

use rackferry_fleet::Connection;
use rackferry_proto::v1::{CheckReport, CheckSource, CheckTarget, connect_response::Message};
use tokio::sync::oneshot;

/// A question to an agent.
#[derive(Debug)]
pub enum Question {
    /// Could this VM leave?
    Source(CheckSource),
    /// Could this VM run there?
    Target(CheckTarget),
}

/// The questions that are not answered yet.
#[derive(Debug, Default)]
pub struct Questions {
    last: u64,
    open: HashMap<u64, (Connection, oneshot::Sender<CheckReport>)>,
}

impl Questions {
    /// Numbers a question; the caller hears the answer, or that there will be none.
    pub fn ask(
        &mut self,
        whom: Connection,
        question: Question,
        reply: oneshot::Sender<CheckReport>,
    ) -> Message {
        // No caller waits for these any more.
        self.open.retain(|_, (_, reply)| !reply.is_closed());
        self.last += 1;
        self.open.insert(self.last, (whom, reply));
        match question {
            Question::Source(check) => {
                Message::CheckSource(CheckSource { check: self.last, ..check })
            }
            Question::Target(check) => {
                Message::CheckTarget(CheckTarget { check: self.last, ..check })
            }
        }
    }

    /// Passes on an answer. One to no open question, or of another agent than was asked, is dropped.
    pub fn answer(&mut self, from: Connection, report: CheckReport) {
        if self.open.get(&report.check).is_some_and(|(whom, _)| *whom == from)
            && let Some((_, reply)) = self.open.remove(&report.check)
        {
            // The caller may have gone.
            let _ = reply.send(report);
        }
    }

    /// Forgets the questions to an agent that is gone: it answers nothing any more.
    pub fn forget(&mut self, whom: Connection) {
        self.open.retain(|_, (other, _)| *other != whom);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: Connection = Connection(1);

    fn asked(questions: &mut Questions) -> (u64, oneshot::Receiver<CheckReport>) {
        let (reply, answer) = oneshot::channel();
        let question = Question::Source(CheckSource { check: 0, vm: "web".into() });
        let Message::CheckSource(check) = questions.ask(AGENT, question, reply) else { panic!() };
        (check.check, answer)
    }

    fn report(check: u64) -> CheckReport {
        CheckReport { check, ..CheckReport::default() }
    }

    #[test]
    fn an_answer_reaches_whoever_asked() {
        let mut questions = Questions::default();
        let ((one, mut first), (two, mut second)) = (asked(&mut questions), asked(&mut questions));
        questions.answer(Connection(2), report(one));
        assert!(first.try_recv().is_err(), "an answer of another agent counts nothing");
        questions.answer(AGENT, report(two));
        questions.answer(AGENT, report(one));
        assert_eq!(first.try_recv().unwrap().check, one);
        assert_eq!(second.try_recv().unwrap().check, two);
        questions.answer(AGENT, report(99));
    }

    #[test]
    fn an_agent_that_is_gone_answers_nothing() {
        let mut questions = Questions::default();
        let (_, mut answer) = asked(&mut questions);
        questions.forget(AGENT);
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn nothing_is_kept_for_those_who_left() {
        let mut questions = Questions::default();
        drop(asked(&mut questions));
        let _open = asked(&mut questions);
        assert_eq!(questions.open.len(), 1);
    }
}
