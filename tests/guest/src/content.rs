//! Page contents that can be computed again from (seed, page number, version).

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// Words of a page.
pub const PAGE_WORDS: usize = PAGE_BYTES / 8;

/// A page of the guest's own memory, aligned as the hardware has it.
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct Page(pub [u64; PAGE_WORDS]);

/// What a page is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros, whatever the version.
    Zero,
    /// Random words: does not compress.
    Random,
    /// Zeros, pointers, counters, words of text and noise: compresses like a heap, 2 to 3 times.
    Heap,
}

/// Names one state of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageState {
    /// What kind of words.
    pub content: Content,
    /// The seed of the region the page belongs to.
    pub seed: u64,
    /// The page's number in its region.
    pub page: u64,
    /// How often it was rewritten.
    pub version: u32,
}

/// The first wrong word of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Index of the word.
    pub word: usize,
    /// What it should be.
    pub want: u64,
    /// What it is.
    pub got: u64,
}

impl PageState {
    /// Writes the page in this state.
    pub fn write(self, page: &mut Page) {
        let mut words = self.words();
        page.0.fill_with(|| words.next_word());
    }

    /// Compares a page with this state.
    pub fn check(self, page: &Page) -> Result<(), Wrong> {
        let mut words = self.words();
        for (word, &got) in page.0.iter().enumerate() {
            let want = words.next_word();
            if got != want {
                return Err(Wrong { word, want, got });
            }
        }
        Ok(())
    }

    fn words(self) -> Words {
        let mut seed = SplitMix(self.seed);
        let mut page = SplitMix(seed.next() ^ self.page);
        let state = page.next() ^ (u64::from(self.version) << 32);
        Words { content: self.content, random: SplitMix(state) }
    }
}

struct Words {
    content: Content,
    random: SplitMix,
}

impl Words {
    fn next_word(&mut self) -> u64 {
        match self.content {
            Content::Zero => 0,
            Content::Random => self.random.next(),
            Content::Heap => heap_word(self.random.next()),
        }
    }
}

/// Text as a heap has it: names and field separators, eight bytes each.
const TEXT: [&[u8; 8]; 16] = [
    b"content-",
    b"length: ",
    b"request ",
    b"/var/lib",
    b"/usr/sha",
    b"session=",
    b"tokens\0\0",
    b"\"name\": ",
    b"default\0",
    b"node-id\0",
    b"2026-07-",
    b" 127.0.0",
    b"GET /api",
    b"HTTP/1.1",
    b"cache\0\0\0",
    b"metrics\0",
];

fn heap_word(random: u64) -> u64 {
    match random >> 60 {
        0..=4 => 0,
        5 | 6 => 0x0000_7f3a_5c00_0000 | (random & 0x00ff_fff0),
        7 | 8 => random & 0x3ff,
        9..=12 => u64::from_le_bytes(*TEXT[(random & 0xf) as usize]),
        _ => random,
    }
}

/// Sebastiano Vigna's `SplitMix64`: a few instructions a word, any state is a good one.
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next word.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(content: Content, page: u64, version: u32) -> PageState {
        PageState { content, seed: 7, page, version }
    }

    fn written(state: PageState) -> Page {
        let mut page = Page([0; PAGE_WORDS]);
        state.write(&mut page);
        page
    }

    #[test]
    fn a_page_is_right_in_its_own_state_only() {
        let page = written(state(Content::Heap, 3, 1));
        assert_eq!(state(Content::Heap, 3, 1).check(&page), Ok(()));
        assert!(state(Content::Heap, 3, 2).check(&page).is_err());
        assert!(state(Content::Heap, 4, 1).check(&page).is_err());
        assert!(PageState { seed: 8, ..state(Content::Heap, 3, 1) }.check(&page).is_err());
    }

    #[test]
    fn a_single_flipped_bit_is_found() {
        let mut page = written(state(Content::Random, 0, 0));
        page.0[311] ^= 1 << 40;
        let wrong = state(Content::Random, 0, 0).check(&page).unwrap_err();
        assert_eq!((wrong.word, wrong.want ^ wrong.got), (311, 1 << 40));
    }

    #[test]
    fn heap_content_compresses_two_to_three_times_and_random_not_at_all() {
        let ratio = |content| {
            let bytes: Vec<u8> = (0..64)
                .flat_map(|n| written(state(content, n, 0)).0)
                .flat_map(u64::to_le_bytes)
                .collect();
            bytes.len() as f64 / zstd::bulk::compress(&bytes, 1).unwrap().len() as f64
        };
        let heap = ratio(Content::Heap);
        assert!((2.0..3.0).contains(&heap), "ratio {heap}");
        assert!(ratio(Content::Random) < 1.01);
    }
}
