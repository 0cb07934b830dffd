//! The gRPC service for evacuations.

mod plan;

use std::collections::BTreeSet;

use rackferry_fleet::{Act, Done, EvacuationId, Fleet, Published, Refusal, Revision};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        CancelEvacuationRequest, CancelEvacuationResponse, CreateEvacuationRequest,
        CreateEvacuationResponse, Evacuation, EvacuationState, GetEvacuationRequest,
        GetEvacuationResponse, ListEvacuationsRequest, ListEvacuationsResponse,
        PauseEvacuationRequest, PauseEvacuationResponse, RestoreEvacuationRequest,
        RestoreEvacuationResponse, ResumeEvacuationRequest, ResumeEvacuationResponse,
        WatchEvacuationRequest, WatchEvacuationResponse,
        evacuation_service_server::EvacuationService,
    },
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    agents_back, answer,
    audit::recorded,
    page::Page,
    planned_anew,
    watch::{Answers, Client, Looks, known_revision, serve},
};
use crate::{convert, driver::Handle, preflight};

/// The service for evacuations.
pub struct Evacuations {
    handle: Handle,
    shutdown: CancellationToken,
}

impl Evacuations {
    pub fn new(handle: Handle, shutdown: CancellationToken) -> Self {
        Self { handle, shutdown }
    }
}

fn id(text: &str) -> Result<EvacuationId, Status> {
    text.parse()
        .map_err(|_| refuse(Reason::UnknownEvacuation, format!("there is no evacuation {text}")))
}

fn view(fleet: &Fleet, id: EvacuationId) -> Result<Evacuation, Refusal> {
    let view = fleet.evacuation(id).ok_or(Refusal::UnknownEvacuation(id))?;
    Ok(convert::evacuation(&view))
}

fn is_over(evacuation: &Evacuation) -> bool {
    use EvacuationState::{Cancelling, Paused, Running};
    !matches!(evacuation.state(), Running | Paused | Cancelling)
}

impl Evacuations {
    async fn pause(&self, text: &str, paused: bool, act: Act) -> Result<Evacuation, Status> {
        let id = id(text)?;
        let turn = move |fleet: &mut Fleet, now, out: &mut _| {
            fleet.pause_evacuation(id, paused, now, out)?;
            Ok(Done::new(view(fleet, id)?, ""))
        };
        answer(self.handle.act(act, turn).await?)
    }

    async fn create(
        &self,
        message: CreateEvacuationRequest,
        act: Act,
    ) -> Result<CreateEvacuationResponse, Status> {
        let validate_only = message.validate_only;
        let (request, planned) = convert::evacuation_request(message)?;
        agents_back(&self.handle).await?;
        if validate_only {
            return self.plan(request, planned).await;
        }
        let evacuation = if planned.moves.is_empty() {
            planned_anew(|| self.begin(request.clone(), act.clone())).await?
        } else {
            self.apply(request, planned, act).await?
        };
        let evacuation = Some(evacuation);
        Ok(CreateEvacuationResponse { evacuation, blocked: Vec::new() })
    }

    async fn restore(
        &self,
        message: RestoreEvacuationRequest,
        act: Act,
    ) -> Result<RestoreEvacuationResponse, Status> {
        let RestoreEvacuationRequest { id: text, options, request_id, validate_only } = message;
        let request = convert::restore_request(id(&text)?, options, request_id)?;
        agents_back(&self.handle).await?;
        if validate_only {
            let wanted = request.clone();
            let restore = self.handle.ask(move |fleet, _| fleet.new_restore(&wanted)).await?;
            let restore = answer(restore)?;
            let moves = restore.moves.clone();
            let blocked = preflight::blocking(&self.handle, moves, &request.options).await?;
            let moves = restore.moves;
            let plan = move |fleet: &Fleet, _| {
                convert::restore_plan(fleet, request.evacuation, request.options, &moves)
            };
            let evacuation = Some(self.handle.ask(plan).await?);
            let staying = restore.staying.into_iter().map(convert::staying).collect();
            return Ok(RestoreEvacuationResponse { evacuation, staying, blocked });
        }
        let begin = || self.begin_restore(request.clone(), act.clone());
        let (evacuation, staying) = planned_anew(begin).await?;
        Ok(RestoreEvacuationResponse {
            evacuation: Some(evacuation),
            staying: staying.into_iter().map(convert::staying).collect(),
            blocked: Vec::new(),
        })
    }
}

#[tonic::async_trait]
impl EvacuationService for Evacuations {
    type WatchEvacuationStream = Answers<WatchEvacuationResponse>;

    async fn create_evacuation(
        &self,
        request: Request<CreateEvacuationRequest>,
    ) -> Result<Response<CreateEvacuationResponse>, Status> {
        recorded(&self.handle, request, |message, act| self.create(message, act)).await
    }

    async fn restore_evacuation(
        &self,
        request: Request<RestoreEvacuationRequest>,
    ) -> Result<Response<RestoreEvacuationResponse>, Status> {
        recorded(&self.handle, request, |message, act| self.restore(message, act)).await
    }

