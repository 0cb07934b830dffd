//! check.

use rackferry_proto::v1::CheckVmsRequest;

use super::Context;
use crate::{
    args::Check,
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, check: Check) -> Result<Code, Failure> {
    let request = CheckVmsRequest { places: check.places, targets: check.to };
    let ask = async |client: Client| client.checks().check_vms(request.clone()).await;
    let vms = context.call(ask).await?.into_inner().vms;
    context.print(|| render::check::vms(&vms), || render::json_plan::checks(&vms));
    Ok(Code::of_checks(&vms))
}
