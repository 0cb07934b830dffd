//! Looking before a move.

use rackferry_proto::{
    Reason, refuse,
    v1::{CheckVmsRequest, CheckVmsResponse, check_service_server::CheckService},
};
use tonic::{Request, Response, Status};

use super::{agents_back, answer};
use crate::{
    convert,
    driver::Handle,
    preflight::{self, Wish},
};

/// The most VMs times targets of one check.
const QUESTIONS: usize = 100_000;

fn too_many(vms: usize, targets: usize) -> Status {
    let text = format!(
        "{vms} VMs times {targets} targets are more than the {QUESTIONS} that one check looks at; name fewer"
    );
    refuse(Reason::InvalidArgument, text)
}

/// The door for looking ahead.
pub struct Checks {
    handle: Handle,
}

impl Checks {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl CheckService for Checks {
    async fn check_vms(
        &self,
        request: Request<CheckVmsRequest>,
    ) -> Result<Response<CheckVmsResponse>, Status> {
        let request = request.into_inner();
        let verify = request.verify;
        let (places, targets) = convert::check_request(request)?;
        agents_back(&self.handle).await?;
        let wishes = self.handle.ask(move |fleet, _| {
            let targets = fleet.places(&targets)?;
            let names = fleet.candidate_names(&places)?;
            if names.len().saturating_mul(targets.len().max(1)) > QUESTIONS {
                return Ok(Err((names.len(), targets.len())));
            }
            let all = names.iter().filter_map(|name| fleet.candidate(name));
            let wishes = all.map(|candidate| Wish { candidate, targets: targets.clone(), verify });
            Ok(Ok(wishes.collect()))
        });
        let wishes = answer(wishes.await?)?.map_err(|(vms, targets)| too_many(vms, targets))?;
        let vms = preflight::all(&self.handle, wishes).await;
        Ok(Response::new(CheckVmsResponse { vms }))
    }
}
