//! events: who did what, and what became of it.

use rackferry_proto::v1::{Event, ListEventsRequest, WatchEventsRequest, WatchEventsResponse};
use tonic::{Status, Streaming};

use super::{
    Context,
    follow::{Next, Work, follow},
};
use crate::{
    args::{Events, Since},
    client::Client,
    exit::{Code, Failure},
    render, units,
};

pub async fn run(context: &Context, args: Events) -> Result<Code, Failure> {
    let Events { since, limit, follow: goes_on, .. } = args;
    let (events, latest) = latest(context, since, limit as usize).await?;
    if !goes_on {
        context.print(|| render::event::list(&events), || render::json::events(&events));
        return Ok(Code::Done);
    }
    print_each(context, &events);
    let work = EventsWork { after: latest };
    follow(context, &work, None, |events| {
        print_each(context, events);
        Next::GoesOn
    })
    .await?;
    Ok(Code::Done)
}

fn print_each(context: &Context, events: &[Event]) {
    for event in events {
        context.print(|| render::event::line(event), || render::json::event(event));
    }
}

/// The latest events that are asked for, the oldest of them first, and the id of the latest there is.
async fn latest(
    context: &Context,
    since: Option<Since>,
    limit: usize,
) -> Result<(Vec<Event>, String), Failure> {
    let mut request = ListEventsRequest::default();
    match since {
        None => {}
        Some(Since::Event(event)) => request.after = event.to_string(),
        Some(Since::Time(unix_ms)) => request.since_unix_ms = unix_ms,
        Some(Since::Ago(ago)) => {
            let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
            request.since_unix_ms = units::now_unix_ms().saturating_sub(ago);
        }
    }
    let (mut events, mut latest) = (Vec::new(), None);
    while events.len() < limit {
        request.page_size = u32::try_from(limit - events.len()).unwrap_or(u32::MAX);
        let call = async |client: Client| client.events().list_events(request.clone()).await;
        let page = context.call(call).await?.into_inner();
        events.extend(page.events);
        // What comes while pages are read is told by the watch.
        latest.get_or_insert(page.latest);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    events.reverse();
    Ok((events, latest.unwrap_or_default()))
}

/// Events as they come, behind one that is known.
struct EventsWork {
    after: String,
}

impl Work for EventsWork {
    type Snapshot = Vec<Event>;
    type Response = WatchEventsResponse;

    async fn watch(
        &self,
        client: &Client,
        since: &str,
    ) -> Result<Streaming<Self::Response>, Status> {
        let known = if since.is_empty() { &self.after } else { since };
        let request = WatchEventsRequest { after: known.to_owned() };
        Ok(client.events().watch_events(request).await?.into_inner())
    }

    fn revision(answer: &Self::Response) -> String {
        answer.events.last().map(|event| event.id.clone()).unwrap_or_default()
    }

    fn snapshot(answer: Self::Response, _: Option<Vec<Event>>) -> Option<Vec<Event>> {
        Some(answer.events)
    }
}
