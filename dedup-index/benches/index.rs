//! What the crate promises, measured side by side: pages hashed, zero pages found, claims and lookups answered.
//!
//! Time is the thread's CPU time, which is what "on one core" means and what other work on the machine disturbs
//! least. The maps named `dashmap` and `hashbrown` answer the same claims without the ceiling.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::{DashMap, Entry};
use hashbrown::{HashTable, hash_table};
use rackferry_dedup_index::{
    ClaimAnswer, ContentMap, Digest, DigestBuildHasher, DomainKey, Holder, IndexShard, PAGE_SIZE,
    Page, PageHasher, Rendezvous, is_zero,
};

/// CPU time of the measuring thread.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(now).expect("CPU time is never negative")
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Digests in a batch, as sessions send them.
const BATCH: usize = 256;
/// Entries in the index before and during the measurement: far more than any cache holds of them.
const ENTRIES: usize = 4_000_000;
const CROSSING: u64 = 7;
const CLAIMANT: Holder = Holder { host: 3, session: 11 };

fn random_digests(count: usize, seed: u64) -> Vec<Digest> {
    let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; count * Digest::LEN];
    stream.fill(&mut bytes);
    bytes
        .chunks_exact(Digest::LEN)
        .map(|chunk| Digest(chunk.try_into().expect("sixteen bytes")))
        .collect()
}

fn random_pages(count: usize) -> Vec<Page> {
    let mut stream = blake3::Hasher::new().finalize_xof();
    let mut pages = vec![[0; PAGE_SIZE]; count];
    stream.fill(pages.as_flattened_mut());
    pages
}

fn hash(c: &mut Criterion<CpuTime>) {
    // One batch of a session: hot in L2, as it is when the stream has just been read.
    let pages = random_pages(BATCH);
    let views: Vec<&Page> = pages.iter().collect();
    let hasher = PageHasher::new(&DomainKey([7; 32]));
    let mut digests = Vec::with_capacity(BATCH);
    let mut copy = pages.clone();

    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Bytes((BATCH * PAGE_SIZE) as u64));
    group.bench_function("blake3::hash, page by page", |b| {
        b.iter(|| {
            for page in &pages {
                black_box(blake3::hash(page));
            }
        });
    });
    group.bench_function("digest_batch", |b| {
        b.iter(|| {
            digests.clear();
            hasher.digest_batch(black_box(&views), &mut digests);
        });
    });
    group.bench_function("memcpy", |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&pages)));
    });
    group.finish();
}

fn zero(c: &mut Criterion<CpuTime>) {
    let zeros = vec![[0; PAGE_SIZE]; BATCH];
    let data = random_pages(BATCH);
    let mut group = c.benchmark_group("is_zero");
    group.throughput(Throughput::Bytes((BATCH * PAGE_SIZE) as u64));
    for (name, pages) in [("zero pages", &zeros), ("random pages", &data)] {
        group.bench_function(name, |b| {
            b.iter(|| black_box(pages).iter().filter(|page| is_zero(page)).count());
        });
    }
    group.finish();
}

/// What is claimed: half known digests, half new ones, mixed; each batch once.
struct Workload {
    known: Vec<Digest>,
    fresh: Vec<Digest>,
    at: usize,
}

impl Workload {
    fn new() -> Self {
        let fresh = random_digests(ENTRIES, 2);
        Self { known: random_digests(ENTRIES, 1), fresh, at: 0 }
    }

    /// The next batch; from the start again when all are used, so `rewind` the index then.
    fn next(&mut self, mut rewind: impl FnMut()) -> [Digest; BATCH] {
        if (self.at + 1) * BATCH > ENTRIES {
            self.at = 0;
            rewind();
        }
        let from = self.at * BATCH;
        self.at += 1;
        let stride = 7_919;
        std::array::from_fn(|i| match i % 2 {
            0 => self.known[(from + i) * stride % ENTRIES],
            _ => self.fresh[from + i],
        })
    }
}

/// Something that answers claims as an index does.
trait Claims {
    fn claim(&self, digests: &[Digest], out: &mut Vec<ClaimAnswer>);
}

impl Claims for IndexShard {
    fn claim(&self, digests: &[Digest], out: &mut Vec<ClaimAnswer>) {
        self.claim(CROSSING, CLAIMANT, digests, out);
    }
}

