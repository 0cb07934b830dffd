//! Shows an evacuation until it has ended.

use std::time::Duration;

use rackferry_model::EvacuationState;
use rackferry_proto::{
    door::word,
    v1::{Evacuation, StayingVm},
};

use super::{
    Context,
    follow::{EvacuationWork, follow},
};
use crate::{
    exit::{self, Code, Failure},
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

fn goes_on(evacuation: &Evacuation) -> String {
    render::evacuation::detached(&evacuation.id)
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
        let is_last = is_over(snapshot) || to_the_deadline && snapshot.overdue;
        if !is_last {
            context.print_snapshot(|| render::json::evacuation(snapshot, staying));
        }
        is_last
    });
    let last = last.await?;
    progress.finish();
    match last {
        Some(mut evacuation) if is_over(&evacuation) => {
            // VMs that were left out are left behind.
            if !staying.is_empty() && evacuation.result_code == Code::Done as u32 {
                evacuation.result_code = Code::Incomplete as u32;
            }
            context.print(
                || render::evacuation::outcome(&evacuation),
                || render::json::evacuation(&evacuation, staying),
            );
            Ok(exit::of_evacuation(&evacuation))
        }
        last => {
            let evacuation =
                last.unwrap_or_else(|| Evacuation { id: id.to_owned(), ..Default::default() });
            let late = to_the_deadline && evacuation.overdue;
            let said = if late { render::evacuation::overdue } else { goes_on };
            context.print(|| said(&evacuation), || render::json::unfinished(&evacuation));
            Ok(Code::StillRunning)
        }
    }
}

/// Whether it has ended.
pub fn is_over(evacuation: &Evacuation) -> bool {
    word(evacuation.state).is_none_or(EvacuationState::is_over)
}
