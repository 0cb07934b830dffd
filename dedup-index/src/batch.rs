//! Digests of many pages at once: the SIMD lanes run across pages instead of inside one.
//!
//! BLAKE3 cuts a page into four chunks of 1 KiB and joins them by three parents. One page alone fills
//! four lanes; sixteen pages fill sixteen, in the chunks as in the parents. The values are BLAKE3's own.
//!
//! Nearly all time is blake3's `hash_many`: sixteen lanes are bound by the two 512-bit ports of a core (6.5 GB/s
//! at 3 GHz), four by the latency of one page's chain (3.6 GB/s). `benches/index.rs` measures both.

use blake3::IncrementCounter;
use blake3::platform::Platform;

use crate::{Digest, DomainKey, PAGE_SIZE, Page};

/// Pages hashed side by side: the widest SIMD that blake3 knows (AVX-512).
const LANES: usize = 16;
/// Below this many pages, lanes across pages gain nothing over the four lanes inside a page.
const LANES_MIN: usize = 3;
const CHUNK_LEN: usize = 1024;
const CHUNKS: usize = PAGE_SIZE / CHUNK_LEN;
/// Bytes of a chaining value.
const CV_LEN: usize = 32;
/// Bytes of a parent's input: two chaining values.
const PARENT_LEN: usize = 2 * CV_LEN;

const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const ROOT: u8 = 1 << 3;
const KEYED_HASH: u8 = 1 << 4;

/// Bytes of one block of BLAKE3.
const BLOCK_LEN: usize = 64;

const TOKEN_CONTEXT: &str = "rackferry 2026 dedup-index claim token v1";
const DIGEST_LIST_CONTEXT: &str = "rackferry 2026 dedup-index digest of digests v1";

/// Computes digests under the key of one dedup domain.
#[derive(Clone)]
pub struct PageHasher {
    platform: Platform,
    key: [u8; 32],
    key_words: [u32; 8],
    list_key: [u8; 32],
    token_key_words: [u32; 8],
}

impl std::fmt::Debug for PageHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageHasher({:?})", self.platform)
    }
}

impl PageHasher {
    /// A hasher for the domain of `key`, with the best instructions of this machine.
    pub fn new(key: &DomainKey) -> Self {
        Self::with_platform(key, Platform::detect())
    }

    fn with_platform(key: &DomainKey, platform: Platform) -> Self {
        Self {
            platform,
            key: key.0,
            key_words: words(&key.0),
            list_key: blake3::derive_key(DIGEST_LIST_CONTEXT, &key.0),
            token_key_words: words(&blake3::derive_key(TOKEN_CONTEXT, &key.0)),
        }
    }

    /// The digest of one page. Prefer [`digest_batch`](Self::digest_batch) wherever pages come in numbers.
    pub fn digest(&self, page: &Page) -> Digest {
        truncate(blake3::keyed_hash(&self.key, page).as_bytes())
    }

    /// Appends the digests of `pages` to `out`, in order. Allocates nothing but room in `out`.
    pub fn digest_batch(&self, pages: &[&Page], out: &mut Vec<Digest>) {
        out.reserve(pages.len());
        for group in pages.chunks(LANES) {
            if group.len() < LANES_MIN {
                out.extend(group.iter().map(|page| self.digest(page)));
            } else {
                self.digest_group(group, out);
            }
        }
    }

    /// One digest over a list of digests, with which a peer of the domain authenticates a batch.
    ///
    /// Its key is derived from the domain's, so it never equals the digest of a page.
    pub fn digest_of_digests(&self, digests: &[Digest]) -> Digest {
        const GATHERED: usize = 64;
        let mut hasher = blake3::Hasher::new_keyed(&self.list_key);
        for some in digests.chunks(GATHERED) {
            let mut bytes = [0; GATHERED * Digest::LEN];
            for (slot, digest) in bytes.chunks_exact_mut(Digest::LEN).zip(some) {
                slot.copy_from_slice(&digest.0);
            }
            hasher.update(&bytes[..some.len() * Digest::LEN]);
        }
        truncate(hasher.finalize().as_bytes())
    }

