//! A device that is open, and its two protection domains.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rdma_sys::{ibv_device_attr, ibv_port_state};
use tokio_util::sync::CancellationToken;

use crate::credits::Credits;
use crate::engine::{self, Engine};
use crate::error::RdmaError;
use crate::gids::{self, Address};
use crate::limits::{COMPLETION_QUEUE, OUTSTANDING_MAX, SCATTER_MAX, SEND_QUEUE};
use crate::peer::{Endpoint, Gid, Mtu};
use crate::verbs::{Access, Completions, Context, Local, Pd, device_names};

/// Where the kernel shows devices.
const SYSFS: &str = "/sys/class/infiniband";
/// Ethernet, as ports tell it.
const ETHERNET: u8 = 2;
/// What is said of a machine without devices.
const NONE: &str =
    "the kernel shows none; load the card's module and ib_uverbs, `rdma link` lists devices";

/// Which device to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// The first whose port is up.
    #[default]
    Any,
    /// By its name.
    Named(String),
    /// The one that has this address.
    At(IpAddr),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Named(name) => write!(f, " {name}"),
            Self::At(address) => write!(f, " with the address {address}"),
        }
    }
}

/// What a device can do, as far as we use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Landing slots of one READ.
    pub scatter: u32,
    /// READs of a queue pair that it serves at a time.
    pub serves: u8,
    /// READs of a queue pair that it has under way.
    pub asks: u8,
    /// READs of a send queue.
    pub send_queue: u32,
    /// Entries of the completion queue.
    pub completion_queue: u32,
}

impl Limits {
    fn of(device: &ibv_device_attr) -> Self {
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        let reads = |value: i32| number(value).min(OUTSTANDING_MAX.into()) as u8;
        Self {
            scatter: number(device.max_sge_rd).min(number(device.max_sge)).min(SCATTER_MAX),
            serves: reads(device.max_qp_rd_atom),
            asks: reads(device.max_qp_init_rd_atom),
            send_queue: number(device.max_qp_wr).min(SEND_QUEUE),
            completion_queue: number(device.max_cqe).min(COMPLETION_QUEUE),
        }
    }

    fn check(self, name: &str) -> Result<Self, RdmaError> {
        let least = [self.scatter, self.serves.into(), self.asks.into(), self.send_queue];
        if least.contains(&0) || self.completion_queue < self.send_queue {
            return Err(RdmaError::Unsupported(format!("{name} cannot READ: {self:?}")));
        }
        Ok(self)
    }
}

