//! A small QMP client of the lab's own: it must not share errors with the product's.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// A connection to a QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    /// Connects, waiting up to `limit` for the socket to appear.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > limit => {
                    return Err(error).with_context(|| format!("no monitor at {}", path.display()));
                }
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        Self::over(stream)
    }

    /// Greets the monitor at the other end of a connection.
    pub fn over(stream: UnixStream) -> Result<Self> {
        stream.set_read_timeout(Some(ANSWER_WAIT))?;
        let mut qmp = Self { reader: BufReader::new(stream), events: Vec::new() };
        qmp.read()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and waits for its answer; events that come first are kept.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes()).context("the monitor is gone")?;
        loop {
            let mut answer = self.read()?;
            if answer.get("event").is_some() {
                self.events.push(answer);
            } else if let Some(error) = answer.get("error") {
                bail!("{command}: {}", error["desc"].as_str().unwrap_or("unknown error"));
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Runs a line of the human monitor.
    pub fn human(&mut self, line: &str) -> Result<String> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_string())
    }

    /// The first event for which `wanted` holds, among those kept or to come within `limit`. It stays kept.
    pub fn event(&mut self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        loop {
            if let Some(event) = self.events[seen..].iter().find(|event| wanted(event)) {
                return Ok(event.clone());
            }
            seen = self.events.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no such event within {limit:?}");
            }
            self.reader.get_ref().set_read_timeout(Some(left))?;
            let message = self.read();
            self.reader.get_ref().set_read_timeout(Some(ANSWER_WAIT))?;
            self.events.push(message?);
        }
    }

    /// The last event of this name that has come.
    pub fn past_event(&self, name: &str) -> Option<Value> {
        self.events.iter().rev().find(|event| event["event"] == name).cloned()
    }

    /// Forgets the events that came before the last answer.
    pub fn forget_events(&mut self) {
        self.events.clear();
    }

    /// Switches off every migration capability that is on.
    pub fn reset_capabilities(&mut self) -> Result<()> {
        let all = self.execute("query-migrate-capabilities", json!({}))?;
        let on = all.as_array().into_iter().flatten().filter(|one| one["state"] == true);
        let list: Vec<_> =
            on.map(|one| json!({ "capability": one["capability"], "state": false })).collect();
        self.execute("migrate-set-capabilities", json!({ "capabilities": list })).map(drop)
    }

    /// Switches migration capabilities.
    pub fn capabilities(&mut self, on: &[&str]) -> Result<()> {
        let list: Vec<_> =
            on.iter().map(|name| json!({ "capability": name, "state": true })).collect();
        self.execute("migrate-set-capabilities", json!({ "capabilities": list })).map(drop)
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).context("the monitor does not answer")? == 0 {
            bail!("the monitor closed");
        }
        serde_json::from_str(&line).with_context(|| format!("the monitor said {line:?}"))
    }
}