    async fn get_evacuation(
        &self,
        request: Request<GetEvacuationRequest>,
    ) -> Result<Response<GetEvacuationResponse>, Status> {
        let id = id(&request.into_inner().id)?;
        let published = self.handle.published().await?;
        let view = published.evacuation(id).ok_or(Refusal::UnknownEvacuation(id));
        let evacuation = Some(convert::evacuation(&answer(view)?));
        Ok(Response::new(GetEvacuationResponse { evacuation }))
    }

    async fn list_evacuations(
        &self,
        request: Request<ListEvacuationsRequest>,
    ) -> Result<Response<ListEvacuationsResponse>, Status> {
        let ListEvacuationsRequest { active_only, page_size, page_token } = request.into_inner();
        let page = Page::new(page_size, &page_token, |token| token.parse::<EvacuationId>().ok())?;
        let published = self.handle.published().await?;
        let records = published.evacuation_records();
        let records = records.filter(|record| !active_only || record.ended.is_none());
        let (records, next_page_token) = page.cut(records, |one| one.id, |one| one.vms.len());
        let views = records.iter().filter_map(|record| published.evacuation(record.id));
        let evacuations = views.map(|view| convert::evacuation(&view)).collect();
        Ok(Response::new(ListEvacuationsResponse { evacuations, next_page_token }))
    }

    async fn watch_evacuation(
        &self,
        request: Request<WatchEvacuationRequest>,
    ) -> Result<Response<Self::WatchEvacuationStream>, Status> {
        let WatchEvacuationRequest { id: text, changes_only, since } = request.into_inner();
        let id = id(&text)?;
        let known = known_revision(changes_only, &since)?;
        // Refused at once rather than in the stream.
        let published = self.handle.published().await?;
        let record = published.evacuation_record(id).ok_or(Refusal::UnknownEvacuation(id));
        answer(record.map(|_| ()))?;
        drop(published);
        let handle = self.handle.clone();
        let watch = async move |client| watch(handle, id, changes_only, known, &client).await;
        Ok(Response::new(serve(self.shutdown.clone(), watch)))
    }

    async fn cancel_evacuation(
        &self,
        request: Request<CancelEvacuationRequest>,
    ) -> Result<Response<CancelEvacuationResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let id = id(&message.id)?;
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                fleet.cancel_evacuation(id, now, out)?;
                Ok(Done::new(view(fleet, id)?, ""))
            };
            let evacuation = Some(answer(self.handle.act(act, turn).await?)?);
            Ok(CancelEvacuationResponse { evacuation })
        })
        .await
    }

    async fn pause_evacuation(
        &self,
        request: Request<PauseEvacuationRequest>,
    ) -> Result<Response<PauseEvacuationResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let evacuation = Some(self.pause(&message.id, true, act).await?);
            Ok(PauseEvacuationResponse { evacuation })
        })
        .await
    }

    async fn resume_evacuation(
        &self,
        request: Request<ResumeEvacuationRequest>,
    ) -> Result<Response<ResumeEvacuationResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let evacuation = Some(self.pause(&message.id, false, act).await?);
            Ok(ResumeEvacuationResponse { evacuation })
        })
        .await
    }
}

/// An evacuation, of its moves only those that have changed if a state is known that this one follows.
fn shown(
    published: &Published,
    id: EvacuationId,
    known: Option<Revision>,
) -> Result<Evacuation, Refusal> {
    let mut view = published.evacuation(id).ok_or(Refusal::UnknownEvacuation(id))?;
    if let Some(known) = known {
        let changed = published.migrations_since(known).into_iter();
        let changed: BTreeSet<_> = changed.map(|view| view.record.id).collect();
        view.migrations.retain(|view| changed.contains(&view.record.id));
    }
    Ok(convert::evacuation(&view))
}

/// Sends snapshots, or what has changed, as things change, until the evacuation is over or the client goes away.
async fn watch(
    handle: Handle,
    id: EvacuationId,
    changes_only: bool,
    mut known: Option<Revision>,
    client: &Client<WatchEvacuationResponse>,
) {
    let mut looks = Looks::new(handle);
    // What was told beside the moves.
    let mut told = None;
    while let Some(published) = looks.next(client).await {
        let follows = known.filter(|&known| published.follows(known));
        let revision = published.revision();
        let evacuation = answer(shown(&published, id, follows));
        drop(published);
        known = changes_only.then_some(revision);
        let over = evacuation.as_ref().map_or(true, is_over);
        let beside = evacuation.as_ref().ok().map(beside_moves);
        let is_news = follows.is_none()
            || told != beside
            || evacuation.as_ref().is_ok_and(|evacuation| !evacuation.migrations.is_empty());
        told = beside;
        if is_news || over {
            let message = evacuation.map(|evacuation| WatchEvacuationResponse {
                evacuation: Some(evacuation),
                revision: revision.to_string(),
                complete: follows.is_none(),
            });
            if client.send(message).await.is_err() || over {
                return;
            }
        }
    }
}

fn beside_moves(evacuation: &Evacuation) -> Evacuation {
    Evacuation {
        id: evacuation.id.clone(),
        state: evacuation.state,
        totals: evacuation.totals,
        ended_unix_ms: evacuation.ended_unix_ms,
        overdue: evacuation.overdue,
        ..Evacuation::default()
    }
}
