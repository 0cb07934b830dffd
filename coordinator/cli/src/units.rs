//! Bytes and times for people.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use thiserror::Error;

/// The text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a duration such as 300ms, 2s, 5m or 1h")]
pub struct NotADuration;

/// Reads `300ms`, `2s`, `5m`, `1h`; nothing below a millisecond.
///
/// # Errors
/// [`NotADuration`].
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| NotADuration)?;
    let scale = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(NotADuration),
    };
    match number.checked_mul(scale) {
        None | Some(0) => Err(NotADuration),
        Some(ms) => Ok(Duration::from_millis(ms)),
    }
}

/// Milliseconds, as in `300ms` and `2s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u32);

impl FromStr for Millis {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, NotADuration> {
        let duration = parse_duration(text)?;
        Ok(Self(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// The time now, as answers have times.
pub fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024.0 is 1.0 of the next.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `250 ms`, `4.2 s`, `12:05`, `1:02:03`.
pub fn millis(ms: u64) -> String {
    let seconds = ms / 1000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// What part of `whole` is not `part`, in percent; nothing of nothing.
pub fn saved_percent(whole: u64, part: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * (1.0 - part as f64 / whole as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "300", "ms", "0s", "-1s", "1.5s", "1d", "99999999999999999999h", "1é"] {
            assert_eq!(parse_duration(bad), Err(NotADuration), "{bad}");
        }
    }

    #[test]
    fn bytes_are_shown() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (256 << 20, "256.0 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn times_are_shown() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (4_250, "4.2 s"),
            (60_000, "1:00"),
            (3_723_000, "1:02:03"),
        ] {
            assert_eq!(millis(ms), text);
        }
    }

    #[test]
    fn saving_is_relative_to_the_whole() {
        assert_eq!(saved_percent(200, 50), Some(75.0));
        assert_eq!(saved_percent(100, 110), Some(-10.000000000000009));
        assert_eq!(saved_percent(0, 5), None);
    }
}