impl Claims for DashMap<Digest, u32, DigestBuildHasher> {
    fn claim(&self, digests: &[Digest], out: &mut Vec<ClaimAnswer>) {
        out.extend(digests.iter().map(|digest| match self.entry(*digest) {
            Entry::Occupied(_) => ClaimAnswer::Taken(CLAIMANT),
            Entry::Vacant(vacant) => {
                vacant.insert(1);
                ClaimAnswer::Yours
            }
        }));
    }
}

/// Hashbrown tables behind mutexes, digests taken stripe by stripe as our own table does.
struct Striped(Vec<Mutex<HashTable<(Digest, u32)>>>);

impl Striped {
    const STRIPES: usize = 16;

    fn new() -> Self {
        Self((0..Self::STRIPES).map(|_| Mutex::default()).collect())
    }
}

impl Claims for Striped {
    fn claim(&self, digests: &[Digest], out: &mut Vec<ClaimAnswer>) {
        let start = out.len();
        out.resize(start + digests.len(), ClaimAnswer::Yours);
        let hash = |digest: &Digest| DigestBuildHasher::default().hash_one(digest);
        let stripe_of = |digest: &Digest| usize::from(digest.0[15]) % Self::STRIPES;
        let mut order: [u16; BATCH] = std::array::from_fn(|i| i as u16);
        order.sort_unstable_by_key(|&at| stripe_of(&digests[usize::from(at)]));
        for group in order.chunk_by(|&a, &b| {
            stripe_of(&digests[usize::from(a)]) == stripe_of(&digests[usize::from(b)])
        }) {
            let mut table =
                self.0[stripe_of(&digests[usize::from(group[0])])].lock().expect("not poisoned");
            for &at in group {
                let digest = digests[usize::from(at)];
                let found = table.entry(hash(&digest), |e| e.0 == digest, |e| hash(&e.0));
                match found {
                    hash_table::Entry::Occupied(_) => {
                        out[start + usize::from(at)] = ClaimAnswer::Taken(CLAIMANT);
                    }
                    hash_table::Entry::Vacant(vacant) => {
                        vacant.insert((digest, 1));
                    }
                }
            }
        }
    }
}

fn claims_of(c: &mut Criterion<CpuTime>, name: &str, make: impl Fn() -> Box<dyn Claims>) {
    let mut group = c.benchmark_group("claims");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut work = Workload::new();
    let mut answers = Vec::with_capacity(BATCH);
    let filled = || {
        let index = make();
        let mut answers = Vec::new();
        for batch in random_digests(ENTRIES, 1).chunks_exact(BATCH) {
            answers.clear();
            index.claim(batch, &mut answers);
        }
        index
    };
    let index = std::cell::RefCell::new(filled());
    group.bench_function(name, |b| {
        b.iter_batched_ref(
            || work.next(|| *index.borrow_mut() = filled()),
            |batch| {
                answers.clear();
                index.borrow().claim(batch, &mut answers);
            },
            BatchSize::NumIterations(1),
        );
    });
    group.finish();
}

fn claims(c: &mut Criterion<CpuTime>) {
    let ceiling = 3 * ENTRIES * IndexShard::ENTRY_BYTES;
    claims_of(c, "IndexShard", || Box::new(IndexShard::with_ceiling(ceiling)));
    claims_of(c, "hashbrown, striped", || Box::new(Striped::new()));
    claims_of(c, "dashmap", || Box::new(DashMap::<_, _, DigestBuildHasher>::default()));
}

fn content(c: &mut Criterion<CpuTime>) {
    let map = ContentMap::with_ceiling(2 * ENTRIES * ContentMap::ENTRY_BYTES);
    let digests = random_digests(ENTRIES, 1);
    let entries: Vec<(Digest, u32)> = digests.iter().copied().zip(0..).collect();
    for batch in entries.chunks(BATCH) {
        map.insert_batch(1, batch);
    }
    let mut work = Workload::new();
    let mut found = Vec::with_capacity(BATCH);
    let mut group = c.benchmark_group("content");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("lookup_batch", |b| {
        b.iter_batched_ref(
            || work.next(|| {}),
            |batch| {
                found.clear();
                map.lookup_batch(batch, &mut found);
            },
            BatchSize::NumIterations(1),
        );
    });
    group.finish();
}

fn placement(c: &mut Criterion<CpuTime>) {
    let digests = random_digests(BATCH, 3);
    let placement = Rendezvous::new(0..16);
    let mut group = c.benchmark_group("rendezvous");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("owner of 16", |b| {
        b.iter(|| {
            black_box(&digests)
                .iter()
                .fold(0, |seen, digest| seen ^ placement.owner(digest).unwrap_or(0))
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = hash, zero, claims, content, placement
}
criterion_main!(benches);
