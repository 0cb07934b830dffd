//! The commonest page of all.

use crate::Page;

/// Bytes looked at between two chances to stop: wide enough for vectors, short enough that a page of data
/// is told apart after its first cache lines.
const STRIDE: usize = 256;

/// Whether every byte of the page is zero.
pub fn is_zero(page: &Page) -> bool {
    page.chunks_exact(STRIDE).all(|part| part.iter().fold(0, |seen, byte| seen | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;

    #[test]
    fn one_bit_anywhere_is_seen() {
        let mut page = [0; PAGE_SIZE];
        assert!(is_zero(&page));
        for at in 0..PAGE_SIZE {
            page[at] = 1 << (at % 8);
            assert!(!is_zero(&page), "byte {at}");
            page[at] = 0;
        }
    }
}
