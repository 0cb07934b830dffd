//! events, as it is written.

use std::{str::FromStr, time::Duration};

use rackferry_model::EventId;
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::units;

/// Show who did what.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Show events since then only: a duration such as 1h, a time such as 2026-01-31T08:00:00Z, or behind an event (event-N).
    #[arg(long, value_name = "DURATION|TIME|EVENT")]
    pub since: Option<Since>,
    /// Show no more than the latest N of them.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Go on with events as they come, until interrupted.
    #[arg(long, short)]
    pub follow: bool,
}

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago.
    Ago(Duration),
    /// From a time on, in milliseconds since the Unix epoch.
    Time(u64),
    /// Behind an event.
    Event(EventId),
}

/// The text says no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "not a duration such as 1h, a time such as 2026-01-31T08:00:00Z, or an event such as event-7"
)]
pub struct NotSince;

impl FromStr for Since {
    type Err = NotSince;

    fn from_str(text: &str) -> Result<Self, NotSince> {
        if let Ok(event) = text.parse() {
            return Ok(Self::Event(event));
        }
        if let Ok(ago) = units::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| NotSince)?;
        let ms = time.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).map(Self::Time).map_err(|_| NotSince)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_read() {
        assert_eq!("90m".parse(), Ok(Since::Ago(Duration::from_secs(5400))));
        assert_eq!("event-7".parse(), Ok(Since::Event(EventId(7))));
        assert_eq!("1970-01-02T00:00:01Z".parse(), Ok(Since::Time(86_401_000)));
        assert_eq!("1970-01-02T02:00:01+02:00".parse(), Ok(Since::Time(86_401_000)));
        for bad in ["", "yesterday", "evac-7", "1960-01-01T00:00:00Z", "2026-01-31"] {
            assert_eq!(bad.parse::<Since>(), Err(NotSince), "{bad}");
        }
    }
}
