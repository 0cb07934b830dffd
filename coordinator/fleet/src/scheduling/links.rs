//! What moves may put on links: limits, which moves cross which links, and the rate each source is told.

use std::collections::BTreeMap;

use crate::{
    Activity, Effect, EvacuationId, Fleet, HostName, InventoryRecord, Lane, LimitRecord, Link,
    LinkLimit, LinkName, MigrationId, MigrationRecord, Moment, Order, RackName, Record, Refusal,
    Route, Stage, Topology, Wait, WaitCode,
    scheduling::shares::{Pipe, divide},
};

/// A source that uses less than this part of its rate (in percent) has not enough to send, and others get what it
/// leaves.
const THRIFTY_PERCENT: u64 = 75;
/// It keeps as much more than it uses, in percent, so that it can show that it wants more.
const HEADROOM_PERCENT: u64 = 150;
/// It keeps this part of what would be fair, whatever it uses.
const KEPT: u64 = 4;
/// A source is not judged by its use before it has had its rate for so long.
const SETTLED_NS: u64 = 900_000_000;
/// A rate that rises by less than one part in so many is not worth an order.
const WORTH_TELLING: u64 = 50;

/// The rate a source was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Bytes per second; none: as fast as it can.
    pub(crate) rate: Option<u64>,
    since: Moment,
}

/// The owner of a budget: an evacuation, or none if all moves share it.
type Owner = Option<EvacuationId>;

/// Moves on lanes that have a budget, by whose budget it is: how many, and the parts of their bytes in all.
pub(crate) type Loads = BTreeMap<(Owner, Lane), (u32, f64)>;

/// A link, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// Its name.
    pub name: LinkName,
    /// The link; none if the inventory has none of this name.
    pub link: Option<Link>,
    /// What was set.
    pub limit: Option<LinkLimit>,
    /// From a to b, and back.
    pub lanes: [LaneView; 2],
}

/// A link in one direction, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneView {
    /// Moves under way that cross it.
    pub moves: u32,
    /// What their sources were told that they may send over it, bytes per second; those without a limit are not in it.
    pub allotted: u64,
    /// What their sources last said that they send over it, bytes per second.
    pub sent: u64,
}

impl Fleet {
    /// Puts an inventory in the place of the one before. True if it says anything else.
    pub fn import_inventory(
        &mut self,
        text: String,
        topology: Topology,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> bool {
        let known = self.store.inventory();
        if known.is_some_and(|known| known.text == text && known.topology == topology) {
            return false;
        }
        self.begin(now);
        self.scheduling.routes.clear();
        let imported = self.now;
        let record = InventoryRecord { text, topology, imported };
        self.store.put(Record::Inventory(Box::new(record)));
        self.planning.learn_groups(&self.store);
        self.look_at_all();
        self.scheduling.rates_due = true;
        self.finish(out);
        true
    }

    /// The inventory that was imported.
    pub fn inventory(&self) -> Option<&InventoryRecord> {
        self.store.inventory()
    }

    /// Sets limits of links, or removes them. To say the same again changes nothing.
    ///
    /// # Errors
    /// If one of the links is not known; then nothing happens.
    pub fn set_limits(
        &mut self,
        limits: &[(LinkName, Option<LinkLimit>)],
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        // The limit of a link that the inventory has lost can still be removed.
        let set = limits.iter().filter(|(_, limit)| limit.is_some()).map(|(link, _)| link);
        self.check_links(set)?;
        let known = |link: &LinkName| self.store.limits().contains_key(link);
        let removed = limits.iter().filter(|(link, _)| !known(link)).map(|(link, _)| link);
        self.check_links(removed)?;
        self.begin(now);
        for (link, limit) in limits {
            if self.store.limits().get(link).copied() == *limit {
                continue;
            }
            match *limit {
                Some(limit) => {
                    let record = LimitRecord { link: link.clone(), limit };
                    self.store.put(Record::Limit(record));
                }
                None => self.store.remove_limit(link),
            }
            self.scheduling.queue.free_corridors();
            self.scheduling.rates_due = true;
        }
        self.finish(out);
        Ok(())
    }

    pub(crate) fn check_links<'a>(
        &self,
        mut links: impl Iterator<Item = &'a LinkName>,
    ) -> Result<(), Refusal> {
        let topology = self.store.inventory().map(|inventory| &inventory.topology);
        let unknown = links.find(|link| topology.and_then(|all| all.link(link)).is_none());
        unknown.map_or(Ok(()), |link| Err(Refusal::UnknownLink(link.clone())))
    }

