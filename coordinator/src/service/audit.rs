//! The caller of a request, and what becomes of the request, in the record of who did what.
//!
//! A request that changes the fleet does so by [`Handle::act`], which wants an [`Act`] and writes it down in the same
//! write. [`recorded`] makes it of a request, and has the request's refusal written down, whatever refused it.

mod subject;

use rackferry_fleet::{Act, Action, Caller};
use rackferry_tls::grpc;
use tonic::{Extensions, Request, Response, Status};

use crate::driver::Handle;

/// A request that changes the site.
pub trait Mutation {
    /// What it does.
    const ACTION: Action;

    /// What it does that to. It may come from any caller that the roles admit: no secret, and of any length.
    fn subject(&self) -> String;

    /// It only asks what would be.
    fn is_question(&self) -> bool {
        false
    }
}

/// The caller of a request: what its certificate says, and where it comes from.
pub fn caller(extensions: &Extensions) -> Caller {
    let mut caller = match extensions.get::<grpc::Caller>() {
        Some(grpc::Caller::Known(shown)) => {
            Caller::new(shown.identity.role.as_str(), &shown.identity.name)
        }
        Some(grpc::Caller::Anonymous) | None => Caller::new("none", ""),
    };
    if let Some(grpc::Peer { from: Some(from), .. }) = extensions.get::<grpc::Peer>() {
        caller.from = from.to_string();
    }
    caller
}

/// Runs a request that changes the site; if it is refused, that is written down, too.
pub async fn recorded<M: Mutation, T, F>(
    handle: &Handle,
    request: Request<M>,
    run: impl FnOnce(M, Act) -> F,
) -> Result<Response<T>, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let message = request.get_ref();
    let act = Act::new(caller(request.extensions()), M::ACTION, message.subject());
    let is_question = message.is_question();
    let answer = run(request.into_inner(), act.clone()).await;
    if let Err(status) = &answer
        && !is_question
    {
        handle.refusals().put(act, status);
    }
    answer.map(Response::new)
}
