//! Sizes, rates, times and percentages as people write them.

use thiserror::Error;

/// The text is no such number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not {0}")]
pub struct NotA(&'static str);

const RATE: NotA = NotA("a rate such as 200Mbit, 25Gbit or 100MB");
const SIZE: NotA = NotA("a size such as 512MiB, 64GiB or 2TiB");
const PERCENT: NotA = NotA("a percentage from 1% to 100%");
const DURATION: NotA = NotA("a time such as 300ms or 2s");

/// Splits `25Gbit` into its number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Bytes per second: `200Mbit` are 25,000,000, `100MB` are 100,000,000.
///
/// # Errors
/// If it is no rate, or none at all.
pub fn rate(text: &str) -> Result<u64, NotA> {
    let (number, unit) = split(text).ok_or(RATE)?;
    let unit = unit.strip_suffix("/s").unwrap_or(unit);
    let (scale, bits) = match unit {
        "kbit" => (1_000, true),
        "Mbit" => (1_000_000, true),
        "Gbit" => (1_000_000_000, true),
        "Tbit" => (1_000_000_000_000, true),
        "kB" => (1_000, false),
        "MB" => (1_000_000, false),
        "GB" => (1_000_000_000, false),
        _ => return Err(RATE),
    };
    let scaled = number.checked_mul(scale).ok_or(RATE)?;
    let bytes = if bits { scaled / 8 } else { scaled };
    if bytes == 0 { Err(RATE) } else { Ok(bytes) }
}

/// Bytes: `512GiB`.
///
/// # Errors
/// If it is no size, or none at all.
pub fn size(text: &str) -> Result<u64, NotA> {
    let (number, unit) = split(text).ok_or(SIZE)?;
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(SIZE),
    };
    match number.checked_mul(1 << shift) {
        None | Some(0) => Err(SIZE),
        Some(bytes) => Ok(bytes),
    }
}

/// `40%`.
///
/// # Errors
/// If it is no percentage, or not between 1 and 100.
pub fn percent(text: &str) -> Result<u8, NotA> {
    match split(text).ok_or(PERCENT)? {
        (percent @ 1..=100, "%") => Ok(percent as u8),
        _ => Err(PERCENT),
    }
}

/// Milliseconds: `300ms`, `2s`.
///
/// # Errors
/// If it is no time, or none at all.
pub fn duration_ms(text: &str) -> Result<u32, NotA> {
    let (number, unit) = split(text).ok_or(DURATION)?;
    let scale = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(DURATION),
    };
    let ms = number.checked_mul(scale).and_then(|ms| u32::try_from(ms).ok());
    ms.filter(|ms| *ms > 0).ok_or(DURATION)
}

/// A rate for people, in bits as links are sold: `200 Mbit/s`.
pub fn show_rate(bytes: u64) -> String {
    let bits = bytes as f64 * 8.0;
    let (value, unit) = match bits {
        0.0..1e6 => (bits / 1e3, "kbit/s"),
        1e6..1e9 => (bits / 1e6, "Mbit/s"),
        _ => (bits / 1e9, "Gbit/s"),
    };
    let text = format!("{value:.1}");
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        assert_eq!(rate("200Mbit"), Ok(25_000_000));
        assert_eq!(rate("25 Gbit/s"), Ok(3_125_000_000));
        assert_eq!(rate("100MB"), Ok(100_000_000));
        for bad in ["", "200", "Mbit", "0Mbit", "-1Mbit", "1.5Gbit", "1Gbps", "1Gibit", "7 é"] {
            assert_eq!(rate(bad), Err(RATE), "{bad}");
        }
        assert_eq!(rate("99999999999999999Tbit"), Err(RATE));
    }

    #[test]
    fn sizes() {
        assert_eq!(size("512GiB"), Ok(512 << 30));
        for bad in ["512", "512GB", "0MiB", "99999999999TiB", "GiB"] {
            assert_eq!(size(bad), Err(SIZE), "{bad}");
        }
    }

    #[test]
    fn percentages_and_times() {
        assert_eq!(percent("40%"), Ok(40));
        for bad in ["0%", "101%", "40", "%", "4.5%"] {
            assert_eq!(percent(bad), Err(PERCENT), "{bad}");
        }
        assert_eq!(duration_ms("2s"), Ok(2000));
        for bad in ["0s", "2", "2h", "99999999999s"] {
            assert_eq!(duration_ms(bad), Err(DURATION), "{bad}");
        }
    }

    #[test]
    fn rates_are_shown_as_they_are_sold() {
        for (bytes, text) in [
            (25_000_000, "200 Mbit/s"),
            (3_125_000_000, "25 Gbit/s"),
            (187_500_000, "1.5 Gbit/s"),
            (1_000, "8 kbit/s"),
            (0, "0 kbit/s"),
        ] {
            assert_eq!(show_rate(bytes), text);
        }
    }
}
