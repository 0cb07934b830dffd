//! Rows that readers share: kept in parts, so that a reader has all of them for the price of counting references, and a
//! change copies one part.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use crate::{EventId, HostName, MigrationId, VmName};

/// What decides the part of a key.
pub(crate) trait Part: Ord + Clone {
    /// The part; the same on every machine.
    fn part(&self) -> u64;
}

impl Part for MigrationId {
    /// Moves that were asked for together change together.
    fn part(&self) -> u64 {
        self.0 / 64
    }
}

/// Its parts are in the order of its keys: [`Rows::after`] and [`Rows::before`] rely on it.
pub(crate) trait Ordered: Part {}

impl Ordered for EventId {}

impl Part for EventId {
    fn part(&self) -> u64 {
        self.0 / 64
    }
}

impl Part for HostName {
    fn part(&self) -> u64 {
        hash(self.as_str()) % 64
    }
}

impl Part for VmName {
    fn part(&self) -> u64 {
        hash(self.as_str()) % 512
    }
}

/// FNV-1a: short names, and no secret.
fn hash(name: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// A revision, and the row since then.
type Row<V> = (u64, Arc<V>);

#[derive(Debug)]
struct Bucket<K, V> {
    /// Of its latest change.
    revision: u64,
    rows: BTreeMap<K, Row<V>>,
}

impl<K: Ord + Clone, V> Clone for Bucket<K, V> {
    fn clone(&self) -> Self {
        Self { revision: self.revision, rows: self.rows.clone() }
    }
}

/// Rows by key.
#[derive(Clone, Debug)]
pub(crate) struct Rows<K, V> {
    parts: BTreeMap<u64, Arc<Bucket<K, V>>>,
    len: usize,
}

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Self { parts: BTreeMap::new(), len: 0 }
    }
}

impl<K: Part, V: PartialEq> Rows<K, V> {
    /// Puts a row in the place of the one before, or removes it. False if it says the same.
    pub(crate) fn set(&mut self, key: K, value: Option<V>, revision: u64) -> bool {
        if self.get(&key) == value.as_ref() {
            return false;
        }
        let new = || Arc::new(Bucket { revision, rows: BTreeMap::new() });
        let part = Arc::make_mut(self.parts.entry(key.part()).or_insert_with(new));
        part.revision = revision;
        let before = match value {
            Some(value) => part.rows.insert(key, (revision, Arc::new(value))),
            None => {
                self.len -= 1;
                let number = key.part();
                part.rows.remove(&key);
                if part.rows.is_empty() {
                    self.parts.remove(&number);
                }
                return true;
            }
        };
        self.len += usize::from(before.is_none());
        true
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (_, row) = self.parts.get(&key.part())?.rows.get(key)?;
        Some(row)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Rows of a later revision than one, in no order.
    pub(crate) fn since(&self, revision: u64) -> impl Iterator<Item = &V> {
        let parts = self.parts.values().filter(move |part| part.revision > revision);
        let rows = parts.flat_map(|part| part.rows.values());
        rows.filter(move |row| row.0 > revision).map(|row| &*row.1)
    }

    /// Every row, by key.
    pub(crate) fn sorted(&self) -> Vec<(&K, &V)> {
        let rows = self.parts.values().flat_map(|part| &part.rows);
        let mut rows: Vec<_> = rows.map(|(key, row)| (key, &*row.1)).collect();
        rows.sort_by(|a, b| a.0.cmp(b.0));
        rows
    }
}

impl<K: Ordered, V> Rows<K, V> {
    /// Rows behind a key, in order.
    pub(crate) fn after(&self, key: K) -> impl Iterator<Item = &V> {
        let behind = (Bound::Excluded(key.clone()), Bound::Unbounded);
        let parts = self.parts.range(key.part()..).map(|(_, part)| part);
        parts.flat_map(move |part| part.rows.range(behind.clone())).map(|(_, row)| &*row.1)
    }

    /// Rows before a key, the last first.
    pub(crate) fn before(&self, key: K) -> impl Iterator<Item = &V> {
        let parts = self.parts.range(..=key.part()).rev().map(|(_, part)| part);
        parts.flat_map(move |part| part.rows.range(..key.clone()).rev()).map(|(_, row)| &*row.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_keep_what_they_have() {
        let mut rows = Rows::default();
        for id in 0..200 {
            assert!(rows.set(MigrationId(id), Some(id), 1));
        }
        let before = rows.clone();
        assert!(!rows.set(MigrationId(7), Some(7), 2), "it says the same");
        assert!(rows.set(MigrationId(7), Some(8), 3));
        assert!(rows.set(MigrationId(9), None, 4));
        assert_eq!((before.get(&MigrationId(7)), before.len()), (Some(&7), 200));
        assert_eq!((rows.get(&MigrationId(7)), rows.get(&MigrationId(9))), (Some(&8), None));
        assert_eq!(rows.len(), 199);
        assert_eq!(rows.since(1).copied().collect::<Vec<_>>(), [8]);
        assert_eq!(rows.since(4).count(), 0);
        assert!(rows.sorted().windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn ordered_rows_are_read_from_anywhere_to_both_ends() {
        let mut rows = Rows::default();
        for id in (0..300).filter(|id| !(64..192).contains(id)) {
            rows.set(EventId(id), Some(id), 1);
        }
        rows.set(EventId(299), None, 2);
        let after = |id| rows.after(EventId(id)).take(3).copied().collect::<Vec<_>>();
        let before = |id| rows.before(EventId(id)).take(3).copied().collect::<Vec<_>>();
        assert_eq!(
            (after(0), after(62), after(100)),
            (vec![1, 2, 3], vec![63, 192, 193], vec![192, 193, 194])
        );
        assert_eq!((after(297), after(298)), (vec![298], vec![]));
        assert_eq!((before(u64::MAX), before(193)), (vec![298, 297, 296], vec![192, 63, 62]));
        assert_eq!((before(1), before(0)), (vec![0], vec![]));
    }

    #[test]
    fn a_part_without_rows_takes_no_room() {
        let mut rows = Rows::default();
        for id in 0..10_000 {
            rows.set(EventId(id), Some(id), id);
            rows.set(EventId(id), None, id);
        }
        assert_eq!((rows.parts.len(), rows.len()), (0, 0));
    }
}
