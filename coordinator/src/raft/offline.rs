//! What is done to the files of a coordinator that does not run: it is made the only one of a new cluster, from its own
//! log or from a backup.
//!
//! A log that misses what a lost majority has decided, or what came after a backup, must not decide who owns a VM: its
//! records may say that a copy is the owner's that others have followed, and a copy that is resumed by them would be the
//! second one. So a cluster that begins anew keeps what no agent knows, and takes its VMs from what agents report:
//!
//! | kept | left behind |
//! |---|---|
//! | hosts (installations, cordons, declared dead), inventory, limits, expelled certificates, events, the key of the dedup domain | VMs and their owners, migrations, evacuations, tokens |
//!
//! Numbers that may have been handed out are jumped over, so that no generation, migration or crossing is used twice. The
//! cluster has a higher incarnation, which agents keep: they refuse the coordinators of the one before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use openraft::BasicNode;
use rackferry_fleet::{Numbers, Record};
use thiserror::Error;

use super::{
    DatabaseError, LogId, LogStore, Membership, NodeId, SnapshotMeta,
    snapshot::{Contents, SnapshotError, SnapshotStore},
    state::StateMachine,
};
use crate::key::DomainKey;

/// The files of a coordinator's log.
const FILES: [&str; 2] = ["snapshot.redb", "coordinator.redb"];
/// Where new files are made.
const NEW: &str = "new";
/// There while new files take the place of the old ones.
const UNFINISHED: &str = "unfinished";

/// The files cannot be worked on.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// The log cannot be used.
    #[error("the log (is the coordinator still running? stop it first)")]
    Log(#[from] DatabaseError),
    /// The snapshot cannot be used.
    #[error("the snapshot")]
    Snapshot(#[from] SnapshotError),
    /// There is no log.
    #[error("{} holds no log of a coordinator", .0.display())]
    NoLog(PathBuf),
    /// The log does not begin where the snapshot ends.
    #[error(
        "entry {expected} of the log is missing: the files are not of one coordinator, or damaged"
    )]
    Gap {
        /// The entry that should come next.
        expected: u64,
    },
    /// A folder that must be empty is not.
    #[error("{} is not empty: a backup is restored into an empty folder only", .0.display())]
    NotEmpty(PathBuf),
    /// The files were being replaced when the program ended.
    #[error("{}: recover or restore did not finish; run the same command again", .0.display())]
    Unfinished(PathBuf),
    /// A file cannot be moved or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> OfflineError {
    let path = path.to_owned();
    move |source| OfflineError::File { path: path.clone(), source }
}

/// What a new cluster begins with.
pub struct Seed {
    /// The key of the dedup domain.
    pub domain_key: Option<DomainKey>,
    /// Every record of the cluster before.
    pub records: Vec<Record>,
    /// The last entry of its log.
    pub last: LogId,
}

/// What is found in the folder of a coordinator.
pub struct Found {
    /// The cluster that it is of.
    pub cluster: String,
    /// The last entry that is known to be committed; more may be.
    pub committed: Option<u64>,
    /// What a new cluster would begin with.
    pub seed: Seed,
}

/// The incarnation of a cluster that comes after another one's records.
pub fn incarnation_after(records: &[Record], unix_seconds: u64) -> u64 {
    let before = records.iter().find_map(|record| match record {
        Record::Numbers(numbers) => Some(numbers.incarnation),
        _ => None,
    });
    before.unwrap_or_default().saturating_add(1).max(unix_seconds)
}

/// Checks that no replacement of the files in a folder was cut short.
///
/// # Errors
/// If one was.
pub fn check_finished(dir: &Path) -> Result<(), OfflineError> {
    let path = dir.join(UNFINISHED);
    if path.exists() { Err(OfflineError::Unfinished(path)) } else { Ok(()) }
}