    /// Every link of the inventory in its order, and limits of links it does not have.
    pub fn links(&self) -> Vec<LinkView> {
        let links = self.store.inventory().map_or(&[][..], |known| &known.topology.links);
        let lost = self.store.limits().keys().filter(|name| links.iter().all(|l| l.name != **name));
        let mut views: Vec<LinkView> = links
            .iter()
            .map(|link| (link.name.clone(), Some(link.clone())))
            .chain(lost.map(|name| (name.clone(), None)))
            .map(|(name, link)| {
                let limit = self.store.limits().get(&name).copied();
                LinkView { name, link, limit, lanes: Default::default() }
            })
            .collect();
        let crossing = self.crossing_links();
        for migration in crossing.iter().filter_map(|id| self.store.migrations().get(id)) {
            let live = self.live.get(&migration.id);
            let told = live.and_then(|live| live.told?.rate).unwrap_or(0);
            let sent = live.map_or(0, |live| live.progress.send_bytes_per_second);
            for (lane, part) in self.known_route(&migration.source, &migration.target) {
                if let Some(view) = views.iter_mut().find(|view| view.name == lane.link) {
                    let view = &mut view.lanes[usize::from(!lane.forward)];
                    view.moves += 1;
                    view.allotted += (told as f64 * part) as u64;
                    view.sent += (sent as f64 * part) as u64;
                }
            }
        }
        views
    }

    /// Whether there is room for one more move on what lies between two racks.
    pub(crate) fn link_room(
        &mut self,
        evacuation: Option<EvacuationId>,
        from: &RackName,
        to: &RackName,
        loads: &Loads,
    ) -> Result<(), Wait> {
        self.learn_route(from, to);
        let racks = (from.clone(), to.clone());
        for (lane, &part) in self.scheduling.routes.get(&racks).into_iter().flatten() {
            for owner in owners(evacuation) {
                let Some(budget) = self.budget(owner, &lane.link) else { continue };
                let load = loads.get(&(owner, lane.clone()));
                let (moves, parts) = load.copied().unwrap_or_default();
                let share_min = self.limits.link_share_min.max(1) as f64;
                if moves > 0 && (budget as f64) < share_min * (parts + part) {
                    let limit = ((budget as f64 / share_min / part) as u32).max(1);
                    let (code, detail) = (WaitCode::LinkFull, lane.link.to_string());
                    return Err(Wait { code, detail, limit, used: moves });
                }
            }
        }
        Ok(())
    }

    /// What crosses lanes that have a budget.
    pub(crate) fn loads(&mut self) -> Loads {
        let mut loads = Loads::new();
        for id in self.crossing_links() {
            if let Some(migration) = self.store.migrations().get(&id).cloned() {
                self.add_load(&migration, &migration.target, &mut loads);
            }
        }
        loads
    }

    /// One more move crosses them.
    pub(crate) fn add_load(
        &mut self,
        migration: &MigrationRecord,
        target: &HostName,
        loads: &mut Loads,
    ) {
        let racks = (self.rack_of(&migration.source), self.rack_of(target));
        self.learn_route(&racks.0, &racks.1);
        for (lane, part) in self.scheduling.routes.get(&racks).into_iter().flatten() {
            for owner in owners(migration.evacuation) {
                if self.budget(owner, &lane.link).is_some() {
                    let load = loads.entry((owner, lane.clone())).or_default();
                    *load = (load.0 + 1, load.1 + part);
                }
            }
        }
    }

    /// Finds out what lies between two racks, before it is asked for.
    fn learn_route(&mut self, from: &RackName, to: &RackName) {
        let Some(known) = self.store.inventory() else { return };
        let learn = || known.topology.route(from, to);
        self.scheduling.routes.entry((from.clone(), to.clone())).or_insert_with(learn);
    }

    fn known_route(
        &self,
        source: &HostName,
        target: &HostName,
    ) -> impl Iterator<Item = (&Lane, f64)> {
        let racks = (self.rack_of(source), self.rack_of(target));
        let route: Option<&Route> = self.scheduling.routes.get(&racks);
        route.into_iter().flatten().map(|(lane, part)| (lane, *part))
    }

    /// What an evacuation, or all moves together, may put on a lane of a link.
    fn budget(&self, owner: Owner, link: &LinkName) -> Option<u64> {
        let limits = match owner {
            None => self.store.limits(),
            Some(evacuation) => &self.store.evacuations().get(&evacuation)?.link_limits,
        };
        let limit = limits.get(link)?;
        Some(limit.of(self.store.inventory()?.topology.link(link)?.rate))
    }

    /// Moves under way. One whose source is silent may still send, but does not keep others away for ever.
    fn crossing_links(&self) -> Vec<MigrationId> {
        let crosses = |id: &MigrationId| {
            self.store.migrations().get(id).is_some_and(|migration| {
                let silent = self.silent_for(&migration.source);
                migration.is_ordered()
                    && silent.is_none_or(|ns| ns <= self.limits.host_silence_timeout_ns)
            })
        };
        self.store.index().begun().filter(crosses).collect()
    }

