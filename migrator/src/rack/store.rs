//! Where page contents lie in the guest memories of this host.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rackferry_dedup_index::{ContentMap, Digest, Location, PAGE_SIZE, PageHasher};

use super::pool::Pool;
use crate::memory::{GuestMemory, MemoryError};

/// The contents this host can hand out. Soft state: what it says is verified by digest before it is used.
pub struct ContentStore {
    map: ContentMap,
    memories: RwLock<HashMap<u32, Arc<GuestMemory>>>,
    next: AtomicU32,
    /// Made when it is first needed.
    pool: Mutex<Option<Pool>>,
}

impl std::fmt::Debug for ContentStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentStore").field("entries", &self.map.len()).finish_non_exhaustive()
    }
}

/// What this host knows of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is here, verified.
    Here,
    /// It was here and has been overwritten.
    Gone,
    /// It has not come yet, if it comes at all.
    Unknown,
}

/// Reads pages out of the store in batches; keeps its memory between them.
#[derive(Debug, Default)]
pub struct StoreReader {
    states: Vec<Found>,
    locations: Vec<Option<Location>>,
    found: Vec<usize>,
    digests: Vec<Digest>,
    pages: Vec<[u8; PAGE_SIZE]>,
}

impl StoreReader {
    /// What the last [`ContentStore::read`] found, one state a wanted digest.
    pub fn states(&self) -> &[Found] {
        &self.states
    }

    /// Positions of the wanted digests that are [`Found::Here`], ascending.
    pub fn found(&self) -> &[usize] {
        &self.found
    }

    /// Their contents, in the same order, verified.
    pub fn pages(&self) -> &[[u8; PAGE_SIZE]] {
        &self.pages[..self.found.len()]
    }
}

/// Pages one behind the other in one memory.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: Location,
    pages: usize,
}

impl Stretch {
    fn continues_with(&self, location: Location) -> bool {
        let end = u64::from(self.start.page) + self.pages as u64;
        self.start.memory == location.memory && end == u64::from(location.page)
    }
}

impl ContentStore {
    /// A store whose map takes at most `ceiling_bytes`.
    pub fn with_ceiling(ceiling_bytes: usize) -> Self {
        Self {
            map: ContentMap::with_ceiling(ceiling_bytes),
            memories: RwLock::default(),
            next: AtomicU32::new(1),
            pool: Mutex::default(),
        }
    }

    /// Makes a guest's memory a place where content can lie.
    pub fn add_memory(&self, memory: Arc<GuestMemory>) -> u32 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.name_memory(id, memory);
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

    /// Keeps copies of contents that lie in none of the memories, for a while.
    ///
    /// # Errors
    /// The host is out of memory.
    pub fn keep(
        &self,
        digests: &[Digest],
        contents: &[[u8; PAGE_SIZE]],
    ) -> Result<(), MemoryError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = match &mut *pool {
            Some(pool) => pool,
            none => {
                let new = Pool::new(self.next.fetch_add(1, Ordering::Relaxed))?;
                self.name_memory(new.lap, new.memory.clone());
                none.insert(new)
            }
        };
        let (mut digests, mut contents) = (digests, contents);
        let mut entries = Vec::with_capacity(digests.len());
        while !contents.is_empty() {
            let count = contents.len().min(pool.room());
            entries.clear();
            pool.write(&digests[..count], &contents[..count], &mut entries)?;
            self.insert(pool.lap, &entries);
            (digests, contents) = (&digests[count..], &contents[count..]);
            if pool.room() == 0 {
                let lap = self.next.fetch_add(1, Ordering::Relaxed);
                self.name_memory(lap, pool.memory.clone());
                if let Some(over) = pool.turn(lap) {
                    self.remove_memory(over);
                }
            }
        }
        Ok(())
    }

    fn name_memory(&self, id: u32, memory: Arc<GuestMemory>) {
        self.memories.write().unwrap_or_else(PoisonError::into_inner).insert(id, memory);
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

    /// Looks for the contents of `wanted` and leaves in `reader` what it finds. Entries whose page has been overwritten
    /// since stay, so that the next caller learns the same and does not wait for content that has come and gone.
    pub fn read(&self, hasher: &PageHasher, wanted: &[Digest], reader: &mut StoreReader) {
        reader.locations.clear();
        self.map.lookup_batch(wanted, &mut reader.locations);
        self.copy(reader);
        let StoreReader { states, found, digests, pages, .. } = reader;
        let views: Vec<&[u8; PAGE_SIZE]> = pages[..found.len()].iter().collect();
        digests.clear();
        hasher.digest_batch(&views, digests);
        states.clear();
        states.resize(wanted.len(), Found::Unknown);
        let mut good = 0;
        for at in 0..found.len() {
            let i = found[at];
            if digests[at] != wanted[i] {
                states[i] = Found::Gone;
                continue;
            }
            states[i] = Found::Here;
            if good < at {
                (found[good], pages[good]) = (i, pages[at]);
            }
            good += 1;
        }
        found.truncate(good);
    }

    /// Copies what lies at the locations, as few reads as they allow.
    fn copy(&self, reader: &mut StoreReader) {
        let StoreReader { locations, found, pages, .. } = reader;
        found.clear();
        if pages.len() < locations.len() {
            pages.resize(locations.len(), [0; PAGE_SIZE]);
        }
        let memories = self.memories.read().unwrap_or_else(PoisonError::into_inner);
        let mut read = |stretch: Option<Stretch>, found: &mut Vec<usize>| {
            let Some(Stretch { start, pages: count }) = stretch else { return };
            let into = &mut pages[found.len() - count..found.len()];
            let memory = memories.get(&start.memory);
            let done = memory.map(|m| m.read_present(start.page.into(), into.as_flattened_mut()));
            if !matches!(done, Some(Ok(()))) {
                found.truncate(found.len() - count);
            }
        };
        let mut stretch: Option<Stretch> = None;
        for (i, location) in locations.iter().enumerate() {
            let Some(location) = *location else { continue };
            match &mut stretch {
                Some(open) if open.continues_with(location) => open.pages += 1,
                _ => {
                    read(stretch, found);
                    stretch = Some(Stretch { start: location, pages: 1 });
                }
            }
            found.push(i);
        }
        read(stretch, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::POOL_PAGES;
    use rackferry_dedup_index::DomainKey;

    #[test]
    fn the_pool_keeps_the_latest_and_knows_that_the_one_before_is_gone() {
        let hasher = PageHasher::new(&DomainKey([3; 32]));
        let store = ContentStore::with_ceiling(16 << 20);
        let page = |n: u32| {
            let mut page = [0; PAGE_SIZE];
            page[..4].copy_from_slice(&n.to_le_bytes());
            page
        };
        let keep = |numbers: std::ops::Range<u32>| {
            let pages: Vec<_> = numbers.map(page).collect();
            let digests: Vec<_> = pages.iter().map(|page| hasher.digest(page)).collect();
            store.keep(&digests, &pages).unwrap();
        };
        let found = |n: u32| {
            let mut reader = StoreReader::default();
            store.read(&hasher, &[hasher.digest(&page(n))], &mut reader);
            reader.states()[0]
        };
        keep(0..10);
        assert_eq!((found(3), found(11)), (Found::Here, Found::Unknown));
        keep(10..POOL_PAGES + 5);
        assert_eq!(
            (found(3), found(7), found(POOL_PAGES + 4)),
            (Found::Gone, Found::Here, Found::Here)
        );
        keep(POOL_PAGES + 5..2 * POOL_PAGES + 1);
        assert_eq!((found(3), found(2 * POOL_PAGES)), (Found::Unknown, Found::Here));
    }
}
