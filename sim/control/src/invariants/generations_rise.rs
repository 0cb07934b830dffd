//! The generation of a VM never falls, and rises whenever another host comes to own it, a VM that was forgotten
//! and is known again included.

use rackferry_fleet::{Change, Key, Record};

use crate::world::World;

pub(super) fn check(world: &mut World, change: &Change) -> Option<String> {
    let Change::Put(Record::Vm(new)) = change else { return None };
    let old = match world.truth.records.get(&Key::Vm(new.name.clone())) {
        Some(Record::Vm(old)) => Some((old.owner.clone(), old.generation)),
        _ => None,
    };
    let highest = world.watch.generations.insert(new.name.clone(), new.generation);
    let must_rise = old.as_ref().is_none_or(|(owner, _)| *owner != new.owner);
    let rises = match highest {
        None => true,
        Some(highest) if must_rise => new.generation > highest,
        Some(highest) => new.generation >= highest,
    };
    (!rises).then(|| {
        format!(
            "{} is {}'s with generation {}, before it was {old:?}, at most {highest:?}",
            new.name, new.owner, new.generation
        )
    })
}
