//! Progress bars that never run backwards.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rackferry_proto::v1::{Evacuation, Migration, Phase};

use crate::{render, units::bytes};

/// Bars of single VMs at a time; a terminal has few lines.
const BARS: usize = 12;
/// Steps of a bar.
const WHOLE: u64 = 1000;

/// A bar for the whole and one for each VM that moves.
pub struct Progress {
    bars: MultiProgress,
    whole: ProgressBar,
    moving: BTreeMap<String, ProgressBar>,
}

impl Progress {
    /// Bars on the terminal, or none.
    pub fn new(visible: bool) -> Self {
        let bars = MultiProgress::new();
        if !visible {
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        let whole = bars.add(ProgressBar::new(WHOLE));
        whole.set_style(style("{prefix} {bar:30} {percent:>3} % {elapsed_precise} {msg}"));
        Self { bars, whole, moving: BTreeMap::new() }
    }

    /// Shows an evacuation as it stands.
    pub fn show(&mut self, evacuation: &Evacuation) {
        let totals = evacuation.totals.unwrap_or_default();
        let sent = totals.counters.unwrap_or_default().wire_bytes;
        self.whole.set_prefix(evacuation.id.clone());
        self.whole.set_message(format!(
            "{}/{} VMs, {} queued, {} failed, sent {}",
            totals.done,
            totals.vms,
            totals.queued,
            totals.failed + totals.uncertain,
            bytes(sent)
        ));
        raise(&self.whole, delivered(&evacuation.migrations));
        self.show_moving(&evacuation.migrations);
    }

    /// Shows a single move as it stands.
    pub fn show_one(&mut self, migration: &Migration) {
        self.whole.set_prefix(migration.id.clone());
        self.whole.set_message(message(migration));
        raise(&self.whole, delivered(std::slice::from_ref(migration)));
    }

    fn show_moving(&mut self, migrations: &[Migration]) {
        let moving: Vec<&Migration> =
            migrations.iter().filter(|one| moves(one)).take(BARS).collect();
        self.moving.retain(|id, bar| {
            let still = moving.iter().any(|one| one.id == *id);
            if !still {
                bar.finish_and_clear();
            }
            still
        });
        for one in moving {
            let bar = self.moving.entry(one.id.clone()).or_insert_with(|| {
                let bar = self.bars.add(ProgressBar::new(WHOLE));
                bar.set_style(style("  {prefix:20} {bar:20} {percent:>3} % {msg}"));
                bar.set_prefix(one.vm.clone());
                bar
            });
            bar.set_message(message(one));
            raise(bar, one.pass1_ratio);
        }
    }

    /// Takes the bars away.
    pub fn finish(&mut self) {
        for bar in self.moving.values() {
            bar.finish_and_clear();
        }
        self.whole.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).expect("the templates are constant and right");
    style.progress_chars("=> ")
}

/// A bar goes up or stays.
fn raise(bar: &ProgressBar, ratio: f64) {
    let position = (ratio.clamp(0.0, 1.0) * WHOLE as f64) as u64;
    bar.set_position(position.max(bar.position()));
}

fn moves(one: &Migration) -> bool {
    one.started_unix_ms > 0 && one.ended_unix_ms == 0
}

fn message(one: &Migration) -> String {
    let mut text = render::word::phase(one.phase());
    if one.round > 1 {
        text.push_str(&format!(", round {}, {} left", one.round, bytes(one.remaining_bytes)));
    }
    if let Some(wait) = &one.wait_reason {
        text.push_str(": ");
        text.push_str(&render::evacuation::wait(wait));
    }
    text
}

/// How much of all memory is at its target, as far as first passes go.
fn delivered(migrations: &[Migration]) -> f64 {
    let all: f64 = migrations.iter().map(|one| one.memory_bytes as f64).sum();
    let there: f64 = migrations.iter().map(|one| one.memory_bytes as f64 * share(one)).sum();
    if all > 0.0 { there / all } else { 0.0 }
}

fn share(one: &Migration) -> f64 {
    if one.phase() == Phase::Done { 1.0 } else { one.pass1_ratio.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(memory_bytes: u64, pass1_ratio: f64, phase: Phase) -> Migration {
        Migration { memory_bytes, pass1_ratio, phase: phase.into(), ..Default::default() }
    }

    #[test]
    fn the_whole_is_weighted_by_memory() {
        let all = [migration(300, 0.5, Phase::Copying), migration(100, 0.2, Phase::Done)];
        assert_eq!(delivered(&all), 0.625);
        assert_eq!(delivered(&[]), 0.0);
    }

    #[test]
    fn bars_never_run_backwards() {
        let bar = ProgressBar::hidden();
        raise(&bar, 0.7);
        raise(&bar, 0.2);
        assert_eq!(bar.position(), 700);
    }
}
