//! Queue pairs of the reliable connected kind.

use std::mem::{self, MaybeUninit};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{
    ibv_access_flags, ibv_ah_attr, ibv_create_qp, ibv_destroy_qp, ibv_gid, ibv_global_route,
    ibv_modify_qp, ibv_post_send, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_init_attr,
    ibv_qp_state, ibv_qp_type, ibv_send_flags, ibv_send_wr, ibv_sge, ibv_wr_opcode, rdma_t, wr_t,
};

use super::completions::Completions;
use super::context::none;
use super::domain::Pd;
use crate::error::RdmaError;
use crate::limits::{ACK_TIMEOUT, RETRIES};
use crate::peer::{Endpoint, Mtu};

/// Hops that a packet may take.
const HOPS: u8 = 64;
/// How long a peer that is not ready is let rest, as devices count it: 0.64 ms.
const RNR_TIMER: u8 = 12;

/// Where our own packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    /// Port of the device.
    pub port: u8,
    /// Place of our address in its table.
    pub gid_index: u8,
    /// IP's traffic class.
    pub traffic_class: u8,
}

/// A piece of our memory for a READ to land in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Where.
    pub start: NonNull<u8>,
    /// How long.
    pub bytes: u32,
    /// Under which key.
    pub lkey: u32,
}

/// One READ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    /// What its completion is to carry.
    pub id: u64,
    /// Whether it has a completion also if it ends well.
    pub signalled: bool,
    /// Where at the peer.
    pub address: u64,
    /// Under which key.
    pub rkey: u32,
    /// How many of the entries are its own, following those of the READ before.
    pub entries: usize,
}

/// A post that failed.
#[derive(Debug)]
pub(crate) struct NotPosted {
    /// How many READs the device may have got all the same: from the first on.
    pub posted: usize,
    /// Why.
    pub error: RdmaError,
}

/// A queue pair.
#[derive(Debug)]
pub(crate) struct Qp {
    raw: NonNull<ibv_qp>,
    destroyed: bool,
    _pd: Arc<Pd>,
    completions: Arc<Completions>,
}

// SAFETY: as with `Context`: the library locks a queue for each call.
unsafe impl Send for Qp {}
// SAFETY: as above.
unsafe impl Sync for Qp {}

