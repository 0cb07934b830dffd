//! Frames of the target, passed to the parts of the source session that they concern.

use std::sync::Arc;

use rackferry_migrator_protocol::frame::FromTarget;
use rackferry_migrator_protocol::session::source::Event;
use tokio::sync::mpsc;

use super::Input;
use super::emit::Order;
use super::flow::Flow;
use crate::conn::{ConnError, FrameReader, PageRead};

/// Reads the target's frames until the connection ends; the reason goes to the session as its last input.
pub async fn run(
    mut reader: FrameReader<PageRead>,
    flow: Arc<Flow>,
    orders: mpsc::Sender<Order>,
    inputs: mpsc::Sender<Input>,
) {
    let why = loop {
        match next(&mut reader, &flow, &orders).await {
            Ok(None) => {}
            Ok(Some(input)) => {
                if inputs.send(input).await.is_err() {
                    return;
                }
            }
            Err(error) => break error.to_string(),
        }
    };
    flow.break_off();
    let _ = inputs.send(Input::Event(Event::PeerLost(why))).await;
}

async fn next(
    reader: &mut FrameReader<PageRead>,
    flow: &Flow,
    orders: &mpsc::Sender<Order>,
) -> Result<Option<Input>, ConnError> {
    let mut payload = Vec::new();
    let kind = reader.next(&mut payload).await?;
    Ok(match FromTarget::decode(kind, &payload)? {
        FromTarget::Ack(ack) => {
            flow.acked(&ack);
            let due = flow.take_due();
            if !due.is_empty() {
                let _ = orders.send(Order::SupplyUnasked(due)).await;
            }
            None
        }
        FromTarget::Missing(lost) => {
            let _ = orders.send(Order::Supply(lost)).await;
            None
        }
        FromTarget::ReturnPath(bytes) => Some(Input::ReturnPath(bytes)),
        FromTarget::Loaded(digest) => Some(Input::Event(Event::Loaded { digest })),
        FromTarget::Running => Some(Input::Event(Event::Running)),
        FromTarget::Abort(why) => Some(Input::Event(Event::PeerAbort(why))),
    })
}
