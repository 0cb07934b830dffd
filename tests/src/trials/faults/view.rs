//! An evacuation as the command line shows it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::plan::Step;
use crate::lab::site::Site;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The latest attempt to move a VM.
#[derive(Clone, Debug)]
pub struct Move {
    /// The VM.
    pub vm: String,
    /// Where it leaves.
    pub source: String,
    /// Where it goes.
    pub target: String,
    /// The word for its phase.
    pub phase: String,
    /// Why it waits or failed, if so.
    pub why: String,
    /// 1 for the first attempt.
    pub attempt: u64,
}

impl Move {
    /// How far it is.
    pub fn step(&self) -> Step {
        match self.phase.as_str() {
            "queued" => Step::Queued,
            "preparing" => Step::Preparing,
            "copying" | "verifying" | "cancelling" => Step::Copying,
            "switching" | "paused_recoverable" | "owner_unknown" => Step::Switching,
            "announcing" => Step::Announcing,
            _ => Step::Ended,
        }
    }

    /// Between the order to the target and the end.
    pub fn is_under_way(&self) -> bool {
        (Step::Preparing..Step::Ended).contains(&self.step())
    }

    /// It runs at its target.
    pub fn is_done(&self) -> bool {
        self.phase == "done"
    }
}

/// One evacuation at one moment.
#[derive(Clone, Debug)]
pub struct Evacuation {
    /// Its state's word.
    pub state: String,
    /// One move a VM.
    pub moves: Vec<Move>,
}

impl Evacuation {
    /// Nothing happens any more.
    pub fn is_over(&self) -> bool {
        !matches!(self.state.as_str(), "running" | "cancelling")
    }

    /// Asks for it.
    pub fn ask(site: &Site<'_>, id: &str) -> Result<Self> {
        // Its own result is in the exit code; here only its words count.
        let output = site.cli(&["status", id, "--output", "json"])?;
        let value: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("status {id}: {}", String::from_utf8_lossy(&output.stderr)))?;
        Self::read(&value).with_context(|| format!("status {id}: {value}"))
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let mut latest = BTreeMap::new();
        for one in value.get("vms")?.as_array()? {
            let wait = &one["wait_reason"];
            let reason = one["reason"].as_str().unwrap_or_default();
            let one = Move {
                vm: text(one, "vm")?,
                source: text(one, "source_host")?,
                target: text(one, "target_host")?,
                phase: text(one, "phase")?,
                attempt: one["attempt"].as_u64()?,
                why: if wait.is_null() { reason.to_owned() } else { wait.to_string() },
            };
            latest.insert(one.vm.clone(), one);
        }
        Some(Self { state: text(value, "state")?, moves: latest.into_values().collect() })
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let moves = self.moves.iter().map(|m| {
            let why = if m.why.is_empty() { String::new() } else { format!(" ({})", m.why) };
            format!("{} {}->{} {}{why}", m.vm, m.source, m.target, m.phase)
        });
        format!("{}: {}", self.state, moves.collect::<Vec<_>>().join("; "))
    }

    /// Looks again and again until `wanted` says yes. A coordinator that does not answer is asked again.
    pub fn watch(
        site: &Site<'_>,
        id: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Self) -> bool,
    ) -> Result<Self> {
        let start = Instant::now();
        let mut last = Err(anyhow::anyhow!("not asked"));
        while start.elapsed() < limit {
            last = Self::ask(site, id);
            if let Ok(evacuation) = &last
                && wanted(evacuation)
            {
                return last;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let last = last.with_context(|| format!("{id} after {limit:?}"))?;
        bail!("{id} is stuck after {limit:?}: {}", last.describe())
    }
}
