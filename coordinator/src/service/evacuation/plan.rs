//! What a request would do, what is looked at before it starts, and its start.

use rackferry_fleet::{
    Act, Done, EvacuationRequest, Fleet, MoveOptions, Plan, Refusal, RestoreRequest, StayingVm,
};
use rackferry_proto::v1::{CreateEvacuationResponse, Evacuation};
use tonic::Status;

use super::{Evacuations, view};
use crate::{
    convert, preflight,
    service::{Begun, answer},
};

/// What a request would begin: as planned before, or by the fleet now.
fn new_plan(fleet: &Fleet, request: &EvacuationRequest, planned: &Plan) -> Result<Plan, Refusal> {
    if planned.moves.is_empty() {
        fleet.new_plan(request)
    } else {
        fleet.still_planned(request, planned)
    }
}

impl Evacuations {
    /// What a request would do, and the VMs that cannot move.
    pub(super) async fn plan(
        &self,
        request: EvacuationRequest,
        planned: Plan,
    ) -> Result<CreateEvacuationResponse, Status> {
        let wanted = request.clone();
        let plan = move |fleet: &Fleet, _| new_plan(fleet, &wanted, &planned);
        let (plan, blocked) = match self.handle.ask(plan).await? {
            Ok(plan) if request.skip_blocked => {
                (self.movable(plan, &request.options).await?, Vec::new())
            }
            Ok(plan) => {
                let moves = plan.moves.clone();
                let blocked = preflight::blocking(&self.handle, moves, &request.options).await?;
                (plan, blocked)
            }
            Err(Refusal::NotMovable(vms)) => {
                let vms = vms.into_iter().map(|(vm, _)| vm).collect();
                (Plan::default(), preflight::stuck(&self.handle, vms).await?)
            }
            Err(refusal) => return Err(convert::refusal(&refusal)),
        };
        let shown = move |fleet: &Fleet, _| convert::plan(fleet, request, plan);
        let evacuation = Some(self.handle.ask(shown).await?);
        Ok(CreateEvacuationResponse { evacuation, blocked })
    }

    /// What is left of a plan if the VMs that checks find blocked stay; refused if that is nothing.
    async fn movable(&self, plan: Plan, options: &MoveOptions) -> Result<Plan, Status> {
        let plan = preflight::sift(&self.handle, plan, options).await?;
        if plan.moves.is_empty() && !plan.left_out.is_empty() {
            return Err(convert::refusal(&Refusal::NoneMovable(plan.left_out)));
        }
        Ok(plan)
    }

    /// Plans, looks at what was planned, and starts that and nothing else.
    pub(super) async fn begin(
        &self,
        request: EvacuationRequest,
        act: Act,
    ) -> Result<Evacuation, Begun> {
        let wanted = request.clone();
        let mut plan = self.handle.ask(move |fleet, _| fleet.new_plan(&wanted)).await??;
        if request.skip_blocked {
            plan = self.movable(plan, &request.options).await?;
        } else {
            preflight::before(&self.handle, plan.moves.clone(), &request.options).await?;
        }
        let start = move |fleet: &mut Fleet, now, out: &mut _| {
            let id = fleet.start_evacuation(&request, &plan, now, out)?;
            Ok(Done::new(view(fleet, id)?, format!("as {id}")))
        };
        Ok(self.handle.act(act, start).await??)
    }

    /// Looks at moves that a client has planned, and starts those and nothing else.
    pub(super) async fn apply(
        &self,
        request: EvacuationRequest,
        planned: Plan,
        act: Act,
    ) -> Result<Evacuation, Status> {
        let (wanted, given) = (request.clone(), planned.clone());
        let plan = self.handle.ask(move |fleet, _| fleet.still_planned(&wanted, &given)).await?;
        preflight::before(&self.handle, answer(plan)?.moves, &request.options).await?;
        let start = move |fleet: &mut Fleet, now, out: &mut _| {
            let id = fleet.apply_evacuation(&request, &planned, now, out)?;
            Ok(Done::new(view(fleet, id)?, format!("as {id}")))
        };
        answer(self.handle.act(act, start).await?)
    }

    /// Plans which VMs go back, looks at them, and starts that and nothing else.
    pub(super) async fn begin_restore(
        &self,
        request: RestoreRequest,
        act: Act,
    ) -> Result<(Evacuation, Vec<StayingVm>), Begun> {
        let wanted = request.clone();
        let restore = self.handle.ask(move |fleet, _| fleet.new_restore(&wanted)).await?;
        let moves = restore?.moves;
        preflight::before(&self.handle, moves.clone(), &request.options).await?;
        let start = move |fleet: &mut Fleet, now, out: &mut _| {
            let (id, staying) = fleet.start_restore(&request, &moves, now, out)?;
            Ok(Done::new((view(fleet, id)?, staying), format!("as {id}")))
        };
        Ok(self.handle.act(act, start).await??)
    }
}
