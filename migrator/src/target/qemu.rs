//! The target QEMU's migration socket: the rebuilt stream in, the return path out.

use std::time::Duration;

use rackferry_migrator_protocol::session::target::Event;
use rackferry_migrator_protocol::stream::return_path::{ReturnPath, ReturnPathEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::Input;
use crate::qmp::Qmp;
use crate::socket::StreamSocket;

/// QEMU listens before it is told of to us, so this is for a machine under heavy load only.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Loading the device state after SHUT: QEMU's own bookkeeping.
const LOADED_LIMIT: Duration = Duration::from_secs(30);

/// Connects to the socket QEMU listens on.
pub async fn connect(socket: &StreamSocket) -> std::io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let stream = tokio::time::timeout(CONNECT_LIMIT, socket.connect()).await??;
    Ok(stream.into_split())
}

/// Reads the return path until QEMU closes it. Messages for the source go on, SHUT stays here: it says that QEMU has
/// loaded everything, and only the source may hear of that after the commit.
pub async fn return_path(mut socket: OwnedReadHalf, qmp: Qmp, inputs: mpsc::Sender<Input>) {
    let mut path = ReturnPath::new();
    let (mut bytes, mut events) = (vec![0; 64 << 10], Vec::new());
    loop {
        let n = match socket.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        if let Err(error) = path.push(&bytes[..n], &mut events) {
            let failed = Event::QemuFailed(format!("return path: {error}"));
            let _ = inputs.send(Input::Event(failed)).await;
            return;
        }
        for event in events.drain(..) {
            let input = match event {
                ReturnPathEvent::Forward(message) => {
                    let mut out = Vec::new();
                    message.encode(&mut out);
                    Input::ReturnPath(out)
                }
                ReturnPathEvent::Passed(_) => continue,
                ReturnPathEvent::Shut(0) => match qmp.wait_loaded(LOADED_LIMIT).await {
                    Ok(_) => Input::Event(Event::QemuLoaded),
                    Err(error) => Input::Event(Event::QemuFailed(error.to_string())),
                },
                ReturnPathEvent::Shut(code) => Input::Event(Event::QemuFailed(format!(
                    "QEMU could not load the VM (SHUT {code})"
                ))),
            };
            if inputs.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// Writes all of `out` to QEMU and empties it.
pub async fn write(socket: &mut OwnedWriteHalf, out: &mut Vec<u8>) -> std::io::Result<()> {
    if !out.is_empty() {
        socket.write_all(out).await?;
        out.clear();
    }
    Ok(())
}
