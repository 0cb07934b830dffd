//! The file as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

use crate::mistake::Mistake;

pub(crate) type Text = Spanned<String>;

/// Everything in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) version: Spanned<u32>,
    #[serde(default)]
    pub(crate) defaults: Defaults,
    #[serde(default)]
    pub(crate) racks: Vec<Rack>,
    #[serde(default)]
    pub(crate) spines: Vec<Spine>,
    #[serde(default)]
    pub(crate) links: Vec<Link>,
    #[serde(default)]
    pub(crate) policies: Vec<Policy>,
    #[serde(default)]
    pub(crate) vms: Vec<Vm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Defaults {
    pub(crate) nic: Option<Text>,
    pub(crate) mem_headroom: Option<Text>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rack {
    pub(crate) name: Text,
    #[serde(default)]
    pub(crate) uplinks: Vec<Uplink>,
    #[serde(default)]
    pub(crate) hosts: Vec<Host>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Uplink {
    pub(crate) to: Text,
    pub(crate) rate: Text,
    pub(crate) name: Option<Text>,
    pub(crate) cost: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(crate) name: Text,
    pub(crate) template: Option<Text>,
    pub(crate) addr: Option<Text>,
    pub(crate) mig_addr: Option<Text>,
    pub(crate) mem: Option<Text>,
    pub(crate) cpus: Option<Spanned<u32>>,
    pub(crate) hugepages_2m: Option<u32>,
    pub(crate) hugepages_1g: Option<u32>,
    pub(crate) nic: Option<Text>,
    pub(crate) mem_headroom: Option<Text>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spine {
    pub(crate) name: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    pub(crate) a: Text,
    pub(crate) b: Text,
    pub(crate) rate: Text,
    pub(crate) name: Option<Text>,
    pub(crate) cost: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    pub(crate) name: Text,
    #[serde(default, rename = "match")]
    pub(crate) matches: BTreeMap<String, String>,
    pub(crate) max_downtime: Option<Text>,
    pub(crate) priority: Option<Spanned<u32>>,
    #[serde(default)]
    pub(crate) post_copy: bool,
    pub(crate) disruption: Option<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vm {
    pub(crate) name: Text,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Reads YAML.
pub(crate) fn parse(text: &str) -> Result<File, Mistake> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let what = UserMessageFormatter.format_message(error).into_owned();
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        Mistake::new(line, column, in_our_words(&what), "docs/inventory.md says what may be there")
    })
}

/// The reader's words for what it found, without those of its trade.
fn in_our_words(what: &str) -> String {
    [
        ("unknown field", "unknown key"),
        ("missing field", "missing key"),
        ("duplicate field", "the key is there twice:"),
        ("invalid u32", "not a whole number"),
        ("invalid bool", "neither true nor false"),
        ("expected sequence start", "a list is expected"),
        ("expected mapping start", "keys and values are expected"),
    ]
    .into_iter()
    .fold(what.to_owned(), |what, (theirs, ours)| what.replace(theirs, ours))
}