    /// The names under which `digests` are claimed, in order: keyed BLAKE3 of each, filled up to a block with zeros.
    ///
    /// One-way: contents are fetched by digest, so a shard of the index learns no name that it could fetch. One block
    /// a digest, many side by side: next to hashing the page it costs little.
    pub fn tokens(&self, digests: &[Digest]) -> Vec<Digest> {
        let mut tokens = Vec::with_capacity(digests.len());
        for group in digests.chunks(LANES) {
            let mut blocks = [[0u8; BLOCK_LEN]; LANES];
            for (block, digest) in blocks.iter_mut().zip(group) {
                block[..Digest::LEN].copy_from_slice(&digest.0);
            }
            // Idle lanes are filled, as with pages.
            let lanes = group.len().next_power_of_two();
            let inputs: [&[u8; BLOCK_LEN]; LANES] = std::array::from_fn(|lane| &blocks[lane]);
            let mut hashes = [[0; CV_LEN]; LANES];
            self.platform.hash_many(
                &inputs[..lanes],
                &self.token_key_words,
                0,
                IncrementCounter::No,
                KEYED_HASH,
                CHUNK_START,
                CHUNK_END | ROOT,
                hashes.as_flattened_mut(),
            );
            tokens.extend(hashes[..group.len()].iter().map(truncate));
        }
        tokens
    }

    /// Up to `LANES` pages: their chunks, then the parents level by level.
    fn digest_group(&self, pages: &[&Page], out: &mut Vec<Digest>) {
        // Idle lanes are filled: a full vector takes one pass, an odd number of pages one for each of its bits.
        let lanes = pages.len().next_power_of_two();

        let mut blocks = [[[0u8; PARENT_LEN]; 2]; LANES];
        for chunk in 0..CHUNKS {
            let cvs = self.chunk_cvs(pages, lanes, chunk);
            for (page, cv) in blocks.iter_mut().zip(&cvs) {
                page[chunk / 2][chunk % 2 * CV_LEN..][..CV_LEN].copy_from_slice(cv);
            }
        }
        let mut tops = [[0u8; PARENT_LEN]; LANES];
        self.parent_cvs(&blocks.as_flattened()[..2 * lanes], 0, tops.as_flattened_mut());
        let mut roots = [[0u8; CV_LEN]; LANES];
        self.parent_cvs(&tops[..lanes], ROOT, roots.as_flattened_mut());

        out.extend(roots[..pages.len()].iter().map(truncate));
    }

    /// The chaining value of chunk number `chunk` of every page; the last page's fills the lanes left over.
    fn chunk_cvs(&self, pages: &[&Page], lanes: usize, chunk: usize) -> [[u8; CV_LEN]; LANES] {
        let inputs: [&[u8; CHUNK_LEN]; LANES] = std::array::from_fn(|lane| {
            pages[lane.min(pages.len() - 1)][chunk * CHUNK_LEN..]
                .first_chunk()
                .expect("a page holds four whole chunks")
        });
        let mut cvs = [[0; CV_LEN]; LANES];
        self.platform.hash_many(
            &inputs[..lanes],
            &self.key_words,
            chunk as u64,
            IncrementCounter::No,
            KEYED_HASH,
            CHUNK_START,
            CHUNK_END,
            cvs.as_flattened_mut(),
        );
        cvs
    }

    /// Chaining values of parent nodes, one after the other into `cvs`. `root` is `ROOT` at the top, else 0.
    fn parent_cvs(&self, blocks: &[[u8; PARENT_LEN]], root: u8, cvs: &mut [u8]) {
        let mut inputs = [&[0; PARENT_LEN]; 2 * LANES];
        for (input, block) in inputs.iter_mut().zip(blocks) {
            *input = block;
        }
        self.platform.hash_many(
            &inputs[..blocks.len()],
            &self.key_words,
            0,
            IncrementCounter::No,
            KEYED_HASH | PARENT | root,
            0,
            0,
            cvs,
        );
    }
}

fn words(key: &[u8; 32]) -> [u32; 8] {
    blake3::platform::words_from_le_bytes_32(key)
}