    /// Divides the budgets of all links among the moves that send, and tells their sources.
    /// Does nothing if nothing has changed.
    pub(crate) fn divide_links_if_due(&mut self) {
        if !std::mem::take(&mut self.scheduling.rates_due) || self.store.inventory().is_none() {
            return;
        }
        for (id, rate) in self.rates() {
            let Some(record) = self.store.migrations().get(&id) else { continue };
            let source = record.source.clone();
            if !self.ownership.agents().contains_key(&source) {
                continue;
            }
            let since = self.now;
            let Some(live) = self.live.get_mut(&id) else { continue };
            if live.told.is_some_and(|told| !is_worth_telling(told.rate, rate)) {
                continue;
            }
            live.told = Some(Told { rate, since });
            self.tell(&source, Order::SetRate(id, rate));
        }
    }

    /// The rate for a source that is about to be told to start.
    pub(crate) fn first_rate(&mut self, id: MigrationId) -> Option<u64> {
        let rate = self.rates().remove(&id).flatten();
        let since = self.now;
        if let Some(live) = self.live.get_mut(&id) {
            live.told = Some(Told { rate, since });
        }
        // The others have less now.
        self.scheduling.rates_due = true;
        rate
    }

    /// What every move that sends may send: a fair share, but not more than it has a use for.
    fn rates(&mut self) -> BTreeMap<MigrationId, Option<u64>> {
        let mut started = Vec::new();
        for id in self.crossing_links() {
            let Some(migration) = self.store.migrations().get(&id) else { continue };
            if matches!(migration.stage, Stage::Started { .. }) {
                let racks = (self.rack_of(&migration.source), self.rack_of(&migration.target));
                let evacuation = migration.evacuation;
                self.learn_route(&racks.0, &racks.1);
                started.push(Crosser { id, racks, evacuation });
            }
        }
        let mut pipes = self.pipes(&started);
        let fair = divide(started.len(), &pipes);
        for (member, (crosser, fair)) in started.iter().zip(&fair).enumerate() {
            let use_of = fair.and_then(|fair| self.use_of(crosser.id, fair));
            pipes.extend(use_of.map(|most| Pipe::cap(member, most)));
        }
        let rates = divide(started.len(), &pipes);
        #[cfg(feature = "planted-bugs")]
        let rates = if self.has(crate::PlantedBug::WholeBudgetForAll) {
            let whole = |pipe: &Pipe| divide(1, &[Pipe::cap(0, pipe.budget)])[0];
            rates.iter().map(|rate| rate.and(pipes.iter().find_map(whole))).collect()
        } else {
            rates
        };
        started.iter().map(|crosser| crosser.id).zip(rates).collect()
    }

    /// The lanes that have a budget, each with the moves that cross it.
    fn pipes(&self, moves: &[Crosser]) -> Vec<Pipe> {
        let mut pipes: BTreeMap<(Owner, &Lane), Pipe> = BTreeMap::new();
        for (member, crosser) in moves.iter().enumerate() {
            for (lane, &part) in self.scheduling.routes.get(&crosser.racks).into_iter().flatten() {
                for owner in owners(crosser.evacuation) {
                    let Some(budget) = self.budget(owner, &lane.link) else { continue };
                    let new = || Pipe { budget, members: Vec::new() };
                    let pipe = pipes.entry((owner, lane)).or_insert_with(new);
                    pipe.members.push((member, part));
                }
            }
        }
        pipes.into_values().collect()
    }

    /// The most a source has a use for, if it is known to need less than its share. Not while it switches or wants
    /// to: its VM would be stopped for longer than was forecast.
    fn use_of(&self, id: MigrationId, fair: u64) -> Option<u64> {
        let live = self.live.get(&id)?;
        let told = live.told?;
        let rate = told.rate?;
        let switching = self.scheduling.slots.holds(id)
            || self.scheduling.slots.waiting().any(|waiting| waiting == id);
        if switching || live.progress.activity != Activity::Copying {
            return None;
        }
        let sent = live.progress.send_bytes_per_second;
        let settled = self.now.since(told.since) >= SETTLED_NS && live.session.is_heard();
        // What was lent to others is given back as soon as there is a use for it.
        let thrifty = sent < rate / 100 * THRIFTY_PERCENT;
        (settled && thrifty).then(|| (sent / 100 * HEADROOM_PERCENT).max(fair / KEPT))
    }
}

/// A move that sends, and what it crosses.
struct Crosser {
    id: MigrationId,
    racks: (RackName, RackName),
    evacuation: Option<EvacuationId>,
}

/// Whose budgets a move is in.
fn owners(evacuation: Option<EvacuationId>) -> impl Iterator<Item = Owner> {
    std::iter::once(None).chain(evacuation.map(Some))
}

/// A rate that falls always is: the sum of all must stay within the budget.
fn is_worth_telling(old: Option<u64>, new: Option<u64>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => new < old || new > old + old / WORTH_TELLING,
        (old, new) => old != new,
    }
}
