//! What the kernel command line asks of the guest.

use std::str::FromStr;
use std::time::Duration;

/// How memory is filled and used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Files of the shared disk in the page cache, a few services, little activity.
    Idle,
    /// As `Idle` moments after boot: no services, hardly any private data.
    Template,
    /// As `Idle`, plus a working set that is rewritten all the time.
    Busy,
    /// Half page cache of one of several disks, half private data that compresses like a heap.
    Mixed,
    /// Random private data: nothing to find, nothing to compress.
    Unique,
    /// Memory that was touched and holds zeros.
    Zero,
    /// A working set rewritten and checked by PID 1 alone, which sleeps 2 ms at a time: few TLB flushes, timers on
    /// kernel stacks. Made to notice writes that dirty tracking misses.
    Hot,
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "idle" => Self::Idle,
            "template" => Self::Template,
            "busy" => Self::Busy,
            "mixed" => Self::Mixed,
            "unique" => Self::Unique,
            "zero" => Self::Zero,
            "hot" => Self::Hot,
            other => return Err(format!("unknown profile {other}")),
        })
    }
}

/// The `rf.*` words of the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// `rf.profile`
    pub profile: Profile,
    /// `rf.fill`: MiB that the profile fills.
    pub fill_mib: usize,
    /// `rf.wss`: MiB of the working set of `busy` and `hot`.
    pub wss_mib: usize,
    /// `rf.rate`: KiB per second that `busy` and `hot` rewrite.
    pub rate_kib: usize,
    /// `rf.seed`: what makes this guest's private data its own.
    pub seed: u64,
    /// `rf.hb`: milliseconds between heartbeats.
    pub heartbeat: Duration,
    /// `rf.sweep`: KiB per second that the checker reads.
    pub sweep_kib: usize,
}

impl Params {
    /// Reads the words this guest knows out of a kernel command line; the rest is the kernel's.
    pub fn parse(command_line: &str) -> Result<Self, String> {
        let mut params = Self {
            profile: Profile::Idle,
            fill_mib: 128,
            wss_mib: 8,
            rate_kib: 4096,
            seed: 1,
            heartbeat: Duration::from_millis(20),
            sweep_kib: 256,
        };
        for word in command_line.split_ascii_whitespace() {
            let Some((key, value)) = word.strip_prefix("rf.").and_then(|w| w.split_once('='))
            else {
                continue;
            };
            match key {
                "profile" => params.profile = value.parse()?,
                "fill" => params.fill_mib = number(word, value)?,
                "wss" => params.wss_mib = number(word, value)?,
                "rate" => params.rate_kib = number(word, value)?,
                "seed" => params.seed = number(word, value)?,
                "hb" => params.heartbeat = Duration::from_millis(number(word, value)?),
                "sweep" => params.sweep_kib = number(word, value)?,
                _ => return Err(format!("unknown parameter {word}")),
            }
        }
        if params.heartbeat.is_zero() {
            return Err("rf.hb must not be 0".into());
        }
        Ok(params)
    }
}

fn number<T: FromStr>(word: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("not a number: {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_words_only() {
        let params =
            Params::parse("console=ttyS0 quiet rf.profile=busy rf.fill=64 rf.seed=9").unwrap();
        assert_eq!((params.profile, params.fill_mib, params.seed), (Profile::Busy, 64, 9));
        assert_eq!(params.rate_kib, 4096);
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        assert!(Params::parse("rf.fill=lots").is_err());
        assert!(Params::parse("rf.profle=idle").is_err());
        assert!(Params::parse("rf.profile=lazy").is_err());
        assert!(Params::parse("rf.hb=0").is_err());
    }
}
