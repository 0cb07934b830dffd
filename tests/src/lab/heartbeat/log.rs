//! What one guest said.

use std::time::{Duration, Instant};

/// Bytes of this value and above are heartbeats; below, text.
const BEAT: u8 = 0x80;
/// A line longer than this is not ours.
const LINE_BYTES_MAX: usize = 4096;
/// Lines kept; a kernel that has gone mad would fill memory.
const LINES_MAX: usize = 1000;

/// One heartbeat, as it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// When it was heard.
    pub at: Instant,
    /// Its number; the guest counts from 0 and goes on counting wherever it is moved to.
    pub number: u64,
    /// Which connection it came from: each is one QEMU process.
    pub source: usize,
}

/// A guest stopped in one QEMU and went on in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The last beat of the old QEMU.
    pub last: Beat,
    /// The first beat of the new one.
    pub first: Beat,
}

impl Handover {
    /// The pause as seen from outside: the gap between the beats less the time that lies between any two.
    pub fn blackout(&self, interval: Duration) -> Duration {
        let beats = self.first.number.saturating_sub(self.last.number).max(1);
        let beats = u32::try_from(beats).unwrap_or(u32::MAX);
        (self.first.at - self.last.at).saturating_sub(interval.saturating_mul(beats))
    }
}

/// Everything heard from one guest.
#[derive(Clone, Debug, Default)]
pub struct VmLog {
    beats: Vec<Beat>,
    line: Vec<u8>,
    lines: Vec<String>,
    complaints: Vec<String>,
    failure: Option<String>,
    ready: bool,
    checks: usize,
    sweeps: usize,
}

impl VmLog {
    /// Takes in bytes heard at one moment from one connection; whether a line ended.
    pub(super) fn hear(&mut self, bytes: &[u8], at: Instant, source: usize) -> bool {
        let mut ended = false;
        for &byte in bytes {
            if byte >= BEAT {
                let number = self.number_of(byte & (BEAT - 1));
                self.beats.push(Beat { at, number, source });
            } else if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.end_line(String::from_utf8_lossy(&line).trim_end(), source);
                ended = true;
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(byte);
            }
        }
        ended
    }

    /// The whole number of a beat of which only the low bits are told.
    fn number_of(&self, low: u8) -> u64 {
        let Some(last) = self.beats.last().map(|beat| beat.number) else { return low.into() };
        let ahead = last + u64::from(low).wrapping_sub(last) % u64::from(BEAT);
        // A copy that runs on behind its successor repeats numbers: half a circle on is a step back.
        let back = ahead - last > u64::from(BEAT / 2) && ahead >= u64::from(BEAT);
        if back { ahead - u64::from(BEAT) } else { ahead }
    }

    fn end_line(&mut self, line: &str, source: usize) {
        let text = line.find("RF ").map_or(line, |at| &line[at..]);
        if let Some(number) = heartbeat_line(line) {
            self.correct(number, source);
            return;
        } else if text.starts_with("RF READY") {
            self.ready = true;
        } else if text.starts_with("RF CHECKED") {
            self.checks += 1;
        } else if text.starts_with("RF CHECK") {
            self.sweeps += 1;
        } else if text.starts_with("RF BAD") {
            self.complaints.push(text.into());
        } else if text.starts_with("RF FAIL") || line.contains("Kernel panic") {
            self.failure = Some(text.into());
        }
        if self.lines.len() < LINES_MAX {
            self.lines.push(line.into());
        }
    }

    /// We may have begun to listen late: from now on count as the guest does.
    fn correct(&mut self, number: u64, source: usize) {
        let told = self.beats.iter_mut().rev().find(|beat| beat.source == source);
        // Between two QEMUs a line may be heard out of turn; then it is not about this beat.
        if let Some(beat) =
            told.filter(|beat| beat.number % u64::from(BEAT) == number % u64::from(BEAT))
        {
            beat.number = number;
        }
    }

    /// Whether its memory was filled.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Full checks answered.
    pub fn checks(&self) -> usize {
        self.checks
    }

    /// Full passes of the guest's own slow checker.
    pub fn sweeps(&self) -> usize {
        self.sweeps
    }

    /// What the guest found wrong in its memory.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Why the guest cannot work, if so.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Lines of text, the first thousand.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// All heartbeats in the order heard.
    pub fn beats(&self) -> &[Beat] {
        &self.beats
    }

    /// The last heartbeat.
    pub fn last_beat(&self) -> Option<Beat> {
        self.beats.last().copied()
    }

    /// The longest time between two beats after `since`.
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let late = |pair: &&[Beat]| pair[1].at > since;
        let gaps = self.beats.windows(2).filter(late).map(|pair| pair[1].at - pair[0].at);
        gaps.max().unwrap_or_default()
    }

    /// Every change from one QEMU to another. On a busy machine the last beats of the old one may be heard
    /// after the first of the new one; they still are the old one's last.
    pub fn handovers(&self) -> Vec<Handover> {
        let mut sources: Vec<usize> = self.beats.iter().map(|beat| beat.source).collect();
        sources.sort_unstable();
        sources.dedup();
        let of = |source: usize| self.beats.iter().filter(move |beat| beat.source == source);
        let change = |pair: &[usize]| {
            let (first, last) = (of(pair[1]).next()?, of(pair[0]).next_back()?);
            Some(Handover { last: *last, first: *first })
        };
        sources.windows(2).filter_map(change).collect()
    }

    /// A beat of a copy that had been replaced, and the beat that replaced it: two copies ran. Beats of the
    /// old copy that were heard late have smaller numbers than the first of the new one.
    pub fn two_copies(&self) -> Option<(Beat, Beat)> {
        let mut first = *self.beats.first()?;
        for &beat in &self.beats {
            if beat.source > first.source {
                first = beat;
            } else if beat.source < first.source && beat.number >= first.number {
                return Some((beat, first));
            }
        }
        None
    }
}

