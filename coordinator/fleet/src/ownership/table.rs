//! Which host may run a VM that moves: the table of promise P1.
//!
//! # The protocol
//!
//! A VM's [`Standing`](crate::Standing) is durable before any agent is told of it:
//!
//! | standing | which host may run the VM |
//! |---|---|
//! | `Stable` | its owner only; no other host can, whatever it was told earlier |
//! | `Moving` | its owner, the source; a copy at the target is paused and has not been loaded for good |
//! | `Committed`, source not stopped | the source until it lets its QEMU finish; then the target |
//! | `Committed`, source stopped | its owner, the target |
//!
//! The target runs its copy on one of two words: Go of the source's session, which the source says only
//! after a granted commit and after its QEMU reached postmigrate, or `ResumeTarget` of the coordinator,
//! which is sent only in the last row. So before the commit no process can tell the target to run, and after it
//! the source never runs again unless it attests that it never stopped (then it never said Go) or
//! the target attests that its copy is gone and never ran.
//!
//! # The table
//!
//! What both sides attest is reduced to one of a few words ([`Source`], [`Target`]); [`decide`] is a
//! function of the standing and the two words. Nothing here is a time-out: a side that is silent is
//! `Unknown`, and `Unknown` alone never moves ownership.
//!
//! Not committed, source told to start (`Copying`):
//!
//! | source \ target | Unknown | Paused | Orphaned | Runs | Gone | Died |
//! |---|---|---|---|---|---|---|
//! | Unknown | wait | wait | wait | conflict | wait | wait |
//! | Moving  | wait | wait | call off | conflict | call off | call off |
//! | Runs    | roll back | roll back | roll back | conflict | roll back | roll back |
//! | Stopped | roll back | roll back | roll back | conflict | roll back | roll back |
//! | Gone    | lost | lost | lost | conflict | lost | lost |
//! | Died    | lost | lost | lost | conflict | lost | lost |
//!
//! Not committed, source not told (`Preparing`): as above, but `Runs` is what the source should do, and it
//! need not be heard, because it was never told: the move is given up only for an `Orphaned`, `Gone` or `Died` target,
//! and then at once.
//!
//! Committed, source not known to be stopped:
//!
//! | source \ target | Unknown | Paused | Orphaned | Runs | Gone | Died |
//! |---|---|---|---|---|---|---|
//! | Unknown | wait | wait | wait | settle | abort | wait |
//! | Moving  | wait | wait | wait | settle | abort | wait |
//! | Runs    | abort | abort | abort | conflict | abort | abort |
//! | Stopped | stopped | stopped | stopped | settle | abort | stopped |
//! | Gone    | stopped | stopped | stopped | settle | lost | lost |
//! | Died    | wait | wait | wait | settle | lost | lost |
//!
//! Committed, source stopped:
//!
//! | source \ target | Unknown | Paused | Orphaned | Runs | Gone | Died |
//! |---|---|---|---|---|---|---|
//! | Unknown | wait | resume | resume | settle | abort | lost |
//! | Moving  | wait | resume | resume | settle | abort | lost |
//! | Runs    | conflict | conflict | conflict | conflict | abort | conflict |
//! | Stopped | wait | resume | resume | settle | abort | lost |
//! | Gone    | wait | resume | resume | settle | lost | lost |
//! | Died    | wait | resume | resume | settle | lost | lost |
//!
//! * **roll back**: the VM stays with its source (`Stable`); the target's copy is discarded.
//! * **call off**: the source is told to cancel; its answer rolls back.
//! * **stopped**: the source's attestation becomes durable, then the target is told to run.
//! * **abort**: the commit is undone: the source owns it again with a new generation, which makes every word
//!   of the old one void; if it had stopped it is told to run.
//! * **settle**: the VM is `Stable` at the target; the source's copy is removed.
//! * **lost**: the VM's QEMU died, here or there; there is nothing left that may run. A stopped source keeps its memory:
//!   only a person can know that it is not older than what the target's disks have.
//! * **conflict**: a copy runs that no order allows to run. Nothing is ordered; a human must look.
//!
//! # Lost, late and repeated messages
//!
//! One stream keeps its order and a new stream of a host makes the old one void, so a list of VMs that came
//! after a word of a session is newer than that word. The first list of a stream (Hello) holds whatever
//! was lost with the one before. A session is alive only while its agent has the boot id that
//! was told to start it, so a restarted agent cannot be taken for one that still copies.
//!
//! # What this asks of agents
//!
//! A list is complete: a VM that is not in it has no process on the host. A QEMU the agent cannot reach is
//! listed as unknown, and unknown attests nothing. Before an agent lets a copy run it writes down that it is about to, and
//! it lists what died since, also after the host lost its power: a copy that is gone never ran, one that
//! [died](Target::Died) may have. The source of the former goes on from the moment it stopped at; that of the latter never
//! does, for its memory is older than what the target has written to disks and told the world. The same holds the other way
//! round: a source whose agent was not there when its QEMU died may have run on, because its stream broke before it read
//! `SHUT`; what its target has loaded waits for a person, who removes what is left of the source to let it run.

