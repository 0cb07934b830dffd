//! Link rates.

use std::fmt;
use std::str::FromStr;

/// Bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

impl Rate {
    /// Gigabits per second.
    pub const fn gbit(number: u64) -> Self {
        Self(number * 1_000_000_000)
    }

    /// Megabits per second.
    pub const fn mbit(number: u64) -> Self {
        Self(number * 1_000_000)
    }

    /// Bytes that pass in a time.
    pub const fn bytes_in_ms(self, ms: u64) -> u64 {
        self.0 / 8 * ms / 1000
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bits if bits >= 1_000_000_000 && bits % 1_000_000_000 == 0 => {
                write!(f, "{}gbit", bits / 1_000_000_000)
            }
            bits if bits >= 1_000_000 && bits % 1_000_000 == 0 => {
                write!(f, "{}mbit", bits / 1_000_000)
            }
            bits => write!(f, "{bits}bit"),
        }
    }
}

impl FromStr for Rate {
    type Err = anyhow::Error;

    /// `1gbit`, `500mbit`, `64kbit` or plain `bit`, with or without a fraction; as `tc` has them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "gbit" => 1e9,
            "mbit" => 1e6,
            "kbit" => 1e3,
            "bit" => 1.0,
            other => anyhow::bail!("{text}: unknown unit {other:?}, use gbit, mbit, kbit or bit"),
        };
        let number: f64 = number.parse().map_err(|_| anyhow::anyhow!("{text}: not a rate"))?;
        let bits = number * factor;
        anyhow::ensure!(bits.is_finite() && bits >= 8.0, "{text}: too slow to be a rate");
        Ok(Self(bits as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for rate in [Rate::gbit(1), Rate::mbit(2500), Rate(12_345)] {
            assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
        }
        assert_eq!("1.5gbit".parse::<Rate>().unwrap(), Rate::mbit(1500));
        assert!("fast".parse::<Rate>().is_err());
        assert!("10".parse::<Rate>().is_err());
        assert!("-1gbit".parse::<Rate>().is_err());
    }
}