/// An open device. Clones are the same device; it is closed with the last of them, and of what was made of it.
#[derive(Clone, Debug)]
pub struct Device {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    pub(crate) limits: Limits,
    pub(crate) local: Local,
    pub(crate) mtu: Mtu,
    gid: Gid,
    /// Room of the completion queue that is not promised to a send queue.
    room: Mutex<Credits>,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Device {
    /// Opens a device, and begins the task that waits for its completions. Must be called within a runtime of tokio.
    ///
    /// `traffic_class` is that of the IP packets: DSCP x 4.
    ///
    /// # Errors
    /// [`RdmaError::NoDevice`] if there is none; that is no fault of the machine: pages then come by TCP.
    pub fn open(which: &Which, traffic_class: u8) -> Result<Self, RdmaError> {
        let nothing = |why: String| RdmaError::NoDevice { wanted: which.to_string(), why };
        let names = device_names().map_err(|error| nothing(format!("{error}: {NONE}")))?;
        if names.is_empty() {
            return Err(nothing(NONE.to_owned()));
        }
        let mut others = Vec::new();
        for name in &names {
            if matches!(which, Which::Named(wanted) if wanted != name) {
                others.push(format!("{name} is another"));
                continue;
            }
            let Some(context) = Context::open(name)? else { continue };
            match port(&context, which)? {
                Ok((number, mtu, address)) => {
                    let local = Local { port: number, gid_index: address.index, traffic_class };
                    return Self::begin(context, local, mtu, address.gid);
                }
                Err(why) => others.push(format!("{name} {why}")),
            }
        }
        Err(nothing(others.join(", ")))
    }

    fn begin(context: Context, local: Local, mtu: Mtu, gid: Gid) -> Result<Self, RdmaError> {
        let context = Arc::new(context);
        let limits = Limits::of(&context.attributes()?).check(context.name())?;
        let completions = Completions::new(&context, limits.completion_queue)?;
        let engine = Arc::new(Engine::new(Arc::new(completions)));
        let stop = CancellationToken::new();
        engine::begin(&engine, stop.clone())?;
        let room = Mutex::new(Credits::of(limits.completion_queue));
        Ok(Self { inner: Arc::new(Inner { engine, limits, local, mtu, gid, room, stop }) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.inner.engine.context().name()
    }

    /// The address of its port.
    #[must_use]
    pub fn gid(&self) -> Gid {
        self.inner.gid
    }

    /// What it can do.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Whether it was removed or has failed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.inner.engine.is_gone()
    }

    /// Waits until it is. Everything of it is to be dropped then: the kernel waits for that. Cancel safe: yes.
    pub async fn gone(&self) {
        self.inner.engine.gone().await;
    }

    /// A protection domain. One of each kind is needed per dedup domain.
    ///
    /// # Errors
    /// The device has no more, or is gone.
    pub fn domain<K: Kind>(&self) -> Result<Domain<K>, RdmaError> {
        let pd = Arc::new(Pd::new(self.inner.engine.context())?);
        Ok(Domain { pd, device: self.clone(), kind: PhantomData })
    }

    /// Our end of a connection, for the peer.
    pub(crate) fn endpoint(&self, qpn: u32, psn: u32, reads: u8) -> Result<Endpoint, RdmaError> {
        Ok(Endpoint::new(self.gid(), qpn, psn, self.inner.mtu.bytes(), reads.into())?)
    }

    /// Promises room in the completion queue.
    pub(crate) fn take_room(&self, entries: u32) -> Result<(), RdmaError> {
        let mut room = self.inner.room.lock().unwrap_or_else(PoisonError::into_inner);
        if room.take(entries) {
            return Ok(());
        }
        let (taken, total) = (room.taken(), room.total());
        Err(RdmaError::Full { queue: "completion queue", wanted: entries, taken, total })
    }

    /// Takes the promise back.
    pub(crate) fn give_room(&self, entries: u32) {
        self.inner.room.lock().unwrap_or_else(PoisonError::into_inner).give(entries);
    }
}

/// The port to use of a device, or why there is none.
fn port(context: &Context, which: &Which) -> Result<Result<(u8, Mtu, Address), String>, RdmaError> {
    let wanted = if let Which::At(address) = which { Some(*address) } else { None };
    let mut why = "has no port".to_owned();
    for number in 1..=context.attributes()?.phys_port_cnt {
        let port = context.port(number)?;
        if port.link_layer != ETHERNET {
            why = format!("port {number} is InfiniBand, RoCE v2 is needed");
            continue;
        }
        if port.state != ibv_port_state::IBV_PORT_ACTIVE {
            why = format!("port {number} is down");
            continue;
        }
        let Some(mtu) = Mtu::from_number(port.active_mtu) else {
            why = format!("port {number} has an unknown MTU");
            continue;
        };
        let folder = Path::new(SYSFS).join(context.name()).join(format!("ports/{number}"));
        let addresses = gids::of_port(&folder)
            .map_err(|source| RdmaError::Call { call: "reading the port's addresses", source })?;
        match gids::choose(&addresses, wanted) {
            Some(address) => return Ok(Ok((number, mtu, address))),
            None => why = format!("port {number} has no such RoCE v2 address"),
        }
    }
    Ok(Err(why))
}

/// What a domain is for.
pub trait Kind: sealed::Kind + fmt::Debug + Send + Sync + 'static {}

/// Memory that peers read, and the queue pairs by which they do.
#[derive(Debug)]
pub enum Export {}

/// Memory that our READs land in, and the queue pairs that post them.
#[derive(Debug)]
pub enum Landing {}

impl Kind for Export {}
impl Kind for Landing {}

pub(crate) mod sealed {
    use super::Access;

    /// What may be done to memory of the kind.
    pub trait Kind {
        #[doc(hidden)]
        #[allow(private_interfaces, reason = "the trait is sealed")]
        const ACCESS: Access;
    }
}

#[allow(private_interfaces, reason = "the trait is sealed")]
impl sealed::Kind for Export {
    const ACCESS: Access = Access::RemoteRead;
}

#[allow(private_interfaces, reason = "the trait is sealed")]
impl sealed::Kind for Landing {
    const ACCESS: Access = Access::LocalWrite;
}

/// A protection domain: memory and queue pairs of two domains do not reach each other.
#[derive(Debug)]
pub struct Domain<K: Kind> {
    pd: Arc<Pd>,
    device: Device,
    kind: PhantomData<K>,
}

impl<K: Kind> Domain<K> {
    pub(crate) fn pd(&self) -> &Arc<Pd> {
        &self.pd
    }

    /// Its device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}