/// What the source attests about a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// Its agent is not connected, or has not spoken of it since.
    #[default]
    Unknown,
    /// Its session lives; the guest runs or is about to stop.
    Moving,
    /// There is no session, and the VM runs (or can by itself).
    Runs,
    /// Its QEMU cannot run by itself any more.
    Stopped,
    /// Its QEMU is gone, and did not run after it was stopped.
    Gone,
    /// Its QEMU is gone, and may have run on after it was stopped: its stream may have broken before `SHUT` was read.
    Died,
}

/// What the target attests about a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// Its agent is not connected, or has not spoken of it since.
    #[default]
    Unknown,
    /// A copy that does not run, with a live session.
    Paused,
    /// A copy that does not run and whose session died with its agent.
    Orphaned,
    /// The copy runs.
    Runs,
    /// There is no copy that ran, and none will appear for this migration.
    Gone,
    /// The copy's QEMU is gone, and its guest may have run.
    Died,
}

/// How far ownership has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passed {
    /// Not committed; the source was not told to start.
    Preparing,
    /// Not committed; the source was told to start.
    Copying,
    /// Committed; the source may still run.
    Committed,
    /// Committed, and the source attested that it stopped.
    Stopped,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// Tell the source to cancel.
    CallOff,
    /// The VM stays with its source.
    RollBack,
    /// Write down that the source stopped.
    MarkStopped,
    /// Tell the target to run.
    Resume,
    /// Undo the commit.
    Abort,
    /// The target owns it for good.
    Settle,
    /// There is no copy left.
    Lost,
    /// A human must look.
    Conflict,
}

/// The table above.
pub fn decide(passed: Passed, source: Source, target: Target) -> Verdict {
    match passed {
        Passed::Preparing => preparing(source, target),
        Passed::Copying => copying(source, target),
        Passed::Committed => committed(source, target),
        Passed::Stopped => stopped(source, target),
    }
}

fn preparing(source: Source, target: Target) -> Verdict {
    match (source, target) {
        (Source::Runs, Target::Unknown | Target::Paused) => Verdict::Wait,
        (Source::Unknown, Target::Orphaned | Target::Gone | Target::Died) => Verdict::RollBack,
        _ => copying(source, target),
    }
}

fn copying(source: Source, target: Target) -> Verdict {
    match (source, target) {
        (_, Target::Runs) => Verdict::Conflict,
        (Source::Unknown, _) => Verdict::Wait,
        (Source::Moving, Target::Unknown | Target::Paused) => Verdict::Wait,
        (Source::Moving, Target::Orphaned | Target::Gone | Target::Died) => Verdict::CallOff,
        (Source::Runs | Source::Stopped, _) => Verdict::RollBack,
        (Source::Gone | Source::Died, _) => Verdict::Lost,
    }
}

fn committed(source: Source, target: Target) -> Verdict {
    match (source, target) {
        (Source::Runs, Target::Runs) => Verdict::Conflict,
        (_, Target::Runs) => Verdict::Settle,
        (Source::Gone | Source::Died, Target::Gone | Target::Died) => Verdict::Lost,
        (Source::Runs, _) | (_, Target::Gone) => Verdict::Abort,
        (Source::Unknown | Source::Moving | Source::Died, _) => Verdict::Wait,
        (Source::Stopped | Source::Gone, _) => Verdict::MarkStopped,
    }
}

