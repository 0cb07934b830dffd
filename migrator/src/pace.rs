//! What a source session may put on the core link: a token bucket in front of its connection.
//!
//! The limit is one of the link, so what is counted is what the link counts: every byte of every frame, and an
//! allowance for the headers around it, which lies between what links count: 4.6 % with segments of 1500 bytes, 0.7 %
//! with 9000, next to nothing where a kernel counts trains of segments as one. What does not fit waits inside the write. So the batches behind it wait too,
//! the window sees how long they took, and QEMU's stream is read no faster than that: the rate that the forecast of
//! the stop and QEMU's own convergence work with is the true one.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep};

use crate::source::pump::Reading;
use crate::stats::{Counters, add};
use crate::uplink::Yielding;

/// A byte of ours is so many on the link.
const ON_THE_LINK: f64 = 1.02;

/// The bucket holds what the rate brings in this time: long beside the timer's tick, short beside a switch's buffers.
const BURST: Duration = Duration::from_millis(25);
/// And at least this much, or slow sessions would send crumbs.
const BURST_MIN: f64 = 4096.0;
/// While a session holds back it looks so often whether it may go on.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// A wait is not longer, so that a rate that rises is noticed.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The rate of a session, shared with the tasks that may change it.
#[derive(Debug, Default)]
pub struct Pace {
    /// Bytes per second on the link; 0: no limit.
    rate: AtomicU64,
}