/// `H<n> <t>`, both hexadecimal: the number.
fn heartbeat_line(line: &str) -> Option<u64> {
    let (number, time) = line.strip_prefix('H')?.split_once(' ')?;
    u64::from_str_radix(time, 16).ok()?;
    u64::from_str_radix(number, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(20);

    fn beat(number: u64) -> u8 {
        BEAT | number as u8
    }

    #[test]
    fn numbers_go_on_beyond_the_bits_told() {
        let mut log = VmLog::default();
        let now = Instant::now();
        for n in 0..300 {
            log.hear(&[beat(n)], now, 0);
        }
        assert_eq!(log.last_beat().unwrap().number, 299);
    }

    #[test]
    fn a_late_listener_learns_the_number_from_a_line() {
        let mut log = VmLog::default();
        log.hear(&[beat(1000)], Instant::now(), 0);
        log.hear(b"H3e8 12\n", Instant::now(), 0);
        log.hear(&[beat(1001)], Instant::now(), 0);
        assert_eq!(log.last_beat().unwrap().number, 1001);
    }

    #[test]
    fn a_pause_at_a_handover_is_the_gap_less_the_interval() {
        let mut log = VmLog::default();
        let start = Instant::now();
        log.hear(&[beat(0), b'R', b'F', b' ', b'R'], start, 0);
        log.hear(&[beat(1)], start + INTERVAL * 4, 1);
        log.hear(b"EADY\n", start + INTERVAL * 4, 1);
        let [handover] = log.handovers()[..] else { panic!("one handover") };
        assert_eq!(handover.blackout(INTERVAL), INTERVAL * 3);
        assert_eq!(log.longest_gap(start), INTERVAL * 4);
        assert!(log.is_ready(), "a line may begin in one QEMU and end in the next");
        assert_eq!(log.two_copies(), None);
    }

    #[test]
    fn a_copy_that_runs_on_is_noticed() {
        let mut log = VmLog::default();
        let now = Instant::now();
        log.hear(&[beat(100)], now, 0);
        log.hear(&[beat(101)], now, 1);
        log.hear(&[beat(100)], now, 0);
        assert_eq!(log.two_copies(), None, "the old one was only heard late");
        let [handover] = log.handovers()[..] else { panic!("one handover") };
        assert_eq!(handover.blackout(INTERVAL), Duration::ZERO);
        log.hear(&[beat(102), beat(103)], now, 1);
        assert_eq!(log.two_copies(), None);
        log.hear(&[beat(101)], now, 0);
        assert!(log.two_copies().is_some());
    }

    #[test]
    fn complaints_and_failures_are_kept() {
        let mut log = VmLog::default();
        log.hear(b"RF BAD init region 0 page 3\nRF CHECKED 1\nRF CHECK 1\n", Instant::now(), 0);
        assert_eq!((log.complaints().len(), log.checks(), log.sweeps()), (1, 1, 1));
        assert_eq!(log.failure(), None);
        log.hear(b"[ 1.0] Kernel panic - not syncing: no init\n", Instant::now(), 0);
        assert!(log.failure().is_some());
    }
}
