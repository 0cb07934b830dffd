//! What is known of an unfinished migration beside its record. It is observed again after a restart.

use crate::{
    Progress, Wait,
    links::Told,
    ownership::{Source, Target},
};

/// What is known of an unfinished migration and observed again after a restart.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) source: Source,
    pub(crate) target: Target,
    pub(crate) session: Session,
    pub(crate) call_off: CallOff,
    /// The target has said that it waits for the source.
    pub(crate) ready: bool,
    pub(crate) progress: Progress,
    pub(crate) wait: Option<Wait>,
    /// What an agent said about a failure.
    pub(crate) reason: Option<String>,
    /// The source's present agent was told to switch over.
    pub(crate) force_told: bool,
    /// The source gave up because the VM does not converge.
    pub(crate) not_converged: bool,
    /// Its guest powered itself off, where it ran last.
    pub(crate) powered_off: bool,
    /// An agent did what it was not told to do.
    pub(crate) conflict: bool,
    /// What the source was told that it may send, as far as its present agent has heard it.
    pub(crate) told: Option<Told>,
}

/// What the source has said of its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Session {
    /// Nothing: a list without the session may be older than the order to start it.
    #[default]
    Unheard,
    /// It has spoken of it: a list without the session means that it is over.
    Heard,
    /// Its last word.
    Ended,
}

impl Session {
    pub(crate) fn is_heard(self) -> bool {
        self != Self::Unheard
    }

    /// The source has spoken of it.
    pub(crate) fn hear(&mut self) {
        if *self == Self::Unheard {
            *self = Self::Heard;
        }
    }
}

/// The order to cancel, and how far it has come.
#[derive(Debug, Default)]
pub(crate) enum CallOff {
    /// The move goes on.
    #[default]
    No,
    /// The source must cancel, for this reason, and its present agent has not been told.
    Due(String),
    /// It has been told.
    Told(String),
}

impl CallOff {
    /// Why the source must cancel, if it must.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::No => None,
            Self::Due(why) | Self::Told(why) => Some(why),
        }
    }

    /// The source must cancel, for this reason unless there was one before. What to tell it, if it was not told.
    pub(crate) fn tell(&mut self, why: &str) -> Option<String> {
        let why = match std::mem::take(self) {
            Self::No => why.to_owned(),
            Self::Due(why) => why,
            told @ Self::Told(_) => {
                *self = told;
                return None;
            }
        };
        *self = Self::Told(why.clone());
        Some(why)
    }

    /// The agent that was told is gone.
    pub(crate) fn forget_told(&mut self) {
        *self = match std::mem::take(self) {
            Self::Told(why) => Self::Due(why),
            other => other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_told_once_a_stream_and_always_the_same() {
        let mut call_off = CallOff::default();
        assert_eq!(call_off.why(), None);
        assert_eq!(call_off.tell("first"), Some("first".to_owned()));
        assert_eq!(call_off.tell("second"), None);
        call_off.forget_told();
        assert_eq!(call_off.why(), Some("first"));
        assert_eq!(call_off.tell("third"), Some("first".to_owned()));
    }

    #[test]
    fn a_session_that_has_ended_stays_so() {
        let mut session = Session::default();
        session.hear();
        assert_eq!(session, Session::Heard);
        session = Session::Ended;
        session.hear();
        assert_eq!(session, Session::Ended);
    }
}
