use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::codec::{FramedRead, LinesCodec};
use tracing::{debug, trace, warn};

use super::event::{Parsed, RawEvent, TimedEvent};
use super::{QemuVersion, QmpError};

/// Longest line taken from QEMU. The longest known answer (`query-qmp-schema`) has 200 KiB.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Commands handed over but not yet written. Callers beyond are refused, not queued.
const QUEUED_MAX: usize = 32;
/// Commands written and not answered; given-up ones count until QEMU answers them.
const UNANSWERED_MAX: usize = 64;
/// Events a slow receiver may be behind before it is told to query instead.
const EVENTS_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) line: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Value, Refusal>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) class: String,
    pub(super) desc: String,
}

/// What the handles keep of the task.
pub(super) struct Ends {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) events: broadcast::Receiver<TimedEvent>,
    pub(super) passes: watch::Receiver<u64>,
    pub(super) closed: watch::Receiver<Option<Arc<str>>>,
}

/// The socket, before and while the task owns it.
pub(super) struct Connection {
    lines: FramedRead<OwnedReadHalf, LinesCodec>,
    writer: OwnedWriteHalf,
}

struct Task {
    connection: Connection,
    requests: mpsc::Receiver<Request>,
    outbox: std::io::Cursor<Vec<u8>>,
    unanswered: BTreeMap<u64, oneshot::Sender<Result<Value, Refusal>>>,
    events: broadcast::Sender<TimedEvent>,
    passes: watch::Sender<u64>,
}

#[derive(Deserialize)]
struct Greeting {
    #[serde(rename = "QMP")]
    qmp: GreetingBody,
}

#[derive(Deserialize)]
struct GreetingBody {
    version: GreetingVersion,
}

#[derive(Deserialize)]
struct GreetingVersion {
    qemu: QemuVersion,
}

#[derive(Deserialize)]
struct RawAnswer {
    id: Option<u64>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
}

impl Connection {
    pub(super) async fn greet(stream: UnixStream) -> Result<(Self, QemuVersion), QmpError> {
        let (reader, writer) = stream.into_split();
        let codec = LinesCodec::new_with_max_length(LINE_BYTES_MAX);
        let mut lines = FramedRead::new(reader, codec);
        let line = match lines.next().await {
            Some(Ok(line)) => line,
            Some(Err(error)) => return Err(QmpError::NotQmp { reason: error.to_string() }),
            None => return Err(QmpError::Closed { reason: "closed before the greeting".into() }),
        };
        let greeting: Greeting = serde_json::from_str(&line)
            .map_err(|error| QmpError::NotQmp { reason: error.to_string() })?;
        Ok((Self { lines, writer }, greeting.qmp.version.qemu))
    }

    /// Starts the task; it ends with the socket or with the last handle.
    pub(super) fn spawn(self) -> Ends {
        let (requests, queue) = mpsc::channel(QUEUED_MAX);
        let (event_sender, events) = broadcast::channel(EVENTS_MAX);
        let (pass_sender, passes) = watch::channel(0);
        let (closed_sender, closed) = watch::channel(None);
        let task = Task {
            connection: self,
            requests: queue,
            outbox: std::io::Cursor::default(),
            unanswered: BTreeMap::new(),
            events: event_sender,
            passes: pass_sender,
        };
        tokio::spawn(task.run(closed_sender));
        Ends { requests, events, passes, closed }
    }
}

impl Task {
    /// Runs until the socket or all handles are gone. The reason is published before the waiting callers
    /// are released, so that they can tell it.
    async fn run(mut self, closed: watch::Sender<Option<Arc<str>>>) {
        loop {
            let unsent = self.outbox.position() < self.outbox.get_ref().len() as u64;
            let has_room = !unsent && self.unanswered.len() < UNANSWERED_MAX;
            let ended = tokio::select! {
                line = self.connection.lines.next() => match line {
                    Some(Ok(line)) => { self.handle_line(&line); None }
                    Some(Err(error)) => Some(error.to_string()),
                    None => Some("QEMU closed the connection".to_owned()),
                },
                request = self.requests.recv(), if has_room => match request {
                    Some(request) => { self.accept(request); None }
                    None => Some("all handles dropped".to_owned()),
                },
                written = self.connection.writer.write_buf(&mut self.outbox), if unsent => {
                    written.err().map(|error| error.to_string())
                }
            };
            if let Some(reason) = ended {
                debug!(reason, "QMP connection ends");
                closed.send_replace(Some(reason.into()));
                return;
            }
        }
    }

    fn accept(&mut self, request: Request) {
        if request.reply.is_closed() {
            return;
        }
        self.unanswered.insert(request.id, request.reply);
        self.outbox = std::io::Cursor::new(request.line);
    }

    fn handle_line(&mut self, line: &str) {
        let received_at = Instant::now();
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => return warn!(%error, "line from QEMU is not JSON"),
        };
        if value.get("event").is_some() {
            self.handle_event(value, received_at);
        } else {
            self.handle_answer(value);
        }
    }

    fn handle_event(&self, value: Value, received_at: Instant) {
        let raw: RawEvent = match serde_json::from_value(value) {
            Ok(raw) => raw,
            Err(error) => return warn!(%error, "event from QEMU not understood"),
        };
        match raw.parse(received_at) {
            Parsed::Event(event) => {
                debug!(event = ?event.event, "QEMU event");
                // No receiver is fine: no task waits for events at the moment.
                let _ = self.events.send(event);
            }
            Parsed::Pass(pass) => {
                self.passes.send_replace(pass);
            }
            Parsed::Unknown(name) => trace!(name, "QEMU event ignored"),
        }
    }

    fn handle_answer(&mut self, value: Value) {
        let answer: RawAnswer = match serde_json::from_value(value) {
            Ok(answer) => answer,
            Err(error) => return warn!(%error, "answer from QEMU not understood"),
        };
        let Some(reply) = answer.id.and_then(|id| self.unanswered.remove(&id)) else {
            return warn!(id = answer.id, "answer from QEMU to no known command");
        };
        let result = match answer.error {
            Some(refusal) => Err(refusal),
            None => Ok(answer.value.unwrap_or(Value::Null)),
        };
        // The caller may have given up; its answer is then worth nothing.
        let _ = reply.send(result);
    }
}
