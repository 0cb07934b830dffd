//! Looking before a move.

use rackferry_proto::v1::{CheckVmsRequest, CheckVmsResponse, check_service_server::CheckService};
use tonic::{Request, Response, Status};

use super::answer;
use crate::{
    checks::{self, Wish},
    convert,
    driver::Handle,
};

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
        let (places, targets) = convert::check_request(request.into_inner())?;
        let wishes = self.handle.ask(move |fleet, _, _| {
            let targets = fleet.places(&targets)?;
            let all = fleet.candidates(&places)?.into_iter();
            Ok(all.map(|candidate| Wish { candidate, targets: targets.clone() }).collect())
        });
        let vms = checks::all(&self.handle, answer(wishes.await?)?).await;
        Ok(Response::new(CheckVmsResponse { vms }))
    }
}
