//! What the stops of a run's VMs were spent on: the agents of their sources log it at the end of each session.

use serde::Serialize;

use super::figures::Spread;
use crate::lab::Lab;

/// Begin of a part list in an agent's log, and where it ends.
const STOP: &str = " stop=";

/// One part of the stops, ms.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct StopPart {
    /// Its name.
    pub part: String,
    /// Over all VMs that moved.
    pub ms: Spread,
}

/// How long each agent's log is, in the order of the lab's hosts.
pub(super) fn marks(lab: &Lab) -> Vec<usize> {
    logs(lab).map(|log| log.len()).collect()
}

/// The parts of all stops that the agents have logged since.
pub(super) fn since(lab: &Lab, marks: &[usize]) -> Vec<StopPart> {
    let new = logs(lab).zip(marks).map(|(log, mark)| log.get(*mark..).unwrap_or("").to_owned());
    parts(&new.collect::<String>())
}

fn logs(lab: &Lab) -> impl Iterator<Item = String> {
    lab.hosts().iter().map(|host| lab.printed(&format!("agent-{}", host.name())))
}

fn parts(log: &str) -> Vec<StopPart> {
    let stops = log.lines().filter(|line| line.contains("outcome=Moved"));
    let stops = stops.filter_map(|line| Some(line.split_once(STOP)?.1));
    let mut all: Vec<(String, Vec<f64>)> = Vec::new();
    for (part, ms) in stops.flat_map(|stop| stop.split(", ")).filter_map(part) {
        match all.iter_mut().find(|(known, _)| *known == part) {
            Some((_, values)) => values.push(ms),
            None => all.push((part, vec![ms])),
        }
    }
    let spread =
        |(part, values): (_, Vec<f64>)| StopPart { part, ms: Spread::of(values.into_iter()) };
    all.into_iter().map(spread).collect()
}

/// `pages 5.0 ms`.
fn part(text: &str) -> Option<(String, f64)> {
    let (part, ms) = text.trim().strip_suffix(" ms")?.rsplit_once(' ')?;
    Some((part.to_owned(), ms.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_stops_are_read_from_logs() {
        let log = "INFO source: session over id=mig-1 outcome=Moved blackout=Some(9ms) stop=pages 5.0 ms, devices 3.0 ms\n\
                   INFO source: session over id=mig-2 outcome=RolledBack(\"x\") blackout=None stop=pages 99.0 ms\n\
                   INFO source: session over id=mig-3 outcome=Moved blackout=Some(9ms) stop=pages 7.0 ms, source's end 1.0 ms\n";
        let parts = parts(log);
        let names: Vec<&str> = parts.iter().map(|part| part.part.as_str()).collect();
        assert_eq!(names, ["pages", "devices", "source's end"]);
        assert_eq!((parts[0].ms.median, parts[0].ms.max), (6.0, 7.0));
    }
}
