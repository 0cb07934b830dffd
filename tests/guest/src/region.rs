//! Private memory whose every page is in a known state.

use std::sync::{Mutex, MutexGuard};

use crate::content::{Content, PAGE_WORDS, Page, PageState, Wrong};

/// Pages under one lock: a writer and the checker meet rarely, and a lock costs little beside 256 KiB.
const CHUNK_PAGES: usize = 64;
const PAGES_PER_MIB: usize = 256;

/// A region of private memory, written once when it is made.
pub struct Region {
    content: Content,
    seed: u64,
    chunks: Vec<Mutex<Chunk>>,
}

struct Chunk {
    pages: Vec<Page>,
    versions: Vec<u32>,
}

impl Region {
    /// Allocates and writes `mib` MiB.
    pub fn filled(content: Content, seed: u64, mib: usize) -> Self {
        let chunk = |first: usize| {
            let mut pages = vec![Page([0; PAGE_WORDS]); CHUNK_PAGES];
            if content != Content::Zero {
                for (n, page) in pages.iter_mut().enumerate() {
                    PageState { content, seed, page: (first + n) as u64, version: 0 }.write(page);
                }
            }
            Mutex::new(Chunk { pages, versions: vec![0; CHUNK_PAGES] })
        };
        let count = mib * PAGES_PER_MIB / CHUNK_PAGES;
        Self { content, seed, chunks: (0..count).map(|c| chunk(c * CHUNK_PAGES)).collect() }
    }

    /// How many pages it has.
    pub fn pages(&self) -> usize {
        self.chunks.len() * CHUNK_PAGES
    }

    /// Gives a page the content of the version that `next` makes of its present one.
    pub fn rewrite(&self, page: usize, next: impl FnOnce(u32) -> u32) {
        let mut chunk = self.chunk(page);
        let slot = page % CHUNK_PAGES;
        let version = next(chunk.versions[slot]);
        chunk.versions[slot] = version;
        self.state(page, version).write(&mut chunk.pages[slot]);
    }

    /// Compares a page with the state it should be in.
    pub fn check(&self, page: usize) -> Result<(), Wrong> {
        let chunk = self.chunk(page);
        let slot = page % CHUNK_PAGES;
        self.state(page, chunk.versions[slot]).check(&chunk.pages[slot])
    }

    fn state(&self, page: usize, version: u32) -> PageState {
        PageState { content: self.content, seed: self.seed, page: page as u64, version }
    }

    fn chunk(&self, page: usize) -> MutexGuard<'_, Chunk> {
        self.chunks[page / CHUNK_PAGES].lock().expect("no thread panics while it holds a chunk")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_right_after_filling_and_rewriting() {
        let region = Region::filled(Content::Heap, 5, 1);
        region.rewrite(17, |version| version + 1);
        region.rewrite(17, |version| version + 1);
        region.rewrite(200, |version| version ^ 1);
        assert_eq!(region.pages(), 256);
        assert!((0..region.pages()).all(|page| region.check(page).is_ok()));
    }

    #[test]
    fn a_page_that_fell_back_to_an_older_version_is_wrong() {
        let region = Region::filled(Content::Random, 5, 1);
        let before = region.chunk(3).pages[3].clone();
        region.rewrite(3, |version| version + 1);
        region.chunk(3).pages[3] = before;
        assert!(region.check(3).is_err());
    }
}
