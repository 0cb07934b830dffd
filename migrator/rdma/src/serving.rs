//! Queue pairs by which a peer reads our arena.

use std::sync::Arc;

use crate::device::{Device, Domain, Export};
use crate::error::RdmaError;
use crate::peer::{Endpoint, RemoteRegion};
use crate::region::Region;
use crate::verbs::{Pd, Qp};

/// A serving queue pair that waits for its peer.
#[derive(Debug)]
pub struct ServingSetup {
    serving: Serving,
    local: Endpoint,
}

impl ServingSetup {
    /// A queue pair by which one peer may read the domain's regions, all of them.
    ///
    /// No memory that READs land in can be reached by it:
    ///
    /// ```no_run
    /// # use rackferry_rdma::{Domain, Export, Landing, RdmaError, Region, ServingSetup};
    /// # fn f(domain: &Domain<Export>, region: &Region<Export>) -> Result<(), RdmaError> {
    /// ServingSetup::new(domain)?.offer(region)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0308
    /// # use rackferry_rdma::{Domain, Export, Landing, RdmaError, Region, ServingSetup};
    /// # fn f(domain: &Domain<Export>, region: &Region<Landing>) -> Result<(), RdmaError> {
    /// ServingSetup::new(domain)?.offer(region)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0308
    /// # use rackferry_rdma::{Domain, Export, Landing, RdmaError, Region, ServingSetup};
    /// # fn f(domain: &Domain<Landing>, region: &Region<Export>) -> Result<(), RdmaError> {
    /// ServingSetup::new(domain)?.offer(region)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The device has no more, or is gone.
    pub fn new(domain: &Domain<Export>) -> Result<Self, RdmaError> {
        let device = domain.device().clone();
        // It never posts, so it needs no room in the completion queue.
        let qp = Qp::new(domain.pd(), device.inner.engine.completions(), 1, 1)?;
        qp.init(device.inner.local.port, true)?;
        let local = device.endpoint(qp.number(), random_psn(), device.limits().serves)?;
        Ok(Self { serving: Serving { qp, pd: Arc::clone(domain.pd()), device }, local })
    }

    /// Our end, for the peer.
    #[must_use]
    pub fn local(&self) -> &Endpoint {
        &self.local
    }

    /// What the peer must know of a region to read it.
    ///
    /// # Errors
    /// The region is of another domain.
    pub fn offer(&self, region: &Region<Export>) -> Result<RemoteRegion, RdmaError> {
        region.offer(&self.serving.pd).ok_or(RdmaError::OtherDomain)
    }

    /// Connects to a peer's fetching queue pair: from now on it is answered.
    ///
    /// # Errors
    /// The device refuses the peer's values.
    pub fn connect(self, peer: &Endpoint) -> Result<Serving, RdmaError> {
        let Self { serving, local } = self;
        let mtu = local.mtu().min(peer.mtu());
        serving.qp.answer(serving.device.inner.local, peer, mtu, local.reads())?;
        Ok(serving)
    }
}

/// A queue pair by which a peer reads, until this is dropped. It cannot post.
#[derive(Debug)]
pub struct Serving {
    qp: Qp,
    pd: Arc<Pd>,
    device: Device,
}

impl Serving {
    /// Its device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}

/// The number of a first packet. Whoever does not know it forges no packets, so it is random and travels encrypted.
pub(crate) fn random_psn() -> u32 {
    rand::random::<u32>() >> 8
}
