//! The inventory, links and their limits, for programs.

use rackferry_proto::v1::{self, link_limit};
use serde::Serialize;

use super::{
    json::{Host, Resulting, text},
    word,
};
use crate::exit::Code;

/// A limit; one of the two, or neither.
#[derive(Serialize)]
pub(super) struct Limit<'a> {
    link: &'a str,
    bytes_per_second: Option<u64>,
    percent: Option<u32>,
}

#[derive(Serialize)]
struct Lane {
    moves: u32,
    allotted_bytes_per_second: u64,
}

#[derive(Serialize)]
struct Link<'a> {
    name: &'a str,
    a: &'a str,
    b: &'a str,
    in_inventory: bool,
    bytes_per_second: u64,
    cost: u32,
    limit: Option<Limit<'a>>,
    forth: Lane,
    back: Lane,
}

#[derive(Serialize)]
struct Summary {
    racks: u32,
    hosts: u32,
    spines: u32,
    links: u32,
    policies: u32,
    vms: u32,
}

impl<'a> From<&'a v1::LinkLimit> for Limit<'a> {
    fn from(limit: &'a v1::LinkLimit) -> Self {
        let (bytes_per_second, percent) = match limit.limit {
            None => (None, None),
            Some(link_limit::Limit::BytesPerSecond(rate)) => (Some(rate), None),
            Some(link_limit::Limit::Percent(percent)) => (None, Some(percent)),
        };
        Self { link: &limit.link, bytes_per_second, percent }
    }
}

impl From<Option<v1::LaneStatus>> for Lane {
    fn from(lane: Option<v1::LaneStatus>) -> Self {
        let v1::LaneStatus { moves, allotted_bytes_per_second } = lane.unwrap_or_default();
        Self { moves, allotted_bytes_per_second }
    }
}

impl<'a> From<&'a v1::LinkStatus> for Link<'a> {
    fn from(link: &'a v1::LinkStatus) -> Self {
        Self {
            name: &link.name,
            a: &link.a,
            b: &link.b,
            in_inventory: !link.a.is_empty(),
            bytes_per_second: link.bytes_per_second,
            cost: link.cost,
            limit: link.limit.as_ref().map(Limit::from),
            forth: link.forth.into(),
            back: link.back.into(),
        }
    }
}

impl From<&v1::InventorySummary> for Summary {
    fn from(summary: &v1::InventorySummary) -> Self {
        let v1::InventorySummary { racks, hosts, spines, links, policies, vms } = *summary;
        Self { racks, hosts, spines, links, policies, vms }
    }
}

fn done(value: impl Serialize) -> String {
    text(&Resulting { result_code: Code::Done as u32, value })
}

/// Links with their limits and their use.
pub fn links(all: &[v1::LinkStatus]) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        links: Vec<Link<'a>>,
    }
    done(All { links: all.iter().map(Link::from).collect() })
}

/// The inventory, and what is not as it says.
pub fn inventory(inventory: &v1::GetInventoryResponse) -> String {
    #[derive(Serialize)]
    struct Rack<'a> {
        name: &'a str,
        hosts: &'a [String],
        away: &'a [String],
    }
    #[derive(Serialize)]
    struct Inventory<'a> {
        imported_unix_ms: Option<u64>,
        summary: Option<Summary>,
        racks: Vec<Rack<'a>>,
        links: Vec<Link<'a>>,
        strangers: Vec<Host<'a>>,
        text: &'a str,
    }
    done(Inventory {
        imported_unix_ms: (inventory.imported_unix_ms > 0).then_some(inventory.imported_unix_ms),
        summary: inventory.summary.as_ref().map(Summary::from),
        racks: inventory
            .racks
            .iter()
            .map(|rack| Rack { name: &rack.name, hosts: &rack.hosts, away: &rack.away })
            .collect(),
        links: inventory.links.iter().map(Link::from).collect(),
        strangers: inventory.strangers.iter().map(Host::from).collect(),
        text: &inventory.text,
    })
}

/// What an import has done.
pub fn imported(changed: bool, summary: &v1::InventorySummary) -> String {
    #[derive(Serialize)]
    struct Imported {
        changed: bool,
        summary: Summary,
    }
    done(Imported { changed, summary: summary.into() })
}

/// A file without mistakes.
pub fn checked(summary: &v1::InventorySummary) -> String {
    #[derive(Serialize)]
    struct Checked {
        summary: Summary,
    }
    done(Checked { summary: summary.into() })
}

/// What is not as it should be, and what was removed.
pub fn problems(all: &[v1::Problem], repaired: &[v1::Problem]) -> String {
    #[derive(Serialize)]
    struct Problem<'a> {
        code: String,
        host: Option<&'a str>,
        vm: Option<&'a str>,
        cause: &'a str,
        fix: &'a str,
        repairable: bool,
    }
    #[derive(Serialize)]
    struct All<'a> {
        problems: Vec<Problem<'a>>,
        repaired: Vec<Problem<'a>>,
    }
    fn problem(one: &v1::Problem) -> Problem<'_> {
        Problem {
            code: word::problem(one.code()),
            host: (!one.host.is_empty()).then_some(&one.host),
            vm: (!one.vm.is_empty()).then_some(&one.vm),
            cause: &one.cause,
            fix: &one.fix,
            repairable: one.repairable,
        }
    }
    let value = All {
        problems: all.iter().map(problem).collect(),
        repaired: repaired.iter().map(problem).collect(),
    };
    text(&Resulting { result_code: Code::of_problems(all) as u32, value })
}
