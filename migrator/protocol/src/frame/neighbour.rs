//! Frames between agents that are not about one moving VM: claims at an index shard, fetches of content.
//!
//! Every request carries a number of the caller's; answers may come in any order.

use super::{Digest, FrameError, Holder, MAX_BATCH_PAGES, Put, Reader};

/// Most tokens in one claim: the pages of one batch.
pub const MAX_CLAIM_DIGESTS: usize = MAX_BATCH_PAGES;

/// Most digests in one fetch; the answer is at most that many pages, 512 KiB.
pub const MAX_FETCH_DIGESTS: usize = 128;

/// State of a fetched digest: the page follows.
pub const FETCH_PRESENT: u8 = 0;
/// State of a fetched digest: the session that brings it is still under way, ask again.
pub const FETCH_PENDING: u8 = 1;
/// State of a fetched digest: not here, and no session brings it.
pub const FETCH_ABSENT: u8 = 2;

/// Claim contents of a crossing for a session, by tokens: one-way functions of their digests, which no content can be
/// fetched by ([`PageHasher::tokens`](rackferry_dedup_index::PageHasher::tokens)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The caller's number.
    pub request: u64,
    /// Source rack -> target rack of one evacuation.
    pub crossing: u64,
    /// The host and session that would bring the contents.
    pub claimant: Holder,
    /// At most [`MAX_CLAIM_DIGESTS`].
    pub tokens: Vec<Digest>,
}

/// One answer a token, in order: `None` = yours to send, `Some` = another session's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimReply {
    /// The caller's number.
    pub request: u64,
    /// In the order of the request.
    pub answers: Vec<Option<Holder>>,
}

/// Ask a holder for contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// The caller's number.
    pub request: u64,
    /// Digest and the session that brings it; at most [`MAX_FETCH_DIGESTS`].
    pub wanted: Vec<(Digest, u64)>,
}

/// The fixed part of the answer to a fetch; the present pages follow it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchReplyHead {
    /// The caller's number.
    pub request: u64,
    /// [`FETCH_PRESENT`], [`FETCH_PENDING`] or [`FETCH_ABSENT`] for each digest, in order.
    pub states: Vec<u8>,
}

/// A received answer to a fetch, read in place.
#[derive(Debug, Clone, Copy)]
pub struct FetchReplyView<'a> {
    /// The caller's number.
    pub request: u64,
    /// One state a digest.
    pub states: &'a [u8],
    /// The pages that are present, in order.
    pub pages: &'a [u8],
}

/// The content of a claim is not at its holder: forget the claim unless it has changed meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// Crossing of the claims.
    pub crossing: u64,
    /// Token and the holder that does not have its content; at most [`MAX_CLAIM_DIGESTS`].
    pub claims: Vec<(Digest, Holder)>,
}

/// Undo all claims of a session that failed or was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoke {
    /// The session.
    pub session: u64,
}

/// A VM of the sender's host is stopped: sessions of the receiver leave its source the way to other racks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldBack {
    /// For how long at most, milliseconds; 0: it is over. Receivers have limits of their own.
    pub millis: u16,
}

fn count(r: &mut Reader<'_>, item_len: usize, limit: usize) -> Result<usize, FrameError> {
    let n = r.count(item_len)?;
    if n > limit { Err(FrameError::Count(n)) } else { Ok(n) }
}

impl ClaimRequest {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.request);
        out.put_u64(self.crossing);
        out.put_holder(self.claimant);
        out.put_u32(self.tokens.len() as u32);
        self.tokens.iter().for_each(|d| out.extend_from_slice(&d.0));
    }

    /// Decodes and checks the count.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let (request, crossing, claimant) = (r.u64()?, r.u64()?, r.holder()?);
        let n = count(&mut r, 16, MAX_CLAIM_DIGESTS)?;
        let tokens = (0..n).map(|_| r.digest()).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Self { request, crossing, claimant, tokens })
    }
}

impl ClaimReply {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.request);
        out.put_u32(self.answers.len() as u32);
        for answer in &self.answers {
            out.put_u8(answer.is_some().into());
            out.put_holder(answer.unwrap_or(Holder { host: 0, session: 0 }));
        }
    }

    /// Decodes and checks the count.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let request = r.u64()?;
        let n = count(&mut r, 13, MAX_CLAIM_DIGESTS)?;
        let answer = |r: &mut Reader<'_>| {
            let (taken, h) = (r.u8()?, r.holder()?);
            match taken {
                0 => Ok(None),
                1 => Ok(Some(h)),
                n => Err(FrameError::Value { field: "claim answer", value: n.into() }),
            }
        };
        let answers = (0..n).map(|_| answer(&mut r)).collect::<Result<_, FrameError>>()?;
        r.finish()?;
        Ok(Self { request, answers })
    }
}

impl FetchRequest {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.request);
        out.put_u32(self.wanted.len() as u32);
        for (d, session) in &self.wanted {
            out.extend_from_slice(&d.0);
            out.put_u64(*session);
        }
    }

    /// Decodes and checks the count.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let request = r.u64()?;
        let n = count(&mut r, 24, MAX_FETCH_DIGESTS)?;
        let wanted =
            (0..n).map(|_| Ok((r.digest()?, r.u64()?))).collect::<Result<_, FrameError>>()?;
        r.finish()?;
        Ok(Self { request, wanted })
    }
}

impl FetchReplyHead {
    /// Appends the fixed part to `out`; the present pages go behind it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.request);
        out.put_u32(self.states.len() as u32);
        out.extend_from_slice(&self.states);
    }
}

impl<'a> FetchReplyView<'a> {
    /// Decodes and checks that as many pages follow as are said to be present.
    pub fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let request = r.u64()?;
        let n = count(&mut r, 1, MAX_FETCH_DIGESTS)?;
        let states = r.bytes(n)?;
        if let Some(bad) = states.iter().find(|s| **s > FETCH_ABSENT) {
            return Err(FrameError::Value { field: "fetch state", value: (*bad).into() });
        }
        let present = states.iter().filter(|s| **s == FETCH_PRESENT).count();
        let pages = r.bytes(present * 4096)?;
        r.finish()?;
        Ok(Self { request, states, pages })
    }
}

impl Forget {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.crossing);
        out.put_u32(self.claims.len() as u32);
        for (d, h) in &self.claims {
            out.extend_from_slice(&d.0);
            out.put_holder(*h);
        }
    }

    /// Decodes and checks the count.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let crossing = r.u64()?;
        let n = count(&mut r, 28, MAX_CLAIM_DIGESTS)?;
        let claims =
            (0..n).map(|_| Ok((r.digest()?, r.holder()?))).collect::<Result<_, FrameError>>()?;
        r.finish()?;
        Ok(Self { crossing, claims })
    }
}

impl Revoke {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.session);
    }

    /// Decodes.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let session = r.u64()?;
        r.finish()?;
        Ok(Self { session })
    }
}

impl HoldBack {
    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.millis);
    }

    /// Decodes.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let millis = r.u16()?;
        r.finish()?;
        Ok(Self { millis })
    }
}
