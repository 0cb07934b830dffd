//! Waits for an evacuation, whatever becomes of the coordinator meanwhile.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use rackferry_proto::v1::{
    Evacuation, EvacuationState, StayingVm, WatchEvacuationRequest, WatchEvacuationResponse,
};
use tonic::Streaming;

use super::Context;
use crate::{
    client::Client,
    exit::{Code, Failure},
    progress::Progress,
    render,
};

/// How long a coordinator may be away.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const RETRY: Duration = Duration::from_millis(500);

/// Shows an evacuation until it has ended, then what became of it. `staying` were left out of it.
///
/// # Errors
/// If it is not known, or the coordinator is away for too long.
pub async fn to_the_end(
    context: &Context,
    id: &str,
    staying: &[StayingVm],
    timeout: Option<Duration>,
) -> Result<Code, Failure> {
    show(context, id, staying, timeout, false).await
}

/// The same, and no longer than to its deadline.
///
/// # Errors
/// As [`to_the_end`].
pub async fn to_the_deadline(
    context: &Context,
    id: &str,
    staying: &[StayingVm],
    timeout: Option<Duration>,
) -> Result<Code, Failure> {
    show(context, id, staying, timeout, true).await
}

fn goes_on(evacuation: &Evacuation) -> String {
    render::evacuation::detached(&evacuation.id)
}

async fn show(
    context: &Context,
    id: &str,
    staying: &[StayingVm],
    timeout: Option<Duration>,
    to_the_deadline: bool,
) -> Result<Code, Failure> {
    let mut watch = Watch::new(context, id);
    let mut progress = Progress::new(context.is_interactive());
    let mut expired: Pin<Box<dyn Future<Output = ()>>> = match timeout {
        Some(timeout) => Box::pin(tokio::time::sleep(timeout)),
        None => Box::pin(std::future::pending()),
    };
    let mut last = None;
    loop {
        let snapshot = tokio::select! {
            snapshot = watch.next() => snapshot?,
            () = &mut expired => break,
            interrupt = tokio::signal::ctrl_c() => { interrupt?; break }
        };
        progress.show(&snapshot);
        let over = is_over(&snapshot);
        let enough = over || to_the_deadline && snapshot.overdue;
        if !enough {
            context.print_snapshot(|| render::json::evacuation(&snapshot, staying));
        }
        last = Some(snapshot);
        if enough {
            break;
        }
    }
    progress.finish();
    match last {
        Some(mut evacuation) if is_over(&evacuation) => {
            // Whoever was left out is left behind.
            if !staying.is_empty() && evacuation.result_code == Code::Done as u32 {
                evacuation.result_code = Code::Incomplete as u32;
            }
            context.print(
                || render::evacuation::outcome(&evacuation),
                || render::json::evacuation(&evacuation, staying),
            );
            Ok(Code::of_evacuation(&evacuation))
        }
        last => {
            let evacuation =
                last.unwrap_or_else(|| Evacuation { id: id.to_owned(), ..Default::default() });
            let late = to_the_deadline && evacuation.overdue;
            let said = if late { render::evacuation::overdue } else { goes_on };
            context.print(|| said(&evacuation), || render::json::unfinished(&evacuation));
            Ok(Code::StillRunning)
        }
    }
}

/// Whether it has ended.
pub fn is_over(evacuation: &Evacuation) -> bool {
    use EvacuationState::{Cancelling, Paused, Running};
    !matches!(evacuation.state(), Running | Paused | Cancelling)
}

/// Snapshots of an evacuation, from whichever stream is open.
struct Watch<'a> {
    context: &'a Context,
    client: Client,
    id: &'a str,
    stream: Option<Streaming<WatchEvacuationResponse>>,
    away_since: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(context: &'a Context, id: &'a str) -> Self {
        Self { context, client: context.client.clone(), id, stream: None, away_since: None }
    }

    /// The next snapshot. Cancel safe: what is lost comes again with the next.
    async fn next(&mut self) -> Result<Evacuation, Failure> {
        loop {
            match self.try_next().await {
                Ok(Some(evacuation)) => {
                    self.away_since = None;
                    return Ok(evacuation);
                }
                // Ended without an end: the coordinator goes away.
                Ok(None) => self.stream = None,
                Err(failure) => {
                    self.stream = None;
                    let since = *self.away_since.get_or_insert_with(Instant::now);
                    if failure.code() != Code::Unreachable || since.elapsed() > PATIENCE {
                        return Err(failure);
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
            if let Ok(client) = Client::connect(&self.context.coordinators).await {
                self.client = client;
            }
        }
    }

    async fn try_next(&mut self) -> Result<Option<Evacuation>, Failure> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let request =
                    WatchEvacuationRequest { id: self.id.to_owned(), ..Default::default() };
                let opened = self.client.evacuations().watch_evacuation(request).await;
                none.insert(opened.map_err(severed)?.into_inner())
            }
        };
        let message = stream.message().await.map_err(severed)?;
        Ok(message.and_then(|message| message.evacuation))
    }
}

/// A coordinator that dies in the middle of a stream is away, whatever the transport calls it.
fn severed(status: tonic::Status) -> Failure {
    let ours = rackferry_proto::reason_of(&status).is_some();
    if !ours
        && matches!(
            status.code(),
            tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Cancelled
        )
    {
        return Failure::from(tonic::Status::unavailable(status.message()));
    }
    Failure::from(status)
}