/// Reads a coordinator's folder: its snapshot, and all entries of its log. Those that it does not know to be committed
/// count, as they would if it were elected.
///
/// # Errors
/// See [`OfflineError`].
pub fn examine(dir: &Path, node: NodeId) -> Result<Found, OfflineError> {
    let path = dir.join(FILES[1]);
    if !path.exists() {
        return Err(OfflineError::NoLog(dir.to_owned()));
    }
    let log = LogStore::open(&path, node)?;
    let mut state = StateMachine::open(&dir.join(FILES[0]))?;
    let next = state.applied().last().map_or(0, |last| last.index + 1);
    let entries = log.all_from(next)?;
    for (expected, entry) in (next..).zip(&entries) {
        if entry.log_id.index != expected {
            return Err(OfflineError::Gap { expected });
        }
    }
    state.replay(entries);
    let applied = state.applied();
    let last = applied.last().ok_or_else(|| OfflineError::NoLog(dir.to_owned()))?;
    Ok(Found {
        cluster: log.cluster()?.unwrap_or_default(),
        committed: log.committed_index(),
        seed: Seed { domain_key: applied.domain_key(), records: applied.records(), last },
    })
}

/// The records that a cluster keeps which begins anew.
fn kept(records: Vec<Record>, incarnation: u64) -> Vec<Record> {
    let mut numbers = Numbers::default();
    let mut kept: Vec<Record> = Vec::new();
    for record in records {
        match record {
            Record::Numbers(found) => numbers = found,
            Record::Host(_)
            | Record::Inventory(_)
            | Record::Limit(_)
            | Record::Expelled(_)
            | Record::Event(_) => kept.push(record),
            Record::Vm(_) | Record::Migration(_) | Record::Evacuation(_) | Record::Token(_) => {}
        }
    }
    numbers.jump(incarnation);
    kept.push(Record::Numbers(numbers));
    kept
}

/// Makes a coordinator's files those of the only member of a new cluster; files that were there before are kept in the
/// folder that is returned.
///
/// # Errors
/// See [`OfflineError`]. Cut short, it leaves the old files in use, or a coordinator that does not start until it is run
/// again.
pub fn begin_anew(
    dir: &Path,
    (node, addr): (NodeId, &str),
    seed: Seed,
    incarnation: u64,
) -> Result<PathBuf, OfflineError> {
    let new = dir.join(NEW);
    if new.exists() {
        fs::remove_dir_all(&new).map_err(at(&new))?;
    }
    fs::create_dir_all(&new).map_err(at(&new))?;
    let Seed { domain_key, records, last } = seed;
    let contents = Contents::new(domain_key, kept(records, incarnation), None).encode()?;
    let nodes = BTreeMap::from([(node, BasicNode::new(addr))]);
    let members = openraft::Membership::new(vec![BTreeSet::from([node])], nodes);
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: Membership::new(Some(last), members),
        snapshot_id: format!("incarnation-{incarnation}"),
    };
    SnapshotStore::open(&new.join(FILES[0]))?.keep(&meta, &contents)?;
    let log = LogStore::open(&new.join(FILES[1]), node)?;
    log.begin_after(last, &format!("{node}@{addr}, incarnation {incarnation}"))?;
    drop(log);
    let before = dir.join(format!("before-{incarnation}"));
    fs::create_dir_all(&before).map_err(at(&before))?;
    for name in FILES {
        let (old, kept) = (dir.join(name), before.join(name));
        if old.exists() && !kept.exists() {
            fs::hard_link(&old, &kept).map_err(at(&kept))?;
        }
    }
    let marker = dir.join(UNFINISHED);
    let made = File::create(&marker).and_then(|file| file.sync_all());
    made.map_err(at(&marker))?;
    sync(&before)?;
    sync(dir)?;
    finish(dir)?;
    Ok(before)
}

/// Puts new files that are whole in the place of the old ones; done again after a crash. Nothing if there is nothing to
/// finish.
///
/// # Errors
/// If a file cannot be moved.
pub fn finish(dir: &Path) -> Result<bool, OfflineError> {
    let marker = dir.join(UNFINISHED);
    if !marker.exists() {
        return Ok(false);
    }
    let new = dir.join(NEW);
    for name in FILES {
        let (from, to) = (new.join(name), dir.join(name));
        if from.exists() {
            fs::rename(&from, &to).map_err(at(&to))?;
        }
    }
    sync(dir)?;
    fs::remove_file(&marker).map_err(at(&marker))?;
    // It is empty by now, and in no one's way.
    let _ = fs::remove_dir(&new);
    sync(dir)?;
    Ok(true)
}

/// Makes a folder for a coordinator's files, or takes an empty one.
///
/// # Errors
/// If something is in it.
pub fn empty_folder(dir: &Path) -> Result<(), OfflineError> {
    fs::create_dir_all(dir).map_err(at(dir))?;
    let mut there = fs::read_dir(dir).map_err(at(dir))?;
    if there.next().is_some() { Err(OfflineError::NotEmpty(dir.to_owned())) } else { Ok(()) }
}

