//! check.

use rackferry_proto::v1::CheckVmsRequest;

use super::Context;
use crate::{
    args::Check,
    client::Client,
    exit::{self, Code, Failure},
    render,
};

pub async fn run(context: &Context, check: Check) -> Result<Code, Failure> {
    let request = CheckVmsRequest { places: check.places, targets: check.to, verify: check.verify };
    let ask = async |client: Client| client.checks().check_vms(request.clone()).await;
    let vms = context.call(ask).await?.into_inner().vms;
    context.print(|| render::check::vms(&vms), || render::json::checks(&vms));
    Ok(exit::of_checks(&vms))
}