impl Pace {
    /// Bytes per second on the link from now on; 0: as fast as it can.
    pub fn set(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Bytes per second on the link, if there is a limit.
    pub fn get(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// What a connection that could carry `rate` carries with the limit, in its own bytes per second.
    pub fn held(&self, rate: f64) -> f64 {
        self.get().map_or(rate, |limit| rate.min(limit as f64 / ON_THE_LINK))
    }
}

/// Bytes on the link that may be sent at once; negative while they were sent in advance.
#[derive(Debug, Default)]
struct Bucket {
    level: f64,
    /// When it was last filled, nanoseconds.
    at: u64,
}

impl Bucket {
    /// How many of `want` bytes may be written now, or how long to wait until it is worth a write.
    fn allow(&mut self, rate: u64, now: u64, want: usize) -> Result<usize, Duration> {
        let burst = (rate as f64 * BURST.as_secs_f64()).max(BURST_MIN);
        let brought = now.saturating_sub(self.at) as f64 / 1e9 * rate as f64;
        self.level = (self.level + brought).min(burst);
        self.at = now;
        let cost = on_the_link(want);
        let worth = cost.min(burst / 2.0);
        if self.level < worth {
            let wait = Duration::from_secs_f64((worth - self.level) / rate as f64);
            return Err(wait.clamp(Duration::from_millis(1), WAIT_MAX));
        }
        if self.level >= cost {
            return Ok(want);
        }
        Ok((self.level / ON_THE_LINK) as usize)
    }

    fn spend(&mut self, written: usize) {
        self.level -= on_the_link(written);
    }
}

fn on_the_link(bytes: usize) -> f64 {
    bytes as f64 * ON_THE_LINK
}

/// The writing half of a session's connection, held to a pace; counts what is written.
#[derive(Debug)]
pub struct Paced<W> {
    inner: W,
    pace: Arc<Pace>,
    counters: Arc<Counters>,
    bucket: Bucket,
    began: Instant,
    yielding: Option<(Yielding, Arc<Reading>)>,
    sleep: Pin<Box<Sleep>>,
}

impl<W> Paced<W> {
    /// `inner` at a pace; what is written is added to `counters.wire_bytes`.
    pub fn new(inner: W, pace: Arc<Pace>, counters: Arc<Counters>) -> Self {
        let sleep = Box::pin(sleep(Duration::ZERO));
        let (bucket, began) = (Bucket::default(), Instant::now());
        Self { inner, pace, counters, bucket, began, yielding: None, sleep }
    }

    /// Holds back while VMs of other sessions are stopped, until the own VM is.
    pub fn yielding(self, yielding: Yielding, reading: Arc<Reading>) -> Self {
        Self { yielding: Some((yielding, reading)), ..self }
    }

    /// Ready when it is not another session's turn.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some((yielding, reading)) = &mut self.yielding
            && yielding.holds_back(reading.is_straight())
        {
            self.sleep.as_mut().reset(Instant::now() + LOOK_AGAIN);
            ready!(self.sleep.as_mut().poll(cx));
        }
        Poll::Ready(())
    }

    /// Ready with how many of `want` bytes may be written; none: no limit.
    fn poll_allow(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Option<usize>> {
        ready!(self.poll_turn(cx));
        loop {
            let Some(rate) = self.pace.get() else { return Poll::Ready(None) };
            let now = self.began.elapsed().as_nanos() as u64;
            match self.bucket.allow(rate, now, want) {
                Ok(allowed) => return Poll::Ready(Some(allowed)),
                Err(wait) => {
                    self.sleep.as_mut().reset(Instant::now() + wait);
                    ready!(self.sleep.as_mut().poll(cx));
                }
            }
        }
    }

    fn written(&mut self, limited: bool, result: io::Result<usize>) -> io::Result<usize> {
        let written = *result.as_ref().unwrap_or(&0);
        add(&self.counters.wire_bytes, written);
        if limited {
            self.bucket.spend(written);
        }
        result
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Paced<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let allowed = ready!(this.poll_allow(cx, buf.len()));
        let part = &buf[..allowed.unwrap_or(buf.len())];
        let result = ready!(Pin::new(&mut this.inner).poll_write(cx, part));
        Poll::Ready(this.written(allowed.is_some(), result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let want = bufs.iter().map(|buf| buf.len()).sum();
        let allowed = ready!(this.poll_allow(cx, want));
        let inner = Pin::new(&mut this.inner);
        let result = match whole(bufs, allowed.unwrap_or(want)) {
            Ok(fitting) => ready!(inner.poll_write_vectored(cx, fitting)),
            Err(part) => ready!(inner.poll_write(cx, part)),
        };
        Poll::Ready(this.written(allowed.is_some(), result))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The first buffers that are together no longer than `allowed`; if the first that is not empty is longer by itself,
/// its beginning.
fn whole<'a, 'b>(bufs: &'a [IoSlice<'b>], allowed: usize) -> Result<&'a [IoSlice<'b>], &'a [u8]> {
    let mut total = 0;
    for (index, buf) in bufs.iter().enumerate() {
        total += buf.len();
        if total > allowed {
            return if total == buf.len() { Err(&buf[..allowed]) } else { Ok(&bufs[..index]) };
        }
    }
    Ok(bufs)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::uplink::Uplink;

    const MS: u64 = 1_000_000;

    /// Writes `frame` after `frame` for `ms` of virtual time from `begin` on; bytes on the link.
    fn run(bucket: &mut Bucket, rate: u64, begin: u64, ms: u64, frame: usize) -> f64 {
        let (mut now, mut left, mut sent) = (begin, frame, 0.0);
        while now < begin + ms * MS {
            match bucket.allow(rate, now, left) {
                Ok(allowed) => {
                    assert!(allowed > 0, "an empty write would be tried for ever");
                    bucket.spend(allowed);
                    sent += on_the_link(allowed);
                    left = if allowed == left { frame } else { left - allowed };
                }
                Err(wait) => now += wait.as_nanos() as u64,
            }
        }
        sent
    }

    #[test]
    fn a_rate_is_kept_with_any_frames() {
        for rate in [20_000, 1_000_000, 25_000_000, 3_000_000_000] {
            for frame in [1, 100, 70_000, 1 << 20] {
                // So many small frames would take long to count, and would show nothing new.
                if frame as u64 * 100_000 < rate {
                    continue;
                }
                let sent = run(&mut Bucket::default(), rate, 7, 20_000, frame);
                let wanted = rate as f64 * 20.0;
                let off = (sent - wanted).abs() / wanted;
                assert!(off < 0.02, "{rate} bytes/s in frames of {frame}: {off}");
            }
        }
    }

    #[test]
    fn a_pause_is_not_caught_up_with() {
        let mut bucket = Bucket::default();
        run(&mut bucket, 1_000_000, 0, 1000, 4096);
        let sent = run(&mut bucket, 1_000_000, 60_000 * MS, 100, 4096);
        assert!(sent <= 100_000.0 + 25_000.0 + 5_000.0, "{sent}");
    }

    #[test]
    fn a_rate_that_falls_leaves_no_old_burst() {
        let mut bucket = Bucket { level: 0.0, at: 0 };
        assert!(bucket.allow(1_000_000_000, 1000 * MS, 1).is_ok());
        let sent = run(&mut bucket, 1_000_000, 1000 * MS, 100, 4096);
        assert!(sent <= 100_000.0 + 25_000.0 + 5_000.0, "{sent}");
    }

    #[test]
    fn a_forecast_knows_the_limit() {
        let pace = Pace::default();
        assert_eq!(pace.held(5e6), 5e6);
        pace.set(1_000_000);
        assert!(pace.held(5e6) < 1e6);
        assert_eq!(pace.held(5e3), 5e3);
        pace.set(0);
        assert_eq!(pace.get(), None);
    }

    #[test]
    fn buffers_are_taken_whole_or_the_first_in_part() {
        let bufs = [IoSlice::new(b""), IoSlice::new(b"abc"), IoSlice::new(b"defg")];
        assert_eq!(whole(&bufs, 9).map(<[_]>::len), Ok(3));
        assert_eq!(whole(&bufs, 6).map(<[_]>::len), Ok(2));
        assert_eq!(whole(&bufs, 3).map(<[_]>::len), Ok(2));
        assert_eq!(whole(&bufs, 2).map(<[_]>::len), Err(&b"ab"[..]));
    }

    /// A write waits while another VM is stopped, as long as the session may be held back; once its own VM is stopped it
    /// waits no more.
    #[tokio::test(start_paused = true)]
    async fn a_write_waits_for_stopped_vms_and_not_for_ever() {
        let (uplink, reading) = (Arc::new(Uplink::default()), Arc::new(Reading::default()));
        let paced = Paced::new(Vec::new(), Arc::default(), Arc::default());
        let mut paced = paced.yielding(Yielding::new(uplink.clone()), reading.clone());
        let mut written = async |bytes: &[u8]| {
            let begin = Instant::now();
            paced.write_all(bytes).await.unwrap();
            begin.elapsed()
        };
        assert_eq!(written(b"runs").await, Duration::ZERO);
        let stopped = uplink.stopped();
        let waited = written(b"holds back").await;
        assert!((150..160).contains(&waited.as_millis()), "{waited:?}");
        tokio::time::advance(Duration::from_secs(1)).await;
        reading.go_straight();
        assert_eq!(written(b"is stopped itself").await, Duration::ZERO);
        drop(stopped);
    }

    #[tokio::test]
    async fn what_is_paced_arrives_whole_and_is_counted() {
        let (pace, counters) = (Arc::new(Pace::default()), Arc::new(Counters::default()));
        let mut paced = Paced::new(Vec::new(), pace.clone(), counters.clone());
        let bytes: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
        let mut writer = crate::conn::FrameWriter::new(&mut paced);
        let kind = rackferry_migrator_protocol::frame::Kind::Stream;
        pace.set(5_000_000);
        let first = writer.send(kind, &[&bytes[..20_000], &bytes[20_000..]]).await.unwrap();
        pace.set(0);
        let second = writer.send(kind, &[&bytes]).await.unwrap();
        paced.flush().await.unwrap();
        assert_eq!(paced.inner.len(), first + second);
        assert_eq!(counters.totals().wire_bytes as usize, first + second);
        assert!(paced.inner[..first].ends_with(&bytes) && paced.inner.ends_with(&bytes));
    }
}
