//! `rackferry-agent vm ...` as a process; the agent that gets its orders is played by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

/// Settings of an agent whose state is in this folder.
fn settings(dir: &Path) -> String {
    let file = dir.join("agent.toml");
    let text = format!(
        "host = 'h'\nrack = 'r'\ncoordinator = '127.0.0.1:1'\nlisten = '127.0.0.1:1'\nstate_dir = '{}'\n\
         guest_memory_mib = 1\ntls = 'off'\n",
        dir.display()
    );
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// Runs the program without a terminal.
fn agent(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackferry-agent"));
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

/// The one order that a played agent gets; it answers with `answer`.
fn played(dir: &Path, answer: &'static str) -> thread::JoinHandle<String> {
    let listener = UnixListener::bind(dir.join("agent.sock")).unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut order = String::new();
        BufReader::new(&stream).read_line(&mut order).unwrap();
        writeln!(&stream, "{answer}").unwrap();
        order.trim().to_owned()
    })
}

#[test]
fn without_a_terminal_a_vm_ends_only_with_yes() {
    let dir = tempfile::tempdir().unwrap();
    let config = settings(dir.path());
    // No agent runs: the command fails before it looks for one.
    let refused = agent(&["--config", &config, "vm", "destroy", "web", "--force"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("--yes") && said.contains("VM web"), "{said}");

    for (more, order) in [
        (&["--yes"][..], r#"{"destroy":{"name":"web","force":false}}"#),
        (&["--yes", "--force"], r#"{"destroy":{"name":"web","force":true}}"#),
    ] {
        let got = played(dir.path(), r#""done""#);
        let args = [&["--config", &config, "vm", "destroy", "web"], more].concat();
        assert_eq!(agent(&args).status.code(), Some(0));
        assert_eq!(got.join().unwrap(), order);
        fs::remove_file(dir.path().join("agent.sock")).unwrap();
    }
}

#[test]
fn a_paused_vm_is_resumed_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let config = settings(dir.path());
    let got = played(dir.path(), r#""done""#);
    assert_eq!(agent(&["--config", &config, "vm", "resume", "web"]).status.code(), Some(0));
    assert_eq!(got.join().unwrap(), r#"{"resume":{"name":"web"}}"#);
}

#[test]
fn what_the_agent_refuses_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let config = settings(dir.path());
    let got = played(dir.path(), r#"{"error":"VM web takes part in mig-7"}"#);
    let refused = agent(&["--config", &config, "vm", "destroy", "web", "--yes"]);
    got.join().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("VM web takes part in mig-7"), "{said}");
}
