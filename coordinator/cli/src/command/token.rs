//! token: what lets hosts in.

use rackferry_proto::v1::CreateTokenRequest;

use super::Context;
use crate::{
    args::Token,
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Token) -> Result<Code, Failure> {
    let Token::Create { host, ttl } = args;
    let ttl_seconds = u32::try_from(ttl.as_secs().max(1)).unwrap_or(u32::MAX);
    let request = CreateTokenRequest { host, ttl_seconds };
    let create = async |client: Client| client.enrolment().create_token(request.clone()).await;
    let created = context.call(create).await?.into_inner();
    // The token and nothing else: it goes into a file or a pipe.
    context.print(|| created.token.clone(), || render::json::token(&created));
    Ok(Code::Done)
}
