//! Shows an evacuation until it has ended.

use std::time::Duration;

use rackferry_proto::v1::{Evacuation, EvacuationState, StayingVm};

use super::{
    Context,
    follow::{EvacuationWork, Next, follow},
};
use crate::{
    ending,
    exit::{Code, Failure},
    progress::Progress,
    render,
};

/// Shows an evacuation until it has ended, then what became of it. `staying` were left out of it.
///
/// # Errors
/// If it is not known, or the coordinator is away for too long.
pub async fn to_the_end(
    context: &Context,
    id: &str,
    staying: &[StayingVm],
    timeout: Option<Duration>,
) -> Result<Code, Failure> {
    show(context, id, staying, timeout, false).await
}

/// The same, and no longer than to its deadline.
///
/// # Errors
/// As [`to_the_end`].
pub async fn to_the_deadline(
    context: &Context,
    id: &str,
    staying: &[StayingVm],
    timeout: Option<Duration>,
) -> Result<Code, Failure> {
    show(context, id, staying, timeout, true).await
}

async fn show(
    context: &Context,
    id: &str,
    staying: &[StayingVm],
    timeout: Option<Duration>,
    to_the_deadline: bool,
) -> Result<Code, Failure> {
    let mut progress = Progress::new(context.is_interactive());
    let work = EvacuationWork(id);
    let last = follow(context, &work, timeout, |snapshot| {
        progress.show(snapshot);
        if ending::is_over(snapshot) || to_the_deadline && snapshot.overdue {
            return Next::Ends;
        }
        context.print_snapshot(|| render::json::evacuation_snapshot(snapshot, staying));
        if ending::is_stuck(snapshot) { Next::Stuck } else { Next::GoesOn }
    });
    let last = last.await?;
    progress.finish();
    let evacuation = last.unwrap_or_else(|| unseen(id));
    let code = match ending::of_evacuation(&evacuation) {
        // VMs that were left out are left behind.
        Code::Done if !staying.is_empty() => Code::Incomplete,
        code => code,
    };
    let text = || {
        if ending::is_over(&evacuation) {
            render::evacuation::outcome(&evacuation)
        } else if ending::is_stuck(&evacuation) {
            render::evacuation::stuck(&evacuation)
        } else if to_the_deadline && evacuation.overdue {
            render::evacuation::overdue(&evacuation)
        } else {
            render::follow::goes_on(&evacuation.id)
        }
    };
    context.print(text, || render::json::evacuation(&evacuation, staying, code));
    Ok(code)
}

/// An evacuation of which no snapshot came in time.
fn unseen(id: &str) -> Evacuation {
    let state = EvacuationState::Running.into();
    Evacuation { id: id.to_owned(), state, ..Evacuation::default() }
}
