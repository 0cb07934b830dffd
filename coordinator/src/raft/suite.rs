//! The store against openraft's own tests, and against a log that an earlier version wrote.
#![allow(clippy::result_large_err, reason = "openraft's traits want it")]

use openraft::{
    RaftLogReader,
    storage::{RaftLogStorage, RaftStateMachine},
    testing::{StoreBuilder, Suite},
};
use rackferry_fleet::{Record, Standing};
use tempfile::TempDir;

use super::{LogStore, NodeId, StorageError, Types, snapshot::Contents, state::StateMachine};

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let log = LogStore::open(&dir.path().join("log"), 0).unwrap();
        let state = StateMachine::open(&dir.path().join("snapshot")).unwrap();
        Ok((dir, log, state))
    }
}

#[test]
fn openrafts_suite_passes() {
    Suite::test_all(Builder).unwrap();
}

/// Entries as version 1 of the log has them, one a line.
const LOG_V1: &str = include_str!("../../tests/fixtures/log-v1.jsonl");
/// A snapshot as version 1 has it.
const SNAPSHOT_V1: &str = include_str!("../../tests/fixtures/snapshot-v1.json");

#[tokio::test]
async fn a_log_of_version_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = LogStore::open(&path, 1).unwrap();
    log.insert_rows(LOG_V1.lines());
    drop(log);

    let mut log = LogStore::open(&path, 1).unwrap();
    let entries = log.try_get_log_entries(0..).await.unwrap();
    assert_eq!(entries.len(), LOG_V1.lines().count());
    let last = log.get_log_state().await.unwrap().last_log_id.unwrap();
    assert_eq!((last.leader_id.term, last.index), (2, 5));
    let mut state = StateMachine::open(&dir.path().join("snapshot")).unwrap();
    state.apply(entries).await.unwrap();
    expect_the_fixture(&state.applied().records());
    assert_eq!(state.applied().domain_key().unwrap().expose(), [5; 32]);
    let (_, membership) = state.applied_state().await.unwrap();
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    assert_eq!(voters, [1, 2, 3]);
}

#[test]
fn a_snapshot_of_version_1_is_read() {
    let contents = Contents::decode(SNAPSHOT_V1.as_bytes()).unwrap();
    expect_the_fixture(&contents.records);
    assert_eq!(contents.domain_key.unwrap().expose(), [5; 32]);
}

#[tokio::test]
async fn an_entry_of_a_later_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = LogStore::open(&dir.path().join("log"), 1).unwrap();
    log.insert_rows(
        [r#"{"log_id":{"leader_id":{"term":1,"node_id":1},"index":0},"payload":{"Normal":{"version":9,"body":[]}}}"#],
    );
    let error = log.try_get_log_entries(0..).await.unwrap_err().to_string();
    assert!(error.contains("entry 0") && error.contains("version 9"), "{error}");
}

#[track_caller]
fn expect_the_fixture(records: &[Record]) {
    let [Record::Numbers(numbers), Record::Host(host), Record::Vm(vm)] = records else {
        panic!("{records:?}")
    };
    assert_eq!((numbers.host.0, numbers.epoch), (1, 4));
    assert_eq!((&*host.name.to_string(), &*host.rack.to_string()), ("h1", "r1"));
    assert_eq!((vm.generation.0, vm.standing), (3, Standing::Stable));
}

impl LogStore {
    /// Puts rows as they are stored, whatever they say.
    fn insert_rows<'a>(&self, rows: impl IntoIterator<Item = &'a str>) {
        let rows: Vec<_> = rows.into_iter().map(|row| (index_of(row), row.into())).collect();
        self.append_rows(&rows);
    }
}

fn index_of(row: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(row).unwrap();
    value["log_id"]["index"].as_u64().unwrap()
}
