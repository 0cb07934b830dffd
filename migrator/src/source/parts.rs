//! What a VM's stop was spent on, as its source sees it.

use std::fmt;
use std::time::Duration;

use rackferry_migrator_protocol::session::source::Phase;
use tokio::time::Instant;

/// The parts of a stop that are over, in order.
#[derive(Debug, Default)]
pub struct StopParts {
    last: Option<Instant>,
    over: Vec<(&'static str, Duration)>,
}

impl StopParts {
    /// The VM has stopped.
    pub fn begin(&mut self) {
        self.last = Some(Instant::now());
    }

    /// The machine has left a phase. `memory_ended`: when the last page was in place at the target.
    pub fn left(&mut self, phase: &Phase, memory_ended: Option<Instant>) {
        let now = Instant::now();
        match phase {
            Phase::Switching => {
                self.end("pages", memory_ended.unwrap_or(now));
                self.end("devices", now);
            }
            Phase::Verifying { .. } | Phase::Differing => self.end("verification", now),
            Phase::Committing { .. } => self.end("commit", now),
            Phase::Stopping { .. } => self.end("source's end", now),
            Phase::Handed { .. } => self.end("start", now),
            _ => {}
        }
    }

    fn end(&mut self, part: &'static str, at: Instant) {
        // Before the stop there is nothing to measure.
        if let Some(last) = self.last {
            self.over.push((part, at.saturating_duration_since(last)));
            self.last = Some(at.max(last));
        }
    }
}

impl fmt::Display for StopParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (part, length)) in self.over.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{part} {:.1} ms", length.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_part_begins_where_the_one_before_has_ended() {
        let mut parts = StopParts::default();
        parts.left(&Phase::Switching, None);
        assert_eq!(parts.to_string(), "", "the VM has not stopped");
        parts.begin();
        advance(Duration::from_millis(5)).await;
        let memory_ended = Some(Instant::now());
        advance(Duration::from_millis(7)).await;
        parts.left(&Phase::Switching, memory_ended);
        advance(Duration::from_micros(900)).await;
        parts.left(&Phase::Committing { dead: false }, memory_ended);
        assert_eq!(parts.to_string(), "pages 5.0 ms, devices 7.0 ms, commit 0.9 ms");
    }
}