fn truncate(hash: &[u8; CV_LEN]) -> Digest {
    Digest(*hash.first_chunk().expect("a hash is longer than a digest"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: DomainKey = DomainKey(*b"the key of one rackferry domain.");

    fn pages(count: usize, seed: u64) -> Vec<Page> {
        let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        (0..count)
            .map(|_| {
                let mut page = [0; PAGE_SIZE];
                stream.fill(&mut page);
                page
            })
            .collect()
    }

    fn expected(key: &DomainKey, page: &Page) -> Digest {
        truncate(blake3::keyed_hash(&key.0, page).as_bytes())
    }

    fn platforms() -> Vec<Platform> {
        #[cfg(target_arch = "x86_64")]
        let narrower = [Platform::sse2(), Platform::sse41(), Platform::avx2()];
        #[cfg(not(target_arch = "x86_64"))]
        let narrower = [None];
        let mut all = vec![Platform::portable(), Platform::detect()];
        all.extend(narrower.into_iter().flatten());
        all
    }

    /// Fixed values: a blake3 that changes its hidden interface or its result fails here.
    #[test]
    fn known_answer() {
        let page: Page = std::array::from_fn(|i| (i % 251) as u8);
        let hasher = PageHasher::new(&KEY);
        let mut digests = Vec::new();
        hasher.digest_batch(&[&page; 16], &mut digests);
        for digest in digests {
            assert_eq!(digest.to_string(), "408ee6d643703e15654f4a62879948d4");
        }
    }

    #[test]
    fn equals_keyed_hash_at_every_batch_size_on_every_platform() {
        let pages = pages(40, 1);
        let all: Vec<&Page> = pages.iter().collect();
        for platform in platforms() {
            let hasher = PageHasher::with_platform(&KEY, platform);
            for size in 0..=all.len() {
                let mut digests = vec![Digest([7; 16])];
                hasher.digest_batch(&all[..size], &mut digests);
                assert_eq!(digests.remove(0), Digest([7; 16]), "what was in `out` stays");
                let wanted: Vec<_> = pages[..size].iter().map(|p| expected(&KEY, p)).collect();
                assert_eq!(digests, wanted, "{size} pages on {platform:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn equals_keyed_hash(key: [u8; 32], seed: u64, size in 0usize..40) {
            let key = DomainKey(key);
            let (hasher, pages) = (PageHasher::new(&key), pages(size, seed));
            let mut digests = Vec::new();
            hasher.digest_batch(&pages.iter().collect::<Vec<_>>(), &mut digests);
            let wanted: Vec<_> = pages.iter().map(|page| expected(&key, page)).collect();
            prop_assert_eq!(digests, wanted);
        }
    }

    #[test]
    fn allocates_only_room_for_the_digests() {
        let (hasher, pages) = (PageHasher::new(&KEY), pages(300, 2));
        let pages: Vec<&Page> = pages.iter().collect();
        let mut digests = Vec::new();
        let info = allocation_counter::measure(|| hasher.digest_batch(&pages, &mut digests));
        assert_eq!(info.count_total, 1);
    }

    #[test]
    fn a_token_is_the_keyed_hash_of_its_digest_on_every_platform() {
        let digests: Vec<Digest> = (0..40u8).map(|i| Digest([i; 16])).collect();
        let key = blake3::derive_key(TOKEN_CONTEXT, &KEY.0);
        let wanted = digests.iter().map(|digest| {
            let mut block = [0; BLOCK_LEN];
            block[..16].copy_from_slice(&digest.0);
            truncate(blake3::keyed_hash(&key, &block).as_bytes())
        });
        let wanted: Vec<Digest> = wanted.collect();
        for platform in platforms() {
            let hasher = PageHasher::with_platform(&KEY, platform);
            for size in 0..=digests.len() {
                let tokens = hasher.tokens(&digests[..size]);
                assert_eq!(tokens, wanted[..size], "{size} digests on {platform:?}");
            }
        }
        assert!(wanted.iter().all(|token| !digests.contains(token)));
    }

    #[test]
    fn a_list_of_digests_has_its_own_domain() {
        let hasher = PageHasher::new(&KEY);
        let list: Vec<Digest> = (0..256u32).map(|i| Digest([i as u8; 16])).collect();
        let bytes: Page = std::array::from_fn(|i| list[i / 16].0[i % 16]);
        let digest = hasher.digest_of_digests(&list);
        assert_ne!(digest, hasher.digest(&bytes), "never that of a page of the same bytes");
        assert_ne!(digest, hasher.digest_of_digests(&list[..255]));
        let other = PageHasher::new(&DomainKey([3; 32]));
        assert_ne!(digest, other.digest_of_digests(&list));
    }
}
