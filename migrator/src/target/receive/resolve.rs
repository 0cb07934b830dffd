//! References into guest memory: from this host, from neighbours, at last from the source.

use std::collections::HashMap;

use rackferry_dedup_index::{Digest, PAGE_SIZE};
use rackferry_migrator_protocol::frame::{
    FETCH_ABSENT, FETCH_PRESENT, Holder, Lost, MAX_FETCH_DIGESTS, SupplyView,
};
use rackferry_migrator_protocol::session::outstanding::{PageId, ReferenceId};

use super::{ReceiveError, Receiver, Reference, Requests, WRITE_BYTES};
use crate::rack::{Found, StoreReader};
use crate::stats::{CpuMoment, add, lap};
use crate::target::fetch::Fetched;
use crate::target::wanted::Look;

/// References resolved at a time: few enough that their contents stay in the core's cache from reading to placing.
const PART: usize = 64;

impl Receiver {
    /// Resolves what this host has; the rest is waited for.
    pub(super) fn resolve_here(&mut self, seq: u64) -> Result<(), ReceiveError> {
        if self.references.is_empty() {
            if !self.resolved.contains(&seq) {
                self.resolved.push(seq);
            }
            return Ok(());
        }
        let start = CpuMoment::now();
        let references = std::mem::take(&mut self.references);
        let mut reader = std::mem::take(&mut self.reader);
        for part in references.chunks(PART) {
            self.resolve_part(part, &mut reader)?;
        }
        self.references = references;
        self.reader = reader;
        lap(&self.counters.local_ns, start);
        Ok(())
    }

    fn resolve_part(
        &mut self,
        references: &[Reference],
        reader: &mut StoreReader,
    ) -> Result<(), ReceiveError> {
        self.wanted_here.clear();
        self.wanted_here.extend(references.iter().map(|(_, _, digest, _)| *digest));
        self.rack.store.read(&self.rack.hasher, &self.wanted_here, reader);
        add(&self.counters.local_bytes, reader.pages().len() * PAGE_SIZE);
        self.place_found(references, reader.found(), reader.pages())?;
        for ((page, reference, digest, holder), state) in references.iter().zip(reader.states()) {
            if *state == Found::Here {
                self.settle(*page, *reference);
                continue;
            }
            self.wanted.add(*digest, *holder, *page, *reference);
            self.open.insert(*reference, *digest);
            // What this session brought itself has come before its references: if it is not here it is gone.
            let gone = *state == Found::Gone && holder.host == self.rack.own_host;
            if gone || holder.session == self.session {
                self.ask_source(*digest);
            }
        }
        Ok(())
    }

    /// Places the contents of those `references` whose positions are `found`, pages next to each other at once; a
    /// newer record of a page goes before.
    fn place_found(
        &mut self,
        references: &[Reference],
        found: &[usize],
        contents: &[[u8; PAGE_SIZE]],
    ) -> Result<(), ReceiveError> {
        let mut at = 0;
        while at < found.len() {
            let newest = |at: usize| {
                let (page, reference, ..) = references[*found.get(at)?];
                self.outstanding.is_newest(page, reference).then_some(page)
            };
            let Some(first) = newest(at) else {
                at += 1;
                continue;
            };
            let follows = |n: &usize| {
                newest(at + n).is_some_and(|page| {
                    page.block == first.block && page.page as usize == first.page as usize + n
                })
            };
            let count = 1 + (1..).take_while(follows).count();
            self.placer.pages(first, &contents[at..at + count])?;
            at += count;
        }
        Ok(())
    }

    /// The content of a reference is in place, or a newer record of its page.
    fn settle(&mut self, page: PageId, reference: ReferenceId) {
        if self.outstanding.settle(page, reference) {
            self.resolved.push(reference.seq);
            self.ack_due = true;
        }
    }

    /// A content arrived that any number of pages wait for.
    fn settle_all(
        &mut self,
        digest: Digest,
        content: &[u8; PAGE_SIZE],
    ) -> Result<(), ReceiveError> {
        let waiters = self.wanted.take(&digest);
        // Noted where it lies now, so that the next reference to it is resolved on this host.
        let lies = waiters.iter().find(|(page, r)| self.outstanding.is_newest(*page, *r)).copied();
        for (page, reference) in waiters {
            self.open.remove(&reference);
            if self.outstanding.is_newest(page, reference) {
                self.placer.pages(page, std::slice::from_ref(content))?;
            }
            self.settle(page, reference);
        }
        if let Some((page, _)) = lies {
            if let Some(memory) = self.placer.memory_of(page.block) {
                self.entries.entry(memory).or_default().push((digest, page.page));
            } else {
                self.rack.store.keep(&[digest], std::slice::from_ref(content))?;
            }
        }
        Ok(())
    }

