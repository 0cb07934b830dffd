//! A holder and a waiter on one device.

use std::fs;
use std::path::Path;

use rackferry_rdma::{
    Device, Domain, Endpoint, Export, Fetching, FetchingSetup, Landing, Memory, Pages, ReadBatch,
    Region, RemoteArena, RemoteRegion, RemoteSlot, Serving, ServingSetup, Slot, Which,
    limits::PAGE_BYTES,
};

/// The device of Lab B.
pub const DEVICE: &str = "rxe0";

/// Whether this is Lab B.
pub fn is_inside() -> bool {
    std::env::var_os(super::INSIDE).is_some()
}

/// The device, opened once more.
pub fn device() -> Device {
    Device::open(&Which::Named(DEVICE.to_owned()), 0).unwrap()
}

/// A page that no other number has.
pub fn page(number: u32) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    for (at, word) in page.chunks_exact_mut(8).enumerate() {
        let value = (u64::from(number) << 32 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&value.to_le_bytes());
    }
    page
}

/// An arena whose slot N holds page N.
pub struct Holder {
    pub device: Device,
    pub domain: Domain<Export>,
    pub region: Region<Export>,
    _slots: Vec<Slot<Export>>,
}

impl Holder {
    pub fn new(pages: u32) -> Self {
        let device = device();
        let domain = device.domain().unwrap();
        let memory = Memory::new(pages, Pages::Small).unwrap();
        let region = Region::register(&domain, memory).unwrap();
        let mut slots = region.take(pages as usize).unwrap();
        for slot in &mut slots {
            slot.fill(&page(slot.index()));
        }
        Self { device, domain, region, _slots: slots }
    }
}

/// A landing ring.
pub struct Waiter {
    pub device: Device,
    pub domain: Domain<Landing>,
    pub ring: Region<Landing>,
}

impl Waiter {
    pub fn new(slots: u32) -> Self {
        let device = device();
        let domain = device.domain().unwrap();
        let memory = Memory::new(slots, Pages::Small).unwrap();
        let ring = Region::register(&domain, memory).unwrap();
        Self { device, domain, ring }
    }

    /// A batch of these pages of the peer's first region, if the ring has room.
    pub fn batch(&self, pages: impl ExactSizeIterator<Item = u32>) -> Option<ReadBatch> {
        let slots = self.ring.take(pages.len())?;
        let mut batch = ReadBatch::default();
        for (slot, page) in slots.into_iter().zip(pages) {
            batch.add(RemoteSlot { region: 0, slot: page }, slot);
        }
        Some(batch)
    }

    /// No slot is with the device or a batch.
    pub fn has_all(&self) -> bool {
        self.ring.free() == self.ring.slots() as usize
    }

    /// Connects to a holder that is told our end and tells its own.
    pub fn connect(&self, tell: impl FnOnce(&Endpoint) -> (Endpoint, RemoteRegion)) -> Fetching {
        let setup = FetchingSetup::new(&self.domain).unwrap();
        let (peer, region) = tell(setup.local());
        setup.connect(&peer, RemoteArena::new(vec![region]).unwrap()).unwrap()
    }
}

/// Connects both; what the holder offers may be changed on the way.
pub fn connect_with(
    holder: &Holder,
    waiter: &Waiter,
    change: impl FnOnce(RemoteRegion) -> RemoteRegion,
) -> (Serving, Fetching) {
    let mut serving = None;
    let fetching = waiter.connect(|peer| {
        let setup = ServingSetup::new(&holder.domain).unwrap();
        let told = (*setup.local(), change(setup.offer(&holder.region).unwrap()));
        serving = Some(setup.connect(peer).unwrap());
        told
    });
    (serving.unwrap(), fetching)
}

/// Connects both.
pub fn connect(holder: &Holder, waiter: &Waiter) -> (Serving, Fetching) {
    connect_with(holder, waiter, |region| region)
}

/// A counter of the device.
pub fn counter(name: &str) -> u64 {
    let folder = Path::new("/sys/class/infiniband").join(DEVICE).join("ports/1/hw_counters");
    fs::read_to_string(folder.join(name)).unwrap().trim().parse().unwrap()
}
