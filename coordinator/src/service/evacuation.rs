//! Evacuations.

use std::{pin::Pin, time::Duration};

use rackferry_fleet::{EvacuationId, Fleet, Refusal};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        CancelEvacuationRequest, CancelEvacuationResponse, CreateEvacuationRequest,
        CreateEvacuationResponse, Evacuation, EvacuationState, GetEvacuationRequest,
        GetEvacuationResponse, ListEvacuationsRequest, ListEvacuationsResponse,
        PauseEvacuationRequest, PauseEvacuationResponse, ResumeEvacuationRequest,
        ResumeEvacuationResponse, WatchEvacuationRequest, WatchEvacuationResponse,
        evacuation_service_server::EvacuationService,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{answer, going_down};
use crate::{checks, convert, driver::Handle};

/// The shortest time between two snapshots of a watch.
const PACE: Duration = Duration::from_millis(200);
/// Snapshots a watching client may be behind; then it gets fewer.
const SNAPSHOTS: usize = 1;

/// The door for evacuations.
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
    async fn pause(&self, text: &str, paused: bool) -> Result<Evacuation, Status> {
        let id = id(text)?;
        let turn = move |fleet: &mut Fleet, now, out: &mut _| {
            fleet.pause_evacuation(id, paused, now, out)?;
            view(fleet, id)
        };
        answer(self.handle.ask(turn).await?)
    }
}

#[tonic::async_trait]
impl EvacuationService for Evacuations {
    type WatchEvacuationStream =
        Pin<Box<dyn Stream<Item = Result<WatchEvacuationResponse, Status>> + Send>>;

    async fn create_evacuation(
        &self,
        request: Request<CreateEvacuationRequest>,
    ) -> Result<Response<CreateEvacuationResponse>, Status> {
        let message = request.into_inner();
        let validate_only = message.validate_only;
        let request = convert::evacuation_request(message)?;
        let wanted = request.clone();
        let moves = answer(self.handle.ask(move |fleet, _, _| fleet.new_moves(&wanted)).await?)?;
        checks::before(&self.handle, moves).await?;
        let evacuation = self
            .handle
            .ask(move |fleet, now, out| {
                if validate_only {
                    let moves = fleet.plan_evacuation(&request)?;
                    return Ok(convert::plan(fleet, request, &moves));
                }
                let id = fleet.create_evacuation(&request, now, out)?;
                view(fleet, id)
            })
            .await?;
        Ok(Response::new(CreateEvacuationResponse { evacuation: Some(answer(evacuation)?) }))
    }

    async fn get_evacuation(
        &self,
        request: Request<GetEvacuationRequest>,
    ) -> Result<Response<GetEvacuationResponse>, Status> {
        let id = id(&request.into_inner().id)?;
        let evacuation = self.handle.ask(move |fleet, _, _| view(fleet, id)).await?;
        Ok(Response::new(GetEvacuationResponse { evacuation: Some(answer(evacuation)?) }))
    }

    async fn list_evacuations(
        &self,
        request: Request<ListEvacuationsRequest>,
    ) -> Result<Response<ListEvacuationsResponse>, Status> {
        let active_only = request.into_inner().active_only;
        let list = |fleet: &mut Fleet| -> Vec<Evacuation> {
            fleet.evacuations().map(|view| convert::evacuation(&view)).collect()
        };
        let mut evacuations = self.handle.ask(move |fleet, _, _| list(fleet)).await?;
        evacuations.retain(|evacuation| !active_only || !is_over(evacuation));
        Ok(Response::new(ListEvacuationsResponse { evacuations }))
    }

    async fn watch_evacuation(
        &self,
        request: Request<WatchEvacuationRequest>,
    ) -> Result<Response<Self::WatchEvacuationStream>, Status> {
        let id = id(&request.into_inner().id)?;
        // Refused at once rather than in the stream.
        answer(self.handle.ask(move |fleet, _, _| view(fleet, id).map(|_| ())).await?)?;
        let (snapshots, to_client) = mpsc::channel(SNAPSHOTS);
        let (handle, shutdown) = (self.handle.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = watch(&handle, id, &snapshots) => {}
                () = shutdown.cancelled() => {
                    // It goes to another coordinator, or comes back later.
                    let _ = snapshots.try_send(Err(going_down()));
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(to_client))))
    }

    async fn cancel_evacuation(
        &self,
        request: Request<CancelEvacuationRequest>,
    ) -> Result<Response<CancelEvacuationResponse>, Status> {
        let id = id(&request.into_inner().id)?;
        let evacuation = self
            .handle
            .ask(move |fleet, now, out| {
                fleet.cancel_evacuation(id, now, out)?;
                view(fleet, id)
            })
            .await?;
        Ok(Response::new(CancelEvacuationResponse { evacuation: Some(answer(evacuation)?) }))
    }

    async fn pause_evacuation(
        &self,
        request: Request<PauseEvacuationRequest>,
    ) -> Result<Response<PauseEvacuationResponse>, Status> {
        let evacuation = self.pause(&request.into_inner().id, true).await?;
        Ok(Response::new(PauseEvacuationResponse { evacuation: Some(evacuation) }))
    }

    async fn resume_evacuation(
        &self,
        request: Request<ResumeEvacuationRequest>,
    ) -> Result<Response<ResumeEvacuationResponse>, Status> {
        let evacuation = self.pause(&request.into_inner().id, false).await?;
        Ok(Response::new(ResumeEvacuationResponse { evacuation: Some(evacuation) }))
    }
}

/// Sends snapshots as things change, until the evacuation is over or the client goes away.
async fn watch(
    handle: &Handle,
    id: EvacuationId,
    snapshots: &mpsc::Sender<Result<WatchEvacuationResponse, Status>>,
) {
    let mut changes = handle.changes();
    loop {
        changes.borrow_and_update();
        let snapshot = match handle.ask(move |fleet, _, _| view(fleet, id)).await {
            Ok(snapshot) => answer(snapshot),
            Err(gone) => Err(gone.into()),
        };
        let over = snapshot.as_ref().map_or(true, is_over);
        let message =
            snapshot.map(|evacuation| WatchEvacuationResponse { evacuation: Some(evacuation) });
        if snapshots.send(message).await.is_err() || over {
            return;
        }
        tokio::time::sleep(PACE).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = snapshots.closed() => return,
        }
    }
}
