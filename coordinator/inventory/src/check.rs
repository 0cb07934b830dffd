//! What one line says against what the others say. Goes on after a mistake, so that all are told at once.

mod hosts;

use std::collections::{BTreeMap, BTreeSet};

use rackferry_model::name::{WRITTEN_NAME_LIMIT, is_written_name};
use serde_saphyr::{Location, Spanned};

use crate::{
    Inventory, Link, Policy, VmLabels,
    expand::expand,
    file::{self, File, Text},
    mistake::Mistake,
    unit::{self, NotA},
};

/// The version of the file that is understood.
const VERSION: u32 = 1;
/// The largest cost of a link, so that a route's stays a number.
const COST_LIMIT: u32 = 1_000_000;
/// The most hosts, and the most labelled VMs, of a site.
const COUNT_LIMIT: usize = 100_000;

/// The file's meaning, or everything that is wrong with it.
pub(crate) fn check(file: File) -> Result<Inventory, Vec<Mistake>> {
    let mut check = Check::default();
    if file.version.value != VERSION {
        let what = format!("version {} is not known", file.version.value);
        check.found(Mistake::of(&file.version, what, format!("write version: {VERSION}")));
    }
    let mut inventory = Inventory::default();
    for spine in &file.spines {
        check.node(&spine.name);
        inventory.spines.push(spine.name.value.clone());
    }
    for rack in &file.racks {
        check.node(&rack.name);
    }
    inventory.racks = check.racks(&file);
    inventory.links = check.links(&file);
    inventory.policies = file.policies.iter().map(|policy| check.policy(policy)).collect();
    for vm in &file.vms {
        let names = check.names(&vm.name, Kind::Vm);
        let labels = || vm.labels.clone();
        inventory.vms.extend(names.into_iter().map(|name| VmLabels { name, labels: labels() }));
        if inventory.vms.len() > COUNT_LIMIT {
            check.too_many(&vm.name, "labelled VMs");
            break;
        }
    }
    if check.mistakes.is_empty() { Ok(inventory) } else { Err(check.mistakes) }
}

/// What shares a name space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Racks, hosts and spines: commands take the one as well as the other.
    Place,
    Link,
    Policy,
    Vm,
    Address,
}

#[derive(Default)]
struct Check {
    mistakes: Vec<Mistake>,
    taken: BTreeMap<(Kind, String), Location>,
    /// Racks and spines: the ends of links.
    nodes: BTreeSet<String>,
}

