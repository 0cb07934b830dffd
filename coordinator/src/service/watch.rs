//! What watches share: a look after every change, at most a few a second, until the client or the coordinator goes.

use std::{pin::Pin, sync::Arc, time::Duration};

use rackferry_fleet::{Published, Revision};
use rackferry_proto::{Reason, refuse};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::going_down;
use crate::{driver::Handle, reads::Shown};

/// The shortest time between two looks.
const PACE: Duration = Duration::from_millis(200);
/// Answers a watching client may be behind; then it gets fewer.
const ANSWERS: usize = 1;

/// Answers to a client that watches.
pub type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Where a watch puts its answers.
pub type Client<T> = mpsc::Sender<Result<T, Status>>;

/// Runs a watch in a task of its own until it ends or the coordinator goes down.
pub fn serve<T, F>(shutdown: CancellationToken, watch: impl FnOnce(Client<T>) -> F) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (client, answers) = mpsc::channel(ANSWERS);
    let watch = watch(client.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = watch => {}
            () = shutdown.cancelled() => {
                // It goes to another coordinator, or comes back later.
                let _ = client.try_send(Err(going_down()));
            }
        }
    });
    Box::pin(ReceiverStream::new(answers))
}

/// Looks at what is published.
pub struct Looks {
    handle: Handle,
    changes: watch::Receiver<Shown>,
    first: bool,
}

impl Looks {
    pub fn new(handle: Handle) -> Self {
        Self { changes: handle.changes(), handle, first: true }
    }

    /// The next look waits for nothing: there was more to see.
    pub const fn at_once(&mut self) {
        self.first = true;
    }

    /// What is published, the first time at once, then after a change. None if the client or the coordinator is gone.
    pub async fn next<T>(&mut self, client: &Client<T>) -> Option<Arc<Published>> {
        if !std::mem::take(&mut self.first) {
            tokio::time::sleep(PACE).await;
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = client.closed() => return None,
            }
        }
        self.changes.mark_unchanged();
        match self.handle.published().await {
            Ok(published) => Some(published),
            Err(gone) => {
                // The client may have gone too.
                let _ = client.send(Err(gone.into())).await;
                None
            }
        }
    }
}

/// The state of which a client that watches changes was told last.
///
/// # Errors
/// If `since` is none, or no changes are watched.
pub fn known_revision(changes_only: bool, since: &str) -> Result<Option<Revision>, Status> {
    if since.is_empty() {
        return Ok(None);
    }
    let known = since.parse().ok().filter(|_| changes_only);
    let malformed =
        || refuse(Reason::InvalidArgument, "since is malformed, or without changes_only");
    known.map(Some).ok_or_else(malformed)
}
