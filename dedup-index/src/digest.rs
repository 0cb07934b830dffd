//! What names a page: the digest of its content under the key of its dedup domain.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Secret key of a dedup domain. Equal pages of different domains have unrelated digests.
#[derive(Clone, PartialEq, Eq)]
pub struct DomainKey(pub [u8; 32]);

impl fmt::Debug for DomainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainKey(..)")
    }
}

/// Identity of a page's content: the first 16 bytes of its keyed BLAKE3.
///
/// Digests are uniformly random to a guest that lacks the domain's key, so tables use their bits as they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Bytes of a digest.
    pub const LEN: usize = 16;

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The bytes as a number of the same order: `a < b` exactly if `a.to_u128() < b.to_u128()`.
    pub(crate) const fn to_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// This digest under another name, for each `scope` another.
    pub(crate) const fn scoped(self, scope: u128) -> Self {
        Self((self.to_u128() ^ scope).to_be_bytes())
    }

    /// Bits that depend on the whole digest and on `seed`, from one multiplication whose halves are folded.
    pub(crate) const fn mix(self, seed: u64) -> u64 {
        let bits = self.to_u128();
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        let product = (low ^ seed) as u128 * (high ^ seed.rotate_left(32)) as u128;
        (product >> 64) as u64 ^ product as u64
    }
}

impl From<[u8; 16]> for Digest {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.to_u128())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Hash for Digest {
    /// Feeds eight of the digest's own bytes: they are random already, and enough for any table.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64((self.to_u128() >> 64) as u64);
    }
}

/// Hasher that passes a [`Digest`]'s own bits through. Use it for nothing but digests.
#[derive(Clone, Copy, Debug, Default)]
pub struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 ^= bits;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
}

/// For `HashMap<Digest, _, DigestBuildHasher>`: hashing costs nothing.
pub type DigestBuildHasher = BuildHasherDefault<DigestHasher>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn prints_hex_and_keeps_the_key_secret() {
        let mut bytes = [0; 16];
        bytes[0] = 0xab;
        bytes[15] = 0x01;
        assert_eq!(format!("{:?}", Digest(bytes)), "ab000000000000000000000000000001");
        assert_eq!(format!("{:?}", DomainKey([0x5a; 32])), "DomainKey(..)");
    }

    #[test]
    fn orders_like_its_number() {
        let (low, high) = (Digest([1; 16]), Digest([2; 16]));
        assert!(low < high && low.to_u128() < high.to_u128());
    }

    #[test]
    fn hashes_to_its_own_bits() {
        let digest = Digest(*b"01234567abcdefgh");
        let hash = DigestBuildHasher::default().hash_one(digest);
        assert_eq!(hash, u64::from_be_bytes(*b"01234567"));
    }
}