fn sync(dir: &Path) -> Result<(), OfflineError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

#[cfg(test)]
mod tests {
    use openraft::testing::log_id;
    use rackferry_fleet::{
        ExpelledRecord, Generation, HostId, HostRecord, MigrationId, Moment, Standing, TokenRecord,
        VmRecord,
    };

    use super::*;

    fn records() -> Vec<Record> {
        let numbers = Numbers {
            migration: MigrationId(7),
            generation: Generation(9),
            host: HostId(3),
            incarnation: 5,
            ..Numbers::default()
        };
        let vm = VmRecord {
            name: "web".into(),
            memory_bytes: 1,
            owner: "h1".into(),
            generation: Generation(9),
            standing: Standing::Stable,
            spec: None,
        };
        let expelled = ExpelledRecord {
            name: "bad".to_owned(),
            serial: None,
            by: String::new(),
            at: Moment(1),
        };
        let token = TokenRecord { host: "h2".into(), digest: "d".into(), expires: Moment(9) };
        vec![
            Record::Numbers(numbers),
            Record::Host(HostRecord::new("h1".into(), HostId(3), "r".into(), 1)),
            Record::Vm(vm),
            Record::Token(token),
            Record::Expelled(expelled),
        ]
    }

    #[test]
    fn what_agents_know_better_is_left_behind_and_numbers_are_jumped_over() {
        let kept = kept(records(), 8);
        assert_eq!(kept.len(), 3, "{kept:?}");
        let Some(Record::Numbers(numbers)) = kept.last() else { panic!("{kept:?}") };
        assert_eq!(numbers.incarnation, 8);
        assert!(numbers.migration.0 > 1_000_000 && numbers.generation.0 > 1_000_000);
        assert!(numbers.host.0 > 1000);
    }

    #[test]
    fn an_incarnation_is_higher_than_the_one_before_whatever_the_clock_says() {
        assert_eq!(incarnation_after(&records(), 2), 6);
        assert_eq!(incarnation_after(&records(), 1_800_000_000), 1_800_000_000);
        assert_eq!(incarnation_after(&[], 3), 3);
    }

    #[test]
    fn a_folder_begins_anew_and_can_be_examined_again() {
        let dir = tempfile::tempdir().unwrap();
        let seed = Seed { domain_key: None, records: records(), last: log_id(4, 2, 30) };
        begin_anew(dir.path(), (1, "c1:7400"), seed, 8).unwrap();
        let found = examine(dir.path(), 1).unwrap();
        assert_eq!(found.cluster, "1@c1:7400, incarnation 8");
        assert_eq!(found.seed.last, log_id(4, 2, 30));
        assert_eq!(found.seed.records.len(), 3);
        assert!(check_finished(dir.path()).is_ok());
        assert!(matches!(empty_folder(dir.path()), Err(OfflineError::NotEmpty(_))));
        let other = examine(dir.path(), 2);
        assert!(matches!(other, Err(OfflineError::Log(DatabaseError::OtherNode { .. }))));
    }

    #[test]
    fn one_that_was_cut_short_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let seed = |last| Seed { domain_key: None, records: records(), last };
        begin_anew(dir.path(), (1, "c1:7400"), seed(log_id(4, 2, 30)), 8).unwrap();
        // As it is after the first of two files was moved.
        let new = dir.path().join(NEW);
        begin_anew(&new, (1, "c1:7400"), seed(log_id(5, 2, 40)), 9).unwrap();
        fs::rename(new.join(FILES[0]), dir.path().join(FILES[0])).unwrap();
        fs::write(dir.path().join(UNFINISHED), "").unwrap();
        assert!(matches!(check_finished(dir.path()), Err(OfflineError::Unfinished(_))));
        assert!(finish(dir.path()).unwrap());
        assert!(!finish(dir.path()).unwrap());
        assert_eq!(examine(dir.path(), 1).unwrap().seed.last, log_id(5, 2, 40));
    }

    #[test]
    fn a_folder_without_a_log_is_none_to_recover() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(examine(dir.path(), 1), Err(OfflineError::NoLog(_))));
        assert!(empty_folder(&dir.path().join("made")).is_ok());
    }
}
