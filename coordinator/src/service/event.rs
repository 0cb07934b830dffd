//! The gRPC service for the record of who did what.

use rackferry_fleet::{EventId, EventRecord};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        Event, ListEventsRequest, ListEventsResponse, WatchEventsRequest, WatchEventsResponse,
        event_service_server::EventService,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    page::ROWS,
    watch::{Answers, Client, Looks, serve},
};
use crate::{convert, driver::Handle};

/// Events in one answer of a watch.
const EVENTS: usize = 1000;

/// The service for events.
pub struct Events {
    handle: Handle,
    shutdown: CancellationToken,
}

impl Events {
    pub fn new(handle: Handle, shutdown: CancellationToken) -> Self {
        Self { handle, shutdown }
    }
}

/// The event of a field that may be empty.
fn id(text: &str, field: &str) -> Result<Option<EventId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let malformed = |_| refuse(Reason::InvalidArgument, format!("{field} is no event (event-N)"));
    text.parse().map(Some).map_err(malformed)
}

#[tonic::async_trait]
impl EventService for Events {
    type WatchEventsStream = Answers<WatchEventsResponse>;

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let ListEventsRequest { since_unix_ms, after, page_size, page_token } =
            request.into_inner();
        let (after, before) = (id(&after, "after")?, id(&page_token, "page_token")?);
        let size = if page_size == 0 { ROWS } else { (page_size as usize).min(ROWS) };
        let published = self.handle.published().await?;
        let latest = published.events_before(None).next().map_or(EventId(0), |event| event.id);
        let asked = |event: &&EventRecord| {
            event.last.unix_ms() >= since_unix_ms && after.is_none_or(|after| event.id > after)
        };
        // The latest first: none behind the first that is too old is looked at.
        let mut rows = published.events_before(before).take_while(asked).peekable();
        let events: Vec<&EventRecord> = rows.by_ref().take(size).collect();
        let more = rows.peek().is_some();
        let next = events.last().filter(|_| more).map(|event| event.id.to_string());
        Ok(Response::new(ListEventsResponse {
            events: events.into_iter().map(convert::event).collect(),
            next_page_token: next.unwrap_or_default(),
            latest: latest.to_string(),
        }))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let known = id(&request.into_inner().after, "after")?;
        // Refused at once rather than in the stream; and what comes from now on is told.
        let published = self.handle.published().await?;
        let latest = published.events_before(None).next().map_or(EventId(0), |event| event.id);
        drop(published);
        let known = known.unwrap_or(latest);
        let handle = self.handle.clone();
        let watch = async move |client| watch(handle, known, &client).await;
        Ok(Response::new(serve(self.shutdown.clone(), watch)))
    }
}

/// Sends events behind one that is known, until the client goes away.
async fn watch(handle: Handle, mut known: EventId, client: &Client<WatchEventsResponse>) {
    let mut looks = Looks::new(handle);
    while let Some(published) = looks.next(client).await {
        let news: Vec<&EventRecord> = published.events_after(known).take(EVENTS).collect();
        known = news.last().map_or(known, |event| event.id);
        let events: Vec<Event> = news.into_iter().map(convert::event).collect();
        drop(published);
        if events.len() == EVENTS {
            looks.at_once();
        }
        if !events.is_empty() && client.send(Ok(WatchEventsResponse { events })).await.is_err() {
            return;
        }
    }
}
