//! The tasks and clocks of openraft: tokio's, but for how long an append may take.
//!
//! openraft 0.9 bounds an append, the confirmation of a read and a heartbeat by the heartbeat's interval. A follower
//! whose disk or processor takes longer than that is then never heard of, and the leader loses its quorum although
//! every follower answers. [`Runtime`] knows such a bound by its length and puts [`APPEND_WITHIN`] in its place.

use std::{future::Future, time::Duration};

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};

use super::node::{ELECTION_MIN, HEARTBEAT};

/// How long an append may take, and the confirmation of a read: shorter than a leader may be without a quorum, far
/// longer than a disk's worst fsync.
pub const APPEND_WITHIN: Duration = Duration::from_secs(1);

// A bound is known by its length: no other may have that of a heartbeat.
const _: () = assert!(HEARTBEAT.as_millis() < ELECTION_MIN.as_millis());

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(bound(duration), future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}

fn bound(duration: Duration) -> Duration {
    if duration == HEARTBEAT { APPEND_WITHIN } else { duration }
}

#[cfg(test)]
mod tests {
    use super::{super::node::LEASE, *};

    #[test]
    fn an_append_may_take_longer_than_a_heartbeat_and_nothing_else_may() {
        assert_eq!(bound(HEARTBEAT), APPEND_WITHIN);
        for other in [HEARTBEAT - Duration::from_millis(1), ELECTION_MIN, LEASE] {
            assert_eq!(bound(other), other);
        }
    }
}