impl Check {
    fn found(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    fn too_many(&mut self, place: &Text, what: &str) {
        let what = format!("more than {COUNT_LIMIT} {what}");
        self.found(Mistake::of(place, what, "split the site into smaller ones"));
    }

    /// Takes the name of a rack or a spine.
    fn node(&mut self, name: &Text) {
        if self.name(name, Kind::Place) {
            self.nodes.insert(name.value.clone());
        }
    }

    /// Takes a name; false, and a mistake, if it is none or taken already.
    fn name(&mut self, name: &Text, kind: Kind) -> bool {
        self.take(name, name.value.clone(), kind)
    }

    fn take(&mut self, place: &Text, name: String, kind: Kind) -> bool {
        if !is_written_name(&name) {
            let what = format!("{name:?} is not a name");
            let advice = format!(
                "use 1 to {WRITTEN_NAME_LIMIT} of a-z A-Z 0-9 - _ . : and begin with one of the first"
            );
            self.found(Mistake::of(place, what, advice));
            return false;
        }
        self.unique(place, name, kind)
    }

    fn unique(&mut self, place: &Text, name: String, kind: Kind) -> bool {
        if let Some(first) = self.taken.get(&(kind, name.clone())) {
            let what = format!("{name} is there already, in line {}", first.line());
            self.found(Mistake::of(place, what, "give each its own"));
            return false;
        }
        self.taken.insert((kind, name), place.referenced);
        true
    }

    /// Takes every name of a range.
    fn names(&mut self, range: &Text, kind: Kind) -> Vec<String> {
        let mut names = self.range(range);
        names.retain(|name| self.take(range, name.clone(), kind));
        names
    }

    /// The names of a range, as they are.
    fn range(&mut self, range: &Text) -> Vec<String> {
        expand(&range.value).unwrap_or_else(|what| {
            self.found(Mistake::of(range, what, "write ranges as in r12-h[02-20]"));
            Vec::new()
        })
    }

    /// Reads a number; the error says what it should look like.
    fn read<T>(&mut self, text: &Text, read: impl Fn(&str) -> Result<T, NotA>) -> Option<T> {
        read(&text.value)
            .map_err(|error| {
                let what = format!("{:?} is {error}", text.value);
                self.found(Mistake::of(text, what, "write a whole number and its unit"));
            })
            .ok()
    }

    fn read_some<T>(
        &mut self,
        text: Option<&Text>,
        read: impl Fn(&str) -> Result<T, NotA>,
    ) -> Option<T> {
        text.and_then(|text| self.read(text, read))
    }

    /// A number within bounds.
    fn within(&mut self, number: &Spanned<u32>, least: u32, most: u32, what: &str) -> u32 {
        if !(least..=most).contains(&number.value) {
            let found = format!("{what} {} is out of bounds", number.value);
            self.found(Mistake::of(number, found, format!("choose one from {least} to {most}")));
        }
        number.value
    }

    fn links(&mut self, file: &File) -> Vec<Link> {
        let mut links = Vec::new();
        for rack in &file.racks {
            for uplink in &rack.uplinks {
                let file::Uplink { to, rate, name, cost } = uplink;
                let ends = (&rack.name, to);
                links.extend(self.link(ends, rate, name.as_ref(), cost.as_ref()));
            }
        }
        for link in &file.links {
            let file::Link { a, b, rate, name, cost } = link;
            links.extend(self.link((a, b), rate, name.as_ref(), cost.as_ref()));
        }
        links
    }

    fn link(
        &mut self,
        (a, b): (&Text, &Text),
        rate: &Text,
        name: Option<&Text>,
        cost: Option<&Spanned<u32>>,
    ) -> Option<Link> {
        for end in [a, b] {
            if !self.nodes.contains(&end.value) {
                let what = format!("no rack or spine is called {}", end.value);
                self.found(Mistake::of(end, what, "list it under racks or spines, or correct it"));
            }
        }
        if a.value == b.value {
            let what = format!("a link from {} to itself", a.value);
            self.found(Mistake::of(b, what, "name two ends"));
        }
        let own = Spanned { value: format!("{}-{}", a.value, b.value), ..b.clone() };
        let named = self.name(name.unwrap_or(&own), Kind::Link);
        let rate = self.read(rate, unit::rate)?;
        let cost = cost.map_or(1, |cost| self.within(cost, 1, COST_LIMIT, "cost"));
        let (a, b) = (a.value.clone(), b.value.clone());
        let name = name.unwrap_or(&own).value.clone();
        named.then_some(Link { name, a, b, rate, cost })
    }

    fn policy(&mut self, policy: &file::Policy) -> Policy {
        self.name(&policy.name, Kind::Policy);
        if policy.matches.is_empty() {
            let what = format!("policy {} matches nothing", policy.name.value);
            self.found(Mistake::of(&policy.name, what, "add match: {label: value}"));
        }
        let disruption = policy.disruption.as_ref().and_then(|text| {
            let read = text.value.parse().ok();
            if read.is_none() {
                let what = format!("{:?} is no disruption", text.value);
                self.found(Mistake::of(text, what, "choose none, brief or allow"));
            }
            read
        });
        let priority = policy.priority.as_ref();
        Policy {
            name: policy.name.value.clone(),
            matches: policy.matches.clone(),
            max_downtime_ms: self.read_some(policy.max_downtime.as_ref(), unit::duration_ms),
            priority: priority.map(|number| self.within(number, 0, 100, "priority") as u8),
            post_copy: policy.post_copy,
            disruption,
        }
    }
}
