//! vm show: one VM, wherever there is something of it.

use rackferry_proto::v1::GetVmRequest;

use super::Context;
use crate::{
    client::Client,
    exit::{self, Code, Failure},
    render,
    units::now_unix_ms,
};

pub async fn show(context: &Context, vm: String) -> Result<Code, Failure> {
    let request = GetVmRequest { vm };
    let get = async |client: Client| client.inventory().get_vm(request.clone()).await;
    let detail = context.call(get).await?.into_inner();
    context.print(|| render::vm::detail(&detail, now_unix_ms()), || render::json::vm(&detail));
    Ok(exit::of_problems(&detail.problems))
}
