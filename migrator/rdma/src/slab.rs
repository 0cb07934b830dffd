//! What is posted, by the number that its completion carries.
//!
//! A completion names its work request by 64 bits that we chose. They are a place in a table and that place's
//! generation, never an address: a completion that comes late, or twice, finds nothing.

/// Generations have 31 bits: the last bit of a work request's number says that it ends its batch.
const GENERATIONS: u32 = 1 << 31;

/// Names a value of a [`Slab`] for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

/// The number of a work request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrId {
    /// The batch it belongs to.
    pub key: Key,
    /// Whether it is the batch's last: with its completion the device has let go of all of them.
    pub last: bool,
}

impl WrId {
    /// As the device is given it.
    pub(crate) fn to_bits(self) -> u64 {
        let generation = u64::from(self.key.generation) << 1 | u64::from(self.last);
        generation << 32 | u64::from(self.key.index)
    }

    /// From a completion; any number is one, though perhaps none that is in use.
    pub(crate) fn from_bits(bits: u64) -> Self {
        let high = (bits >> 32) as u32;
        Self { key: Key { index: bits as u32, generation: high >> 1 }, last: high & 1 == 1 }
    }
}

/// Values by keys that are not used twice.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Keeps a value.
    pub(crate) fn insert(&mut self, value: T) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = u32::try_from(self.places.len()).expect("queues are shorter than 2^32");
            self.places.push(Place { generation: 0, value: None });
            index
        });
        let place = &mut self.places[index as usize];
        place.value = Some(value);
        Key { index, generation: place.generation }
    }

    /// The value, if it is still there.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    /// Takes the value out; its key finds nothing from now on.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        self.vacate(key.index)
    }

    /// Takes out all values that a rule names.
    pub(crate) fn remove_where(&mut self, rule: impl Fn(&T) -> bool) -> Vec<T> {
        let named = |place: &Place<T>| place.value.as_ref().is_some_and(&rule);
        let places: Vec<usize> =
            (0..self.places.len()).filter(|&i| named(&self.places[i])).collect();
        places.into_iter().filter_map(|index| self.vacate(index as u32)).collect()
    }

    /// All values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }

    fn vacate(&mut self, index: u32) -> Option<T> {
        let place = &mut self.places[index as usize];
        let value = place.value.take()?;
        place.generation = (place.generation + 1) % GENERATIONS;
        self.free.push(index);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_finds_nothing_once_its_value_is_taken() {
        let mut slab = Slab::default();
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(first.index, second.index, "the place is used again");
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.remove(second), Some("second"));
    }

    #[test]
    fn generations_begin_anew_within_their_bits() {
        let mut slab = Slab::default();
        let key = slab.insert(());
        slab.places[0].generation = GENERATIONS - 1;
        let last = Key { generation: GENERATIONS - 1, ..key };
        assert_eq!(WrId::from_bits(WrId { key: last, last: true }.to_bits()).key, last);
        assert_eq!(slab.remove(last), Some(()));
        assert_eq!(slab.insert(()).generation, 0);
    }

    proptest! {
        #[test]
        fn numbers_come_back_as_they_went(bits: u64) {
            prop_assert_eq!(WrId::from_bits(bits).to_bits(), bits);
        }

        /// Against a map that never uses a key twice.
        #[test]
        fn every_value_is_found_by_its_own_key_alone(steps in prop::collection::vec(any::<(bool, u8)>(), 0..200)) {
            let (mut slab, mut model, mut old) = (Slab::default(), HashMap::new(), Vec::new());
            for (number, (add, pick)) in steps.into_iter().enumerate() {
                if add || model.is_empty() {
                    prop_assert!(model.insert(slab.insert(number), number).is_none());
                } else {
                    let mut keys: Vec<Key> = model.keys().copied().collect();
                    keys.sort_by_key(|key| (key.index, key.generation));
                    let key = keys[pick as usize % keys.len()];
                    prop_assert_eq!(slab.remove(key), model.remove(&key));
                    old.push(key);
                }
                for key in &old {
                    prop_assert!(slab.get_mut(*key).is_none());
                }
            }
            for (key, value) in &mut model {
                prop_assert_eq!(slab.get_mut(*key), Some(value));
            }
            prop_assert_eq!(slab.values().count(), model.len());
            let odd = slab.remove_where(|value| value % 2 == 1);
            prop_assert!(odd.iter().all(|value| value % 2 == 1));
            prop_assert!(slab.values().all(|value| value % 2 == 0));
            prop_assert_eq!(odd.len() + slab.values().count(), model.len());
        }
    }
}
