//! The connection to a rack neighbour: numbered requests, answers in any order.

use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;
use rackferry_migrator_protocol::frame::{ClaimReply, FetchReplyView, Hello, Kind, Role};
use rackferry_tls::Tls;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::Member;
use crate::conn;
use crate::limits::{NEIGHBOUR_BACKOFF, NEIGHBOUR_REQUESTS};

/// An answer: the payload of the frame, decoded by the caller.
pub type Answer = Vec<u8>;

type Waiting = Arc<DashMap<u64, oneshot::Sender<Answer>>>;

#[derive(Debug)]
struct Request {
    kind: Kind,
    number: u64,
    payload: Vec<u8>,
    answer: Option<oneshot::Sender<Answer>>,
}

/// Handle of one neighbour; the connection is made when it is first needed and made again after it broke.
#[derive(Debug, Clone)]
pub struct Link {
    requests: mpsc::Sender<Request>,
}

impl Link {
    /// Starts the task that owns the connection to a neighbour. It ends when the last handle is dropped.
    pub fn start(own_host: u32, neighbour: Member, tls: Option<Tls>) -> Self {
        let (requests, queue) = mpsc::channel(NEIGHBOUR_REQUESTS);
        tokio::spawn(run(own_host, neighbour, tls, queue));
        Self { requests }
    }

    /// Sends a request; the answer arrives at the receiver, which fails if the neighbour cannot be reached.
    /// Waits only while the queue to the neighbour is full.
    pub async fn ask(
        &self,
        kind: Kind,
        number: u64,
        payload: Vec<u8>,
    ) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let _ = self.requests.send(Request { kind, number, payload, answer: Some(answer) }).await;
        receiver
    }

    /// Sends something that has no answer, if the queue has room: what is dropped costs bytes only.
    pub fn tell(&self, kind: Kind, payload: Vec<u8>) {
        let _ = self.requests.try_send(Request { kind, number: 0, payload, answer: None });
    }
}

async fn run(
    own_host: u32,
    neighbour: Member,
    tls: Option<Tls>,
    mut queue: mpsc::Receiver<Request>,
) {
    let Member { host, page_addr: addr, .. } = neighbour;
    while let Some(first) = queue.recv().await {
        let hello = Hello { host_id: own_host, role: Role::Neighbour };
        match conn::dial(&addr, &host, &hello, tls.as_ref()).await {
            Ok((reader, writer)) => serve(first, &mut queue, reader, writer).await,
            Err(error) => {
                debug!(%addr, %error, "neighbour cannot be reached");
                // A caller that asks meanwhile learns at once that the neighbour is away.
                let until = Instant::now() + NEIGHBOUR_BACKOFF;
                drop(first);
                while let Ok(Some(request)) =
                    tokio::time::timeout_at(until.into(), queue.recv()).await
                {
                    drop(request);
                }
            }
        }
    }
}

async fn serve<R, W>(
    first: Request,
    queue: &mut mpsc::Receiver<Request>,
    mut reader: conn::FrameReader<R>,
    mut writer: conn::FrameWriter<W>,
) where
    R: tokio::io::AsyncRead + Unpin + Send + 'static,
    W: tokio::io::AsyncWrite + Unpin,
{
    let waiting = Waiting::default();
    let answers = waiting.clone();
    let mut reading = tokio::spawn(async move {
        let mut payload = Vec::new();
        while let Ok(kind) = reader.next(&mut payload).await {
            let number = match kind {
                Kind::ClaimReply => ClaimReply::decode(&payload).map(|r| r.request),
                Kind::FetchReply => FetchReplyView::decode(&payload).map(|r| r.request),
                _ => break,
            };
            let Ok(number) = number else { break };
            if let Some((_, waiter)) = answers.remove(&number) {
                let _ = waiter.send(std::mem::take(&mut payload));
            }
        }
    });
    let mut next = Some(first);
    while let Some(request) = next.take() {
        if let Some(answer) = request.answer {
            waiting.insert(request.number, answer);
        }
        if writer.send(request.kind, &[&request.payload]).await.is_err() {
            break;
        }
        next = tokio::select! {
            request = queue.recv() => request,
            _ = &mut reading => None,
        };
    }
    reading.abort();
    // Dropping the senders tells every caller that waits.
    waiting.clear();
}