fn stopped(source: Source, target: Target) -> Verdict {
    match (source, target) {
        (Source::Gone | Source::Died, Target::Gone) => Verdict::Lost,
        (_, Target::Gone) => Verdict::Abort,
        (Source::Runs, _) => Verdict::Conflict,
        (_, Target::Died) => Verdict::Lost,
        (_, Target::Runs) => Verdict::Settle,
        (_, Target::Unknown) => Verdict::Wait,
        (_, Target::Paused | Target::Orphaned) => Verdict::Resume,
    }
}

#[cfg(test)]
mod tests {
    use super::{Passed, Source, Target, Verdict, decide};

    const SOURCES: [(&str, Source); 6] = [
        ("Unknown", Source::Unknown),
        ("Moving", Source::Moving),
        ("Runs", Source::Runs),
        ("Stopped", Source::Stopped),
        ("Gone", Source::Gone),
        ("Died", Source::Died),
    ];
    const TARGETS: [Target; 6] = [
        Target::Unknown,
        Target::Paused,
        Target::Orphaned,
        Target::Runs,
        Target::Gone,
        Target::Died,
    ];

    /// The rows of the n-th table of the module's documentation.
    fn drawn(n: usize) -> Vec<(String, Vec<String>)> {
        let heads = include_str!("table.rs").split("//! | source \\ target |");
        let table = heads.skip(1).nth(n).expect("the table is drawn");
        let rows = table.lines().skip(2).map_while(|line| line.strip_prefix("//! | "));
        rows.map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().to_owned());
            let head = cells.next().expect("a row has a head");
            (head, cells.filter(|cell| !cell.is_empty()).collect())
        })
        .collect()
    }

    fn word(verdict: Verdict) -> &'static str {
        match verdict {
            Verdict::Wait => "wait",
            Verdict::CallOff => "call off",
            Verdict::RollBack => "roll back",
            Verdict::MarkStopped => "stopped",
            Verdict::Resume => "resume",
            Verdict::Abort => "abort",
            Verdict::Settle => "settle",
            Verdict::Lost => "lost",
            Verdict::Conflict => "conflict",
        }
    }

    #[test]
    fn every_cell_is_as_drawn() {
        for (n, passed) in [Passed::Copying, Passed::Committed, Passed::Stopped].iter().enumerate()
        {
            let rows = drawn(n);
            assert_eq!(rows.len(), SOURCES.len());
            for ((head, cells), (name, source)) in rows.iter().zip(SOURCES) {
                assert_eq!(head, name);
                assert_eq!(cells.len(), TARGETS.len());
                for (cell, target) in cells.iter().zip(TARGETS) {
                    let verdict = decide(*passed, source, target);
                    assert_eq!(cell, word(verdict), "{passed:?} {source:?} {target:?}");
                }
            }
        }
    }

    #[test]
    fn preparing_differs_only_where_the_source_runs_or_is_silent() {
        for (_, source) in SOURCES {
            for target in TARGETS {
                let here = decide(Passed::Preparing, source, target);
                let copying = decide(Passed::Copying, source, target);
                let none = matches!(target, Target::Orphaned | Target::Gone | Target::Died);
                let expected = match source {
                    Source::Runs if matches!(target, Target::Unknown | Target::Paused) => {
                        Verdict::Wait
                    }
                    Source::Unknown if none => Verdict::RollBack,
                    _ => copying,
                };
                assert_eq!(here, expected, "{source:?} {target:?}");
            }
        }
    }

    #[test]
    fn silence_never_moves_ownership() {
        for passed in [Passed::Preparing, Passed::Copying, Passed::Committed, Passed::Stopped] {
            assert_eq!(decide(passed, Source::Unknown, Target::Unknown), Verdict::Wait);
        }
    }

    #[test]
    fn the_target_is_told_to_run_only_after_the_source_stopped() {
        for passed in [Passed::Preparing, Passed::Copying, Passed::Committed] {
            for (_, source) in SOURCES {
                for target in TARGETS {
                    assert_ne!(decide(passed, source, target), Verdict::Resume);
                }
            }
        }
    }

    #[test]
    fn a_source_that_may_have_stopped_gets_the_vm_back_only_from_a_target_without_a_copy() {
        for source in [Source::Unknown, Source::Moving, Source::Stopped] {
            for target in TARGETS {
                for passed in [Passed::Committed, Passed::Stopped] {
                    let back = decide(passed, source, target) == Verdict::Abort;
                    assert_eq!(back, target == Target::Gone, "{passed:?} {source:?} {target:?}");
                }
            }
        }
    }
}
