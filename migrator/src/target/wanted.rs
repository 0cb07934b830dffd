//! Contents that references wait for, one entry a digest however many pages refer to it.

use std::collections::HashMap;

use rackferry_dedup_index::{Digest, DigestBuildHasher};
use rackferry_migrator_protocol::frame::Holder;
use rackferry_migrator_protocol::session::outstanding::{PageId, ReferenceId};
use tokio::time::Instant;

use crate::limits::{FETCH_TIMEOUT, PENDING_RETRY, PENDING_TIMEOUT};

/// A content that is not here yet.
#[derive(Debug)]
struct Entry {
    holder: Holder,
    waiters: Vec<(PageId, ReferenceId)>,
    since: Instant,
    state: State,
    /// The holder has said that it will have it.
    expected: bool,
    /// The source was asked.
    lost: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// To be looked for, not before this time.
    Due(Instant),
    /// A neighbour or the source was asked.
    Asked,
}

/// Where a due content is to be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// In this host's own memories: its session brings it here.
    Here,
    /// At a neighbour.
    There(u32),
    /// At the source: it has waited for its turn at a neighbour for as long as an answer is waited for.
    Source,
}

/// All contents one session waits for; bounded by the source's window.
#[derive(Debug, Default)]
pub struct Wanted {
    entries: HashMap<Digest, Entry, DigestBuildHasher>,
    due: Vec<Digest>,
}

impl Wanted {
    /// A page waits for `digest`.
    pub fn add(&mut self, digest: Digest, holder: Holder, page: PageId, reference: ReferenceId) {
        let now = Instant::now();
        let entry = self.entries.entry(digest).or_insert_with(|| {
            self.due.push(digest);
            Entry {
                holder,
                waiters: Vec::with_capacity(1),
                since: now,
                state: State::Due(now),
                expected: false,
                lost: false,
            }
        });
        entry.waiters.push((page, reference));
    }

    /// The content is here (or its pages were supplied): takes the pages that wait for it.
    pub fn take(&mut self, digest: &Digest) -> Vec<(PageId, ReferenceId)> {
        self.entries.remove(digest).map(|e| e.waiters).unwrap_or_default()
    }

    /// The holder is expecting it: look again soon. True if that has gone on for too long.
    pub fn pending(&mut self, digest: &Digest) -> bool {
        let Some(entry) = self.entries.get_mut(digest) else { return false };
        if entry.since.elapsed() > PENDING_TIMEOUT {
            return true;
        }
        entry.expected = true;
        // The longer it has taken, the less often it is looked for.
        let pause = PENDING_RETRY.max(entry.since.elapsed() / 4);
        entry.state = State::Due(Instant::now() + pause);
        self.due.push(*digest);
        false
    }

    /// There was no room to ask: look again at the next opportunity.
    pub fn postpone(&mut self, digest: &Digest) {
        if let Some(entry) = self.entries.get_mut(digest) {
            entry.state = State::Due(Instant::now());
            self.due.push(*digest);
        }
    }

    /// The source is to be asked: which reference names the content?
    pub fn lost(&mut self, digest: &Digest) -> Option<ReferenceId> {
        let entry = self.entries.get_mut(digest)?;
        if entry.lost {
            return None;
        }
        entry.lost = true;
        entry.state = State::Asked;
        entry.waiters.first().map(|(_, reference)| *reference)
    }

    /// Appends what is due now to `out`; it counts as asked from now on. Without `room` for requests to neighbours,
    /// what lies there stays due.
    pub fn take_due(&mut self, own_host: u32, room: bool, out: &mut Vec<(Digest, Holder, Look)>) {
        let now = Instant::now();
        let Self { entries, due } = self;
        due.retain(|digest| {
            let Some(entry) = entries.get_mut(digest) else { return false };
            match entry.state {
                State::Due(at) if at <= now => {
                    let (holder, since, expected) = (entry.holder, entry.since, entry.expected);
                    let look = if holder.host == own_host {
                        Look::Here
                    } else if !expected && now.duration_since(since) >= FETCH_TIMEOUT {
                        Look::Source
                    } else if room {
                        Look::There(holder.host)
                    } else {
                        return true;
                    };
                    entry.state = State::Asked;
                    out.push((*digest, holder, look));
                    false
                }
                State::Due(_) => true,
                State::Asked => false,
            }
        });
    }

    /// Nothing has to be looked for, now or later.
    pub fn is_idle(&self) -> bool {
        self.due.is_empty()
    }
}
