//! What the test files share.

use rackferry_dedup_index::Digest;

/// The same random digests for the same seed.
pub fn digests(count: usize, seed: u64) -> Vec<Digest> {
    let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut draw = || {
        let mut bytes = [0; Digest::LEN];
        stream.fill(&mut bytes);
        Digest(bytes)
    };
    (0..count).map(|_| draw()).collect()
}
