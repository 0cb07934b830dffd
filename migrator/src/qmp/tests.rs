//! Against a monitor made of a script; real QEMUs are met in the agent's tests.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use super::*;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7},
    "package": "Debian"}, "capabilities": ["oob", "later"]}}"#;

struct Monitor {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Monitor {
    async fn connected() -> (Qmp, Self) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut monitor = Self::new(stream);
            monitor.say(&GREETING.replace('\n', " ")).await;
            monitor.answer("qmp_capabilities", "{}").await;
            monitor
        };
        let (qmp, monitor) = tokio::join!(Qmp::connect(&path), serve);
        (qmp.unwrap(), monitor)
    }

    fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { lines: BufReader::new(reader).lines(), writer }
    }

    async fn say(&mut self, line: &str) {
        self.writer.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// Takes a command and gives its id.
    async fn expect(&mut self, command: &str) -> u64 {
        self.command(command).await["id"].as_u64().unwrap()
    }

    async fn command(&mut self, command: &str) -> serde_json::Value {
        let line = self.lines.next_line().await.unwrap().unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["execute"], command, "{line}");
        value
    }

    /// Takes a command, says that it is done, and gives its arguments.
    async fn arguments(&mut self, command: &str) -> serde_json::Value {
        let value = self.command(command).await;
        self.say(&format!(r#"{{"return": {{}}, "id": {}}}"#, value["id"])).await;
        value["arguments"].clone()
    }

    async fn answer(&mut self, command: &str, value: &str) {
        let id = self.expect(command).await;
        self.say(&format!(r#"{{"return": {value}, "id": {id}}}"#)).await;
    }
}

#[tokio::test]
async fn unknown_events_fields_and_states_are_no_trouble() {
    let (qmp, mut monitor) = Monitor::connected().await;
    assert!(qmp.version().at_least(7, 2) && !qmp.version().at_least(8, 0));
    let mut events = qmp.events();
    monitor.say(r#"{"event": "FROM_THE_FUTURE", "data": 5}"#).await;
    monitor.say(r#"{"event": {"no": "name"}}"#).await;
    monitor.say("not json").await;
    monitor.say(r#"{"return": {}, "id": 4711}"#).await;
    monitor.say(r#"{"error": {"class": "GenericError", "desc": "no id"}}"#).await;
    monitor.say(r#"{"event": "MIGRATION_PASS", "data": {"pass": 3}}"#).await;
    monitor
        .say(
            r#"{"event": "MIGRATION", "data": {"status": "failing"},
             "timestamp": {"seconds": 5, "microseconds": 6}}"#
                .replace('\n', " ")
                .as_str(),
        )
        .await;
    let event = events.recv().await.unwrap();
    assert_eq!(event.event, Event::Migration(MigrationStatus::Failing));
    assert_eq!(event.sent_at_us, 5_000_006);
    assert_eq!(*qmp.passes().borrow(), 3);
    let info = r#"{"status": "new-state", "ram": {"remaining": 4096, "new": 1}, "new": []}"#;
    let (told, ()) = tokio::join!(qmp.migration_status(), monitor.answer("query-migrate", info));
    let told = told.unwrap();
    assert_eq!(told.status(), MigrationStatus::Other("new-state".into()));
    assert_eq!(told.ram.unwrap().remaining, 4096);
}

#[tokio::test]
async fn refusals_and_odd_answers_are_told_apart() {
    let (qmp, mut monitor) = Monitor::connected().await;
    let refuse = async |monitor: &mut Monitor| {
        let id = monitor.expect("cont").await;
        let error = r#"{"class": "NewClass", "desc": "because"}"#;
        monitor.say(&format!(r#"{{"id": {id}, "error": {error}}}"#)).await;
    };
    let (refused, ()) = tokio::join!(qmp.cont(), refuse(&mut monitor));
    assert!(matches!(refused, Err(QmpError::Refused { desc, .. }) if desc == "because"));
    let (odd, ()) = tokio::join!(qmp.run_state(), monitor.answer("query-status", "[]"));
    assert!(matches!(odd, Err(QmpError::Answer { command: "query-status", .. })));
}

#[tokio::test]
async fn late_answers_go_to_nobody_else() {
    let (qmp, mut monitor) = Monitor::connected().await;
    let hasty = qmp.within(Duration::from_millis(20));
    assert!(matches!(hasty.stop().await, Err(QmpError::Timeout { what: "stop", .. })));
    let late = monitor.expect("stop").await;
    let serve = async {
        let id = monitor.expect("query-status").await;
        monitor.say(&format!(r#"{{"return": {{}}, "id": {late}}}"#)).await;
        let state = r#"{"status": "running", "running": true}"#;
        monitor.say(&format!(r#"{{"return": {state}, "id": {id}}}"#)).await;
    };
    let (state, ()) = tokio::join!(qmp.run_state(), serve);
    assert_eq!(state.unwrap(), RunState::Running);
}

#[tokio::test]
async fn a_hung_qemu_is_given_up_and_does_not_pile_up_commands() {
    let (qmp, monitor) = Monitor::connected().await;
    let hasty = qmp.within(Duration::from_millis(1));
    let mut busy = 0;
    for _ in 0..200 {
        match hasty.run_state().await {
            Err(QmpError::Busy { .. }) => busy += 1,
            Err(QmpError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    // 64 are unanswered, 32 wait behind them.
    assert_eq!(busy, 200 - 64 - 32);
    drop(monitor);
    qmp.closed().await;
    assert!(matches!(hasty.run_state().await, Err(QmpError::Closed { .. })));
}

#[tokio::test]
async fn loss_is_told_to_everybody() {
    let (qmp, mut monitor) = Monitor::connected().await;
    let mut events = qmp.events();
    let waiting = qmp.wait_loaded(Duration::from_secs(60));
    let (waited, ()) = tokio::join!(waiting, async {
        monitor.expect("query-migrate").await;
        drop(monitor);
    });
    assert!(matches!(waited, Err(QmpError::Closed { .. })), "{waited:?}");
    assert!(matches!(events.recv().await, Err(broadcast::error::RecvError::Closed)));
    assert!(qmp.is_closed());
    assert!(matches!(qmp.stop().await, Err(QmpError::Closed { .. })));
    qmp.quit().await.unwrap();
}

#[tokio::test]
async fn a_failed_migration_is_not_waited_for() {
    let (qmp, mut monitor) = Monitor::connected().await;
    let failed = r#"{"status": "failed", "error-desc": "no space"}"#;
    let waiting = qmp.wait_moved_out(Duration::from_secs(60));
    let (waited, ()) = tokio::join!(waiting, monitor.answer("query-migrate", failed));
    assert_eq!(waited.unwrap_err().to_string(), "migration failed: no space");
}

#[tokio::test]
async fn what_does_not_speak_qmp_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    assert!(matches!(Qmp::connect(&path).await, Err(QmpError::Connect { .. })));
    let listener = UnixListener::bind(&path).unwrap();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut other = Monitor::new(stream);
        other.say("220 mail.example.org").await;
        other
    };
    let (refused, _other) = tokio::join!(Qmp::connect(&path), serve);
    assert!(matches!(refused, Err(QmpError::NotQmp { .. })));
    let long = Path::new("/").join("x".repeat(200));
    let (qmp, _monitor) = Monitor::connected().await;
    assert!(matches!(qmp.migrate(&long).await, Err(QmpError::Path { .. })));
}

/// The guest of a VM that is merely moved must not be slowed down, and no more is asked of a QEMU than is needed.
#[tokio::test]
async fn a_guest_is_slowed_down_only_when_it_is_wanted() {
    for auto_converge in [false, true] {
        let (qmp, mut monitor) = Monitor::connected().await;
        let caps = SourceCaps {
            valve: Valve::DowntimeLimit,
            rest: Rest::Millis(1),
            multifd_channels: None,
            auto_converge,
        };
        let asked = qmp.clone();
        let prepared = tokio::spawn(async move { asked.prepare_source(caps).await });
        monitor.answer("query-migrate-capabilities", "[]").await;
        monitor.answer("migrate-set-capabilities", "{}").await;
        let set = monitor.arguments("migrate-set-parameters").await;
        assert_eq!(set["downtime-limit"], 1, "the valve is closed");
        let throttle = auto_converge.then_some(1);
        assert_eq!(set["max-cpu-throttle"].as_u64(), throttle);
        assert_eq!(set["cpu-throttle-initial"].as_u64(), throttle);
        prepared.await.unwrap().unwrap();

        let slowed = tokio::spawn(async move { qmp.slow_guest_down().await });
        let set = monitor.arguments("migrate-set-parameters").await;
        assert_eq!(set, serde_json::json!({ "max-cpu-throttle": 50 }));
        slowed.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_rest_of_bytes_is_no_matter_of_measured_rates() {
    let (qmp, mut monitor) = Monitor::connected().await;
    for (rest, set) in [
        (Rest::LESS_THAN_A_PAGE, (1, Some(1000))),
        (Rest::Bytes(1 << 20), (1, Some(1_048_576_000))),
        (Rest::Bytes(u64::MAX), (1, Some(u64::MAX))),
        (Rest::Millis(5_000_000), (2_000_000, None)),
    ] {
        let asked = qmp.clone();
        let allowed = tokio::spawn(async move { asked.allow_rest(rest).await });
        let got = monitor.arguments("migrate-set-parameters").await;
        assert_eq!(got["downtime-limit"].as_u64(), Some(set.0));
        assert_eq!(got["avail-switchover-bandwidth"].as_u64(), set.1, "{rest:?}");
        allowed.await.unwrap().unwrap();
    }
}

/// Sessions run in tasks; an async fn stops being `Send` without a word.
#[test]
fn futures_can_be_spawned() {
    fn sendable<T: Send>(_: T) {}
    fn check(qmp: &Qmp) {
        let caps = SourceCaps {
            valve: Valve::DowntimeLimit,
            rest: Rest::LESS_THAN_A_PAGE,
            multifd_channels: None,
            auto_converge: false,
        };
        sendable(Qmp::connect("/"));
        sendable(qmp.check_can_migrate());
        sendable(qmp.prepare_source(caps));
        sendable(qmp.wait_moved_out(POLL_TIMEOUT));
        sendable(qmp.wait_loaded(POLL_TIMEOUT));
        sendable(qmp.wait_migration(POLL_TIMEOUT, MigrationStatus::is_final));
        sendable(qmp.wait_run_state(POLL_TIMEOUT, |state| *state == RunState::Running));
        sendable(qmp.prepare_target());
        sendable(qmp.closed());
    }
    let _ = check;
}
