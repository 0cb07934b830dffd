//! What is not as it should be: what the fleet knows, what agents say of their clocks, and the own certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, stream};
use rackferry_fleet::{Connection, HostName};
use rackferry_proto::v1::{CheckSource, Problem, ProblemCode};
use rackferry_tls::Tls;
use tonic::Status;

use crate::{convert, driver::Handle, preflight, questions::Question};

/// Agents asked at a time.
const AGENTS: usize = 64;
/// Agents renew theirs long before; only an admin renews a coordinator's.
const CERTIFICATE_LEFT: Duration = Duration::from_secs(20 * 24 * 3600);

/// Everything that is not as it should be, the most urgent first. Cancel safe.
///
/// # Errors
/// If this coordinator leads no more.
pub async fn problems(handle: &Handle, tls: Option<&Tls>) -> Result<Vec<Problem>, Status> {
    let look = |fleet: &rackferry_fleet::Fleet, _| {
        (fleet.problems(env!("CARGO_PKG_VERSION")), fleet.hosts())
    };
    let (found, hosts) = handle.ask(look).await?;
    let mut problems: Vec<Problem> = found.into_iter().map(convert::problem).collect();
    let connected = hosts.into_iter().filter_map(|host| Some((host.name, host.connection?)));
    let clocks = connected.map(|(host, connection)| clock(handle, host, connection));
    let clocks = stream::iter(clocks).buffered(AGENTS).filter_map(std::future::ready);
    problems.extend(clocks.collect::<Vec<_>>().await);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    problems.extend(tls.and_then(|tls| certificate(tls.expires(), now)));
    Ok(problems)
}

/// An agent's clock, which goes with every answer: also with the one that there is no such VM.
async fn clock(handle: &Handle, host: HostName, connection: Connection) -> Option<Problem> {
    let question = Question::Source(CheckSource { check: 0, vm: String::new() });
    let report = handle.check(connection, question).await?;
    let finding = preflight::clock(&report)?;
    Some(Problem {
        code: ProblemCode::Clock.into(),
        host: host.to_string(),
        cause: finding.cause,
        fix: finding.fix,
        ..Problem::default()
    })
}

/// The own certificate, if it ends soon; `expires` in seconds of Unix.
fn certificate(expires: i64, now: Duration) -> Option<Problem> {
    let left = Duration::from_secs(u64::try_from(expires).unwrap_or_default()).saturating_sub(now);
    (left < CERTIFICATE_LEFT).then(|| Problem {
        code: ProblemCode::Certificate.into(),
        cause: format!("the coordinator's certificate ends in {} days", left.as_secs() / 86_400),
        fix: "where the CA is: rackferry issue coordinator NAME --ca DIR; copy the new folder to the coordinator's tls.dir"
            .to_owned(),
        ..Problem::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_told() {
        let now = Duration::from_secs(1_000_000_000);
        let in_days = |days: i64| certificate(1_000_000_000 + days * 86_400, now);
        assert_eq!(in_days(21), None);
        assert!(in_days(3).unwrap().cause.contains("in 3 days"));
        assert!(in_days(-3).unwrap().cause.contains("in 0 days"));
        assert!(certificate(-1, now).is_some());
    }
}
