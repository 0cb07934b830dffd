//! Evacuations.

use std::{pin::Pin, time::Duration};

use rackferry_fleet::{EvacuationId, EvacuationRequest, Fleet, Move, Refusal};
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
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{answer, going_down};
use crate::{checks, convert, driver::Handle};

/// The shortest time between two snapshots of a watch.
pub(super) const PACE: Duration = Duration::from_millis(200);
/// Snapshots a watching client may be behind; then it gets fewer.
pub(super) const SNAPSHOTS: usize = 1;

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

/// The moves that a request would begin: as planned before, or by the fleet now.
fn new_moves(
    fleet: &Fleet,
    request: &EvacuationRequest,
    planned: &[Move],
) -> Result<Vec<Move>, Refusal> {
    if planned.is_empty() {
        fleet.new_moves(request)
    } else {
        fleet.new_planned_moves(request, planned)
    }
}

impl Evacuations {
    /// What a request would do, and the VMs that cannot move.
    async fn plan(
        &self,
        request: EvacuationRequest,
        planned: Vec<Move>,
    ) -> Result<CreateEvacuationResponse, Status> {
        let wanted = request.clone();
        let moves = move |fleet: &mut Fleet, _, _: &mut _| new_moves(fleet, &wanted, &planned);
        let (moves, blocked) = match self.handle.ask(moves).await? {
            Ok(moves) => {
                let blocked = checks::blocking(&self.handle, moves.clone()).await?;
                (moves, blocked)
            }
            Err(Refusal::NotMovable(vms)) => {
                let vms = vms.into_iter().map(|(vm, _)| vm).collect();
                (Vec::new(), checks::stuck(&self.handle, vms).await?)
            }
            Err(refusal) => return Err(convert::refusal(&refusal)),
        };
        let plan = move |fleet: &mut Fleet, _, _: &mut _| convert::plan(fleet, request, &moves);
        let evacuation = Some(self.handle.ask(plan).await?);
        Ok(CreateEvacuationResponse { evacuation, blocked })
    }

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
        let (request, planned) = convert::evacuation_request(message)?;
        if validate_only {
            return Ok(Response::new(self.plan(request, planned).await?));
        }
        let (wanted, given) = (request.clone(), planned.clone());
        let moves = move |fleet: &mut Fleet, _, _: &mut _| new_moves(fleet, &wanted, &given);
        checks::before(&self.handle, answer(self.handle.ask(moves).await?)?).await?;
        let evacuation = self
            .handle
            .ask(move |fleet, now, out| {
                let id = if planned.is_empty() {
                    fleet.create_evacuation(&request, now, out)?
                } else {
                    fleet.apply_evacuation(&request, &planned, now, out)?
                };
                view(fleet, id)
            })
            .await?;
        let evacuation = Some(answer(evacuation)?);
        Ok(Response::new(CreateEvacuationResponse { evacuation, blocked: Vec::new() }))
    }

    async fn restore_evacuation(
        &self,
        request: Request<RestoreEvacuationRequest>,
    ) -> Result<Response<RestoreEvacuationResponse>, Status> {
        let message = request.into_inner();
        let RestoreEvacuationRequest { id: text, options, request_id, validate_only } = message;
        let request = convert::restore_request(id(&text)?, options, request_id)?;
        let wanted = request.clone();
        let restore = self.handle.ask(move |fleet, _, _| fleet.new_restore(&wanted)).await?;
        let restore = answer(restore)?;
        if validate_only {
            let blocked = checks::blocking(&self.handle, restore.moves.clone()).await?;
            let moves = restore.moves;
            let plan = move |fleet: &mut Fleet, _, _: &mut _| {
                convert::restore_plan(fleet, request.evacuation, request.options, &moves)
            };
            let evacuation = Some(self.handle.ask(plan).await?);
            let staying = restore.staying.into_iter().map(convert::staying).collect();
            return Ok(Response::new(RestoreEvacuationResponse { evacuation, staying, blocked }));
        }
        checks::before(&self.handle, restore.moves).await?;
        let begun = self
            .handle
            .ask(move |fleet, now, out| {
                let (id, staying) = fleet.restore_evacuation(&request, now, out)?;
                Ok((view(fleet, id)?, staying))
            })
            .await?;
        let (evacuation, staying) = answer(begun)?;
        Ok(Response::new(RestoreEvacuationResponse {
            evacuation: Some(evacuation),
            staying: staying.into_iter().map(convert::staying).collect(),
            blocked: Vec::new(),
        }))
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