    pub(super) fn supply(&mut self, payload: &[u8]) -> Result<(), ReceiveError> {
        let view = SupplyView::decode(payload)?;
        let mut decompressor = self.decompressor.take();
        let data = self.content(view.zstd, view.data, view.pages(), &mut decompressor)?;
        let (pages, _) = data.as_chunks::<PAGE_SIZE>();
        for (lost, content) in view.entries().zip(pages) {
            let reference = ReferenceId { seq: lost.seq, index: lost.index };
            let Some(digest) = self.open.get(&reference).copied() else { continue };
            if self.rack.hasher.digest(content) != digest {
                return Err(ReceiveError::Digest { seq: lost.seq });
            }
            self.settle_all(digest, content)?;
        }
        self.decompressor = decompressor;
        self.note_contents();
        Ok(())
    }

    /// A neighbour has answered.
    pub async fn fetched(&mut self, fetched: &Fetched) -> Result<(), ReceiveError> {
        let (pages, _) = fetched.pages.as_chunks::<PAGE_SIZE>();
        let mut pages = pages.iter();
        let start = CpuMoment::now();
        for (digest, state) in fetched.wanted.iter().zip(&fetched.states) {
            match *state {
                FETCH_PRESENT => {
                    let Some(content) = pages.next() else { break };
                    add(&self.counters.fetched_bytes, PAGE_SIZE);
                    self.settle_all(*digest, content)?;
                }
                FETCH_ABSENT => self.ask_source(*digest),
                _ => {
                    if self.wanted.pending(digest) {
                        self.ask_source(*digest);
                    }
                }
            }
        }
        lap(&self.counters.place_ns, start);
        self.note_contents();
        if self.placer.out.len() >= WRITE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    fn ask_source(&mut self, digest: Digest) {
        if let Some(reference) = self.wanted.lost(&digest) {
            self.lost.push(Lost { seq: reference.seq, index: reference.index });
        }
    }

    /// Looks for due contents in this host's memories; returns what must be asked of neighbours (at most `room`
    /// requests) and of the source.
    pub async fn look(&mut self, room: usize) -> Result<(Requests, Vec<Lost>), ReceiveError> {
        let mut requests: Requests = Vec::new();
        if !self.wanted.is_idle() {
            let mut due = Vec::new();
            self.wanted.take_due(self.rack.own_host, room > 0, &mut due);
            let here: Vec<_> =
                due.iter().filter(|d| d.2 == Look::Here).map(|d| (d.0, d.1)).collect();
            self.look_here(&here)?;
            let mut by_host: HashMap<u32, Vec<(Digest, u64)>> = HashMap::new();
            for (digest, holder, look) in due {
                match look {
                    Look::Here => {}
                    Look::There(host) => {
                        by_host.entry(host).or_default().push((digest, holder.session));
                    }
                    Look::Source => self.ask_source(digest),
                }
            }
            for (host, wanted) in by_host {
                for some in wanted.chunks(MAX_FETCH_DIGESTS) {
                    if requests.len() < room {
                        requests.push((host, some.to_vec()));
                    } else {
                        some.iter().for_each(|(d, _)| self.wanted.postpone(d));
                    }
                }
            }
        }
        Ok((requests, std::mem::take(&mut self.lost)))
    }

    fn look_here(&mut self, due: &[(Digest, Holder)]) -> Result<(), ReceiveError> {
        if due.is_empty() {
            return Ok(());
        }
        let start = CpuMoment::now();
        let digests: Vec<Digest> = due.iter().map(|d| d.0).collect();
        let mut reader = std::mem::take(&mut self.reader);
        self.rack.store.read(&self.rack.hasher, &digests, &mut reader);
        add(&self.counters.local_bytes, reader.pages().len() * PAGE_SIZE);
        for (i, content) in reader.found().iter().zip(reader.pages()) {
            self.settle_all(digests[*i], content)?;
        }
        for ((digest, holder), state) in due.iter().zip(reader.states()) {
            let lost = match state {
                Found::Here => false,
                Found::Gone => true,
                Found::Unknown => !self.rack.expects(holder.session) || self.wanted.pending(digest),
            };
            if lost {
                self.ask_source(*digest);
            }
        }
        self.reader = reader;
        lap(&self.counters.local_ns, start);
        self.note_contents();
        Ok(())
    }
}
