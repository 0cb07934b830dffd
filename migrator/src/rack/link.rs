//! The connection to a rack neighbour: numbered requests, answers in any order, each by its own deadline.
//!
//! One task owns the connection. It dials when it is first needed; requests wait meanwhile, but none longer than its
//! deadline, which counts from the moment it was asked. Once the [`Breaker`] is open the connection is dropped, all
//! requests are answered at once with nothing, and the task dials again in the background until it is greeted.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use rackferry_migrator_protocol::frame::{ClaimReply, FetchReplyView, Hello, Kind, Role};
use rackferry_tls::Tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use super::Member;
use super::breaker::Breaker;
use crate::conn::{self, FrameReader, FrameWriter, Framed};
use crate::limits::{NEIGHBOUR_BACKOFF, NEIGHBOUR_REQUESTS};

/// An answer: the payload of the frame, decoded by the caller.
pub type Answer = Vec<u8>;

type Waiting = DashMap<u64, oneshot::Sender<Answer>>;

#[derive(Debug)]
struct Request {
    kind: Kind,
    number: u64,
    payload: Vec<u8>,
    answer: Option<oneshot::Sender<Answer>>,
}

/// A request that is under way.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<Answer>,
    sent: Instant,
    deadline: Instant,
    breaker: Arc<Breaker>,
}

impl Pending {
    /// The answer; none as soon as it is known that there will be none, and at the deadline at the latest.
    pub async fn answer(self) -> Option<Answer> {
        match timeout_at(self.deadline, self.answer).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                self.breaker.missed(self.sent);
                None
            }
        }
    }
}

/// Handle of one neighbour; the connection is made when it is first needed and made again after it broke.
#[derive(Debug, Clone)]
pub struct Link {
    requests: mpsc::Sender<Request>,
    breaker: Arc<Breaker>,
}

impl Link {
    /// Starts the task that owns the connection to a neighbour. It ends when the last handle is dropped.
    pub fn start(own_host: u32, neighbour: Member, tls: Option<Tls>) -> Self {
        let (requests, queue) = mpsc::channel(NEIGHBOUR_REQUESTS);
        let breaker = Arc::new(Breaker::new());
        let task = Task { own_host, neighbour, tls, queue, breaker: breaker.clone(), first: None };
        tokio::spawn(task.run());
        Self { requests, breaker }
    }

    /// Sends a request that is to be answered within `limit` from now on. Waits only while the queue to the neighbour
    /// is full, and not beyond the limit; not at all for a neighbour that is known to be silent.
    pub async fn ask(&self, kind: Kind, number: u64, payload: Vec<u8>, limit: Duration) -> Pending {
        let (answer, receiver) = oneshot::channel();
        let sent = Instant::now();
        let deadline = sent + limit;
        if !self.breaker.is_open() {
            let request = Request { kind, number, payload, answer: Some(answer) };
            // What does not get in by its deadline is dropped, and has missed it.
            if timeout_at(deadline, self.requests.send(request)).await.is_err() {
                self.breaker.missed(sent);
            }
        }
        Pending { answer: receiver, sent, deadline, breaker: self.breaker.clone() }
    }

    /// Sends something that has no answer, if the queue has room: what is dropped costs bytes only.
    pub fn tell(&self, kind: Kind, payload: Vec<u8>) {
        if !self.breaker.is_open() {
            let _ = self.requests.try_send(Request { kind, number: 0, payload, answer: None });
        }
    }
}

/// All handles of the link are gone.
struct Unused;

struct Task {
    own_host: u32,
    neighbour: Member,
    tls: Option<Tls>,
    queue: mpsc::Receiver<Request>,
    breaker: Arc<Breaker>,
    /// The request that the connection is made for.
    first: Option<Request>,
}

impl Task {
    async fn run(mut self) -> Result<(), Unused> {
        loop {
            if !self.breaker.is_open() {
                self.first = Some(self.queue.recv().await.ok_or(Unused)?);
            }
            let framed = self.connect().await?;
            self.serve(framed).await;
        }
    }

    /// Dials until the neighbour greets.
    async fn connect(&mut self) -> Result<Framed, Unused> {
        loop {
            let Member { host, page_addr: addr, .. } = self.neighbour.clone();
            let (hello, tls) =
                (Hello { host_id: self.own_host, role: Role::Neighbour }, self.tls.clone());
            let dial = conn::dial(&addr, &host, &hello, tls.as_ref());
            match self.meanwhile(dial).await? {
                Ok(framed) => {
                    if self.breaker.is_open() {
                        info!(%host, "the neighbour answers again");
                    }
                    self.breaker.close();
                    return Ok(framed);
                }
                Err(error) => {
                    debug!(%host, %addr, %error, "neighbour cannot be reached");
                    self.breaker.trip();
                    self.meanwhile(tokio::time::sleep(NEIGHBOUR_BACKOFF)).await?;
                }
            }
        }
    }

    /// Waits for `future`. What waits for a neighbour that turns out to be silent, and what is asked of it meanwhile,
    /// is dropped at once, which tells its caller.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Unused> {
        tokio::pin!(future);
        tokio::select! {
            done = &mut future => return Ok(done),
            () = self.breaker.opened() => self.first = None,
        }
        loop {
            tokio::select! {
                done = &mut future => return Ok(done),
                request = self.queue.recv() => drop(request.ok_or(Unused)?),
            }
        }
    }

    /// Carries requests and answers until the connection breaks, the neighbour is silent, or all handles are gone.
    /// Requests without an answer are dropped at the end, which tells every caller that waits.
    async fn serve(&mut self, (reader, writer): Framed) {
        let (waiting, breaker) = (Waiting::default(), self.breaker.clone());
        tokio::select! {
            () = read(reader, &waiting, &breaker) => {}
            () = self.write(writer, &waiting) => {}
            () = breaker.opened() => {
                let Member { host, .. } = &self.neighbour;
                info!(%host, "the neighbour is silent: not asked until it answers a new connection");
            }
        }
    }

    async fn write<W: AsyncWrite + Unpin>(
        &mut self,
        mut writer: FrameWriter<W>,
        waiting: &Waiting,
    ) {
        let mut next = self.first.take();
        loop {
            let request = match next.take() {
                Some(request) => request,
                None => match self.queue.recv().await {
                    Some(request) => request,
                    None => return,
                },
            };
            if let Some(answer) = request.answer {
                if waiting.len() >= NEIGHBOUR_REQUESTS {
                    // Callers whose deadline has passed do not wait any more.
                    waiting.retain(|_, answer| !answer.is_closed());
                }
                waiting.insert(request.number, answer);
            }
            if writer.send(request.kind, &[&request.payload]).await.is_err() {
                return;
            }
        }
    }
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    waiting: &Waiting,
    breaker: &Breaker,
) {
    let mut payload = Vec::new();
    while let Ok(kind) = reader.next(&mut payload).await {
        let number = match kind {
            Kind::ClaimReply => ClaimReply::decode(&payload).map(|r| r.request),
            Kind::FetchReply => FetchReplyView::decode(&payload).map(|r| r.request),
            _ => return,
        };
        let Ok(number) = number else { return };
        breaker.heard();
        if let Some((_, waiter)) = waiting.remove(&number) {
            let _ = waiter.send(std::mem::take(&mut payload));
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
