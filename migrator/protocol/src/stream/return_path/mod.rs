//! The return path: what a destination QEMU tells its source, on the main channel's other direction.
//!
//! A session ends it on both sides: [`ReturnPath`] reads what the destination says, keeps the answers to the session's
//! own PINGs, and hands out SHUT, the destination's last word, apart from the messages to pass on.

mod barrier;
mod message;
mod parser;

pub use barrier::{BarrierError, BarrierId, Barriers};
pub use message::Message;
pub use parser::{MAX_BITMAP, MAX_MESSAGE, ReturnPathError, ReturnPathParser};

/// What comes of a message of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnPathEvent {
    /// To be passed on to the source as it is.
    Forward(Message),
    /// The destination has loaded everything written before this barrier (and all earlier ones).
    Passed(BarrierId),
    /// The destination is done: 0 if it has loaded everything, else it failed. Passing this on to the source gives the
    /// VM away, so it must be held until that is decided.
    Shut(u32),
}

/// The destination's side of a return path with barriers of the session's own.
#[derive(Debug, Default)]
pub struct ReturnPath {
    parser: ReturnPathParser,
    barriers: Barriers,
    messages: Vec<Message>,
}

impl ReturnPath {
    /// A return path before its first message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a barrier: the value is to be given to [`StreamWriter::inject_ping`](super::StreamWriter::inject_ping).
    ///
    /// # Errors
    /// If too many barriers are under way.
    pub fn start_barrier(&mut self) -> Result<(BarrierId, u32), BarrierError> {
        self.barriers.start()
    }

    /// The barriers under way.
    pub fn barriers(&self) -> &Barriers {
        &self.barriers
    }

    /// Reads bytes of the destination, all of them.
    ///
    /// # Errors
    /// If they are no return path messages, or answer a barrier that was not started. What was found before is in `events`.
    pub fn push(
        &mut self,
        bytes: &[u8],
        events: &mut Vec<ReturnPathEvent>,
    ) -> Result<(), ReturnPathError> {
        let result = self.parser.push(bytes, &mut self.messages);
        for message in self.messages.drain(..) {
            events.push(match message {
                Message::Shut(code) => ReturnPathEvent::Shut(code),
                Message::Pong(value) if Barriers::is_private(value) => {
                    ReturnPathEvent::Passed(self.barriers.pong(value)?)
                }
                other => ReturnPathEvent::Forward(other),
            });
        }
        result
    }
}