impl Qp {
    /// A queue pair with room for so many READs of so many entries.
    pub(crate) fn new(
        pd: &Arc<Pd>,
        completions: &Arc<Completions>,
        reads: u32,
        entries: u32,
    ) -> Result<Self, RdmaError> {
        // SAFETY: numbers and pointers only: all zeros are a value.
        let mut wanted: ibv_qp_init_attr = unsafe { MaybeUninit::zeroed().assume_init() };
        wanted.send_cq = completions.raw();
        wanted.recv_cq = completions.raw();
        wanted.qp_type = ibv_qp_type::IBV_QPT_RC;
        wanted.cap.max_send_wr = reads;
        wanted.cap.max_send_sge = entries;
        // None is ever posted; some devices take no empty queue.
        wanted.cap.max_recv_wr = 1;
        wanted.cap.max_recv_sge = 1;
        // SAFETY: domain and queue live, and the queue pair holds an `Arc` of both.
        let raw = NonNull::new(unsafe { ibv_create_qp(pd.raw(), &raw mut wanted) });
        let raw = raw.ok_or_else(|| RdmaError::last("ibv_create_qp"))?;
        let completions = Arc::clone(completions);
        Ok(Self { raw, destroyed: false, _pd: Arc::clone(pd), completions })
    }

    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        // SAFETY: the queue pair lives, and its number does not change.
        unsafe { (*self.raw.as_ptr()).qp_num }
    }

    /// Gives it a port. A peer may read through it, or do nothing at all.
    pub(crate) fn init(&self, port: u8, peer_reads: bool) -> Result<(), RdmaError> {
        let mut to = attributes(ibv_qp_state::IBV_QPS_INIT);
        to.port_num = port;
        if peer_reads {
            to.qp_access_flags = ibv_access_flags::IBV_ACCESS_REMOTE_READ.0;
        }
        self.modify(
            to,
            ibv_qp_attr_mask::IBV_QP_PKEY_INDEX
                | ibv_qp_attr_mask::IBV_QP_PORT
                | ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS,
        )
    }

    /// Connects it: from now on it answers its peer.
    pub(crate) fn answer(
        &self,
        local: Local,
        peer: &Endpoint,
        mtu: Mtu,
        reads: u8,
    ) -> Result<(), RdmaError> {
        let mut to = attributes(ibv_qp_state::IBV_QPS_RTR);
        to.path_mtu = mtu.number();
        to.dest_qp_num = peer.qpn();
        to.rq_psn = peer.psn();
        to.max_dest_rd_atomic = reads;
        to.min_rnr_timer = RNR_TIMER;
        to.ah_attr = ibv_ah_attr {
            grh: ibv_global_route {
                dgid: ibv_gid { raw: peer.gid().0 },
                flow_label: 0,
                sgid_index: local.gid_index,
                hop_limit: HOPS,
                traffic_class: local.traffic_class,
            },
            is_global: 1,
            port_num: local.port,
            dlid: 0,
            sl: 0,
            src_path_bits: 0,
            static_rate: 0,
        };
        self.modify(
            to,
            ibv_qp_attr_mask::IBV_QP_AV
                | ibv_qp_attr_mask::IBV_QP_PATH_MTU
                | ibv_qp_attr_mask::IBV_QP_DEST_QPN
                | ibv_qp_attr_mask::IBV_QP_RQ_PSN
                | ibv_qp_attr_mask::IBV_QP_MAX_DEST_RD_ATOMIC
                | ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER,
        )
    }

    /// Lets it send, once it answers.
    pub(crate) fn send(&self, psn: u32, reads: u8) -> Result<(), RdmaError> {
        let mut to = attributes(ibv_qp_state::IBV_QPS_RTS);
        to.sq_psn = psn;
        to.timeout = ACK_TIMEOUT;
        to.retry_cnt = RETRIES;
        to.rnr_retry = RETRIES;
        to.max_rd_atomic = reads;
        self.modify(
            to,
            ibv_qp_attr_mask::IBV_QP_SQ_PSN
                | ibv_qp_attr_mask::IBV_QP_TIMEOUT
                | ibv_qp_attr_mask::IBV_QP_RETRY_CNT
                | ibv_qp_attr_mask::IBV_QP_RNR_RETRY
                | ibv_qp_attr_mask::IBV_QP_MAX_QP_RD_ATOMIC,
        )
    }

    /// Stops it: everything that is posted completes, flushed if not done.
    pub(crate) fn fail(&self) -> Result<(), RdmaError> {
        self.modify(attributes(ibv_qp_state::IBV_QPS_ERR), ibv_qp_attr_mask(0))
    }

    fn modify(&self, mut to: ibv_qp_attr, mask: ibv_qp_attr_mask) -> Result<(), RdmaError> {
        let mask = (mask | ibv_qp_attr_mask::IBV_QP_STATE).0;
        let mask = i32::try_from(mask).expect("flags of few bits");
        // SAFETY: the queue pair lives; the fields that the mask names are set.
        match unsafe { ibv_modify_qp(self.raw.as_ptr(), &raw mut to, mask) } {
            0 => Ok(()),
            errno => Err(RdmaError::number("ibv_modify_qp", errno)),
        }
    }

    /// Posts READs in order. `entries` are those of all READs, one after the other.
    ///
    /// # Safety
    /// Memory of the entries stays mapped, and is neither read nor written, until the device has let go of it: the
    /// last READ's completion was polled, or this queue pair is destroyed.
    pub(crate) unsafe fn post(&self, reads: &[Read], entries: &[Entry]) -> Result<(), NotPosted> {
        debug_assert_eq!(reads.iter().map(|read| read.entries).sum::<usize>(), entries.len());
        let mut entries: Vec<ibv_sge> = entries
            .iter()
            .map(|e| ibv_sge { addr: e.start.as_ptr() as u64, length: e.bytes, lkey: e.lkey })
            .collect();
        let mut rest = entries.as_mut_slice();
        let mut requests = Vec::with_capacity(reads.len());
        for read in reads {
            let (own, others) = mem::take(&mut rest).split_at_mut(read.entries);
            rest = others;
            requests.push(request(read, own));
        }
        let first = requests.as_mut_ptr();
        for at in 1..requests.len() {
            // SAFETY: both lie in the vector, which is not moved any more.
            unsafe { (*first.add(at - 1)).next = first.add(at) };
        }
        let mut refused: *mut ibv_send_wr = none();
        // SAFETY: the queue pair lives; requests and entries are read before the call returns; the memory that they
        // name is the caller's promise.
        let errno = unsafe { ibv_post_send(self.raw.as_ptr(), first, &raw mut refused) };
        if errno == 0 {
            return Ok(());
        }
        // Some libraries name no request if the doorbell fails: then all may be posted.
        let named = (0..requests.len()).find(|&at| first.wrapping_add(at) == refused);
        let error = RdmaError::number("ibv_post_send", errno);
        Err(NotPosted { posted: named.unwrap_or(requests.len()), error })
    }

    /// Destroys it: the device has let go of everything that was posted.
    pub(crate) fn destroy(mut self) -> Result<(), Self> {
        // SAFETY: the queue pair was not destroyed before, as this takes it.
        self.destroyed = unsafe { ibv_destroy_qp(self.raw.as_ptr()) } == 0;
        if self.destroyed { Ok(()) } else { Err(self) }
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        // SAFETY: the queue pair lives unless the flag says otherwise, and is not used again.
        if !self.destroyed && unsafe { ibv_destroy_qp(self.raw.as_ptr()) } != 0 {
            let device = self.completions.context().name();
            tracing::warn!(device, "ibv_destroy_qp failed");
        }
    }
}

fn attributes(state: ibv_qp_state::Type) -> ibv_qp_attr {
    // SAFETY: it holds numbers and arrays of them only: all zeros are a value.
    let mut attributes: ibv_qp_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    attributes.qp_state = state;
    attributes
}

fn request(read: &Read, entries: &mut [ibv_sge]) -> ibv_send_wr {
    // SAFETY: it holds numbers and pointers, which may be null: all zeros are a value.
    let mut request: ibv_send_wr = unsafe { MaybeUninit::zeroed().assume_init() };
    request.wr_id = read.id;
    request.opcode = ibv_wr_opcode::IBV_WR_RDMA_READ;
    request.sg_list = entries.as_mut_ptr();
    request.num_sge = i32::try_from(entries.len()).expect("as many as a device has");
    request.send_flags = if read.signalled { ibv_send_flags::IBV_SEND_SIGNALED.0 } else { 0 };
    request.wr = wr_t { rdma: rdma_t { remote_addr: read.address, rkey: read.rkey } };
    request
}
