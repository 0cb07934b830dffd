//! Whether a neighbour is asked at all: one that has let a deadline pass in silence is not, until it answers again.
//!
//! ```text
//! closed --- a request's deadline passes, and nothing was heard since it was sent; or a dial fails ---> open
//! open   --- a new connection is greeted (the link's task tries in the background) ------------------> closed
//! ```
//!
//! A neighbour that is slow but talks keeps the breaker closed: only the requests that are late are given up.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

/// Shared by a link's task and its handles.
#[derive(Debug)]
pub(super) struct Breaker {
    open: watch::Sender<bool>,
    /// When the neighbour said something last.
    heard: Mutex<Option<Instant>>,
}

impl Breaker {
    /// Closed: a neighbour is trusted to answer until it does not.
    pub(super) fn new() -> Self {
        Self { open: watch::Sender::new(false), heard: Mutex::new(None) }
    }

    /// The neighbour is not asked at the moment.
    pub(super) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// The neighbour has said something.
    pub(super) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// A request that was sent at `sent` has not been answered by its deadline.
    pub(super) fn missed(&self, sent: Instant) {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.is_none_or(|heard| heard <= sent) {
            self.trip();
        }
    }

    /// The neighbour cannot be reached.
    pub(super) fn trip(&self) {
        self.open.send_replace(true);
    }

    /// The neighbour has answered a new connection.
    pub(super) fn close(&self) {
        self.heard();
        self.open.send_replace(false);
    }

    /// Waits until the breaker is open. Cancel safe.
    pub(super) async fn opened(&self) {
        // The sender is `self`, so it cannot be gone.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_since_a_request_opens_it_and_a_greeting_closes_it() {
        let breaker = Breaker::new();
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        breaker.heard();
        breaker.missed(sent);
        assert!(!breaker.is_open(), "it talks, only not of this");
        tokio::time::advance(Duration::from_millis(1)).await;
        let later = Instant::now();
        breaker.missed(later);
        assert!(breaker.is_open());
        breaker.opened().await;
        breaker.close();
        assert!(!breaker.is_open());
        breaker.missed(later - Duration::from_millis(1));
        assert!(!breaker.is_open(), "a miss from before the greeting is old news");
        breaker.trip();
        assert!(breaker.is_open());
    }
}
