//! What agents log at the end of a session.

use anyhow::{Context, Result};

const MARK: &str = "figures=[";

/// CPU seconds of each stage, of the last session in an agent's log; `side` goes before their names.
pub fn stages(log: &str, side: &str) -> Result<Vec<(String, f64)>> {
    let line =
        log.lines().rev().find(|line| line.contains(MARK)).context("no session in the log")?;
    let figures = parse(line).with_context(|| format!("no figures: {line}"))?;
    let stages = figures.into_iter().filter_map(|(name, value)| {
        let stage = name.strip_suffix("_ns")?;
        (value > 0).then(|| (format!("{side} {stage}"), value as f64 / 1e9))
    });
    Ok(stages.collect())
}

/// `figures=[("raw_bytes", 1), ("read_ns", 2)]`
fn parse(line: &str) -> Option<Vec<(&str, u64)>> {
    let (_, list) = line.split_once(MARK)?;
    let (list, _) = list.split_once(']')?;
    list.split("), ")
        .map(|pair| {
            let (name, value) = pair.trim_matches(['(', ')']).split_once(", ")?;
            Some((name.trim_matches('"'), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_session_counts_and_only_times_that_passed() {
        let log = "INFO sent id=m-1 figures=[(\"raw_bytes\", 1), (\"read_ns\", 2)]\n\
                   INFO sent id=m-2 figures=[(\"raw_bytes\", 1), (\"read_ns\", 1500000000), (\"zstd_ns\", 0)]\nother";
        assert_eq!(stages(log, "source").unwrap(), [("source read".to_owned(), 1.5)]);
        assert!(stages("nothing", "source").is_err());
    }
}
