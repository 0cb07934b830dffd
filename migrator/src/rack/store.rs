//! Where page contents lie in the guest memories of this host.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rackferry_dedup_index::{ContentMap, Digest, Location, PAGE_SIZE, PageHasher};

use crate::memory::GuestMemory;

/// The contents this host can hand out. Soft state: what it says is verified by digest before it is used.
pub struct ContentStore {
    map: ContentMap,
    memories: RwLock<HashMap<u32, Arc<GuestMemory>>>,
    next: AtomicU32,
}

impl std::fmt::Debug for ContentStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentStore").field("entries", &self.map.len()).finish_non_exhaustive()
    }
}

/// Reads pages out of the store in batches; keeps its scratch memory between them.
#[derive(Debug, Default)]
pub struct StoreReader {
    locations: Vec<Option<Location>>,
    found: Vec<usize>,
    digests: Vec<Digest>,
    pages: Vec<[u8; PAGE_SIZE]>,
}

impl ContentStore {
    /// A store whose map takes at most `ceiling_bytes`.
    pub fn with_ceiling(ceiling_bytes: usize) -> Self {
        Self {
            map: ContentMap::with_ceiling(ceiling_bytes),
            memories: RwLock::default(),
            next: AtomicU32::new(1),
        }
    }

    /// Makes a guest's memory a place where content can lie.
    pub fn add_memory(&self, memory: Arc<GuestMemory>) -> u32 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.memories.write().unwrap_or_else(PoisonError::into_inner).insert(id, memory);
        id
    }

    /// Forgets a memory and all that lies in it.
    pub fn remove_memory(&self, id: u32) {
        self.memories.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.map.remove_memory(id);
    }

    /// Notes contents of a memory.
    pub fn insert(&self, memory: u32, entries: &[(Digest, u32)]) {
        self.map.insert_batch(memory, entries);
    }

    /// Entries of the map.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// No content is known.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Bytes the map takes.
    pub fn bytes(&self) -> usize {
        self.map.bytes()
    }

    /// Calls `take(i, Some(page))` for every `wanted[i]` that is here and verifies, and `take(i, None)` for those that
    /// were here and are gone: their page has been overwritten since. Such an entry stays, so that the next one who asks
    /// learns the same and does not wait for content that has come and gone.
    pub fn read(
        &self,
        hasher: &PageHasher,
        wanted: &[Digest],
        reader: &mut StoreReader,
        mut take: impl FnMut(usize, Option<&[u8; PAGE_SIZE]>),
    ) {
        reader.locations.clear();
        self.map.lookup_batch(wanted, &mut reader.locations);
        reader.found.clear();
        let mut used = 0;
        let memories = self.memories.read().unwrap_or_else(PoisonError::into_inner);
        for (i, location) in reader.locations.iter().enumerate() {
            let Some(location) = location else { continue };
            let Some(memory) = memories.get(&location.memory) else { continue };
            if reader.pages.len() == used {
                reader.pages.push([0; PAGE_SIZE]);
            }
            if memory.read_page(location.page.into(), &mut reader.pages[used]).is_ok() {
                reader.found.push(i);
                used += 1;
            }
        }
        drop(memories);
        let pages: Vec<&[u8; PAGE_SIZE]> = reader.pages[..used].iter().collect();
        reader.digests.clear();
        hasher.digest_batch(&pages, &mut reader.digests);
        for ((i, digest), page) in reader.found.iter().zip(&reader.digests).zip(&reader.pages) {
            take(*i, (*digest == wanted[*i]).then_some(page));
        }
    }
}
