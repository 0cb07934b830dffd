//! How this host gets its certificate: the first one for a token, later ones for the one it has.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use rackferry_proto::v1::enrolment_service_client::EnrolmentServiceClient;
use rackferry_proto::v1::join_service_client::JoinServiceClient;
use rackferry_proto::v1::{JoinRequest, RenewRequest};
use rackferry_proto::{Reason, leader_of, reason_of};
use rackferry_tls::token::digest_of_pem;
use rackferry_tls::{Request, Role, Setting, Tls, Token, grpc};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use crate::config::Config;

/// Connecting takes no longer on a healthy network.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// An election is over by then.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A certificate with less time left is renewed.
const RENEW_BEFORE: u64 = 30 * 86_400;
/// How often that is looked at, and tried again.
const RENEW_EVERY: Duration = Duration::from_secs(3600);

/// Exchanges a token for the certificate of this host, and leaves its files where the settings say.
///
/// # Errors
/// If no coordinator can be reached, none is of the token's site, or the token is not good.
pub async fn join(config: &Config, token: &Token) -> anyhow::Result<()> {
    let Some(Setting::Files(files)) = &config.tls else {
        bail!("the settings do not say where the certificate shall be: set `dir` in `[tls]`");
    };
    let request = Request::new()?;
    let message = JoinRequest {
        secret: token.secret(),
        host: config.host.clone(),
        request_pem: request.pem().to_owned(),
    };
    let dial = |endpoint: Endpoint| {
        let token = token.clone();
        async move { grpc::join(&endpoint, &token).await }
    };
    let call = |channel: Channel| {
        let message = message.clone();
        async move { JoinServiceClient::new(channel).join(message).await }
    };
    let answer = ask_leader(&config.coordinator, dial, call).await?.into_inner();
    let pinned = digest_of_pem(&answer.ca_pem) == Some(token.authority());
    ensure!(pinned, "the coordinator hands out another CA than the token's");
    request.keep(&files.dir, &answer.certificate_pem, &answer.ca_pem)?;
    check(&files.dir, &config.host)?;
    info!(host = config.host, dir = %files.dir.display(), "this host is part of the site");
    Ok(())
}

fn check(dir: &Path, host: &str) -> anyhow::Result<()> {
    let holder = Tls::open(dir, &[Role::Agent])?.holder();
    ensure!(holder.name == host, "the settings call this host {host}, its certificate {holder}");
    Ok(())
}

/// The certificate of an agent must be its host's: the coordinator would not listen to it.
///
/// # Errors
/// If it is another's.
pub fn check_name(tls: Option<&Tls>, host: &str) -> anyhow::Result<()> {
    let Some(tls) = tls else {
        warn!("TLS is off: pages and keys cross the network in the clear");
        return Ok(());
    };
    check(tls.dir(), host)
}

/// Renews the certificate before it expires, for as long as the agent lives.
pub async fn keep_renewed(config: Config, tls: Tls) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if tls.expires().unsigned_abs() < now + RENEW_BEFORE {
            match renew(&config, &tls).await {
                Ok(()) => info!("the certificate was renewed"),
                Err(error) => warn!(error = format!("{error:#}"), "the certificate is not renewed"),
            }
        }
        tokio::time::sleep(RENEW_EVERY).await;
    }
}

async fn renew(config: &Config, tls: &Tls) -> anyhow::Result<()> {
    let request = Request::new()?;
    let message = RenewRequest { request_pem: request.pem().to_owned() };
    let dial = |endpoint: Endpoint| {
        let tls = tls.clone();
        async move { grpc::connect(&endpoint, Some(&tls)).await }
    };
    let call = |channel: Channel| {
        let message = message.clone();
        async move { EnrolmentServiceClient::new(channel).renew(message).await }
    };
    let answer = ask_leader(&config.coordinator, dial, call).await?.into_inner();
    Ok(request.keep(tls.dir(), &answer.certificate_pem, &answer.ca_pem)?)
}

/// Asks the coordinator that leads, whichever of the addresses answers. A refusal ends it: it would not be another
/// elsewhere.
async fn ask_leader<T, D, C>(
    addresses: &[String],
    dial: impl Fn(Endpoint) -> D,
    call: impl Fn(Channel) -> C,
) -> anyhow::Result<T>
where
    D: Future<Output = Result<Channel, tonic::transport::Error>>,
    C: Future<Output = Result<T, Status>>,
{
    let mut failure = None;
    let mut hints = Vec::new();
    for address in addresses {
        let mut next = Some(address.clone());
        while let Some(address) = next.take() {
            let endpoint = grpc::endpoint(&address)
                .with_context(|| format!("{address} is no address of a coordinator"))?
                .connect_timeout(DIAL_LIMIT)
                .timeout(ANSWER_LIMIT);
            let channel = match dial(endpoint).await {
                Ok(channel) => channel,
                Err(error) => {
                    failure = Some(anyhow::Error::new(error).context(format!("at {address}")));
                    continue;
                }
            };
            match call(channel).await {
                Ok(answer) => return Ok(answer),
                Err(status) if reason_of(&status).is_some_and(|why| why != Reason::NotLeader) => {
                    bail!("the coordinator at {address} refuses: {}", status.message());
                }
                Err(status) => {
                    let leader = leader_of(&status).map(str::to_owned);
                    next = leader.filter(|leader| !hints.contains(leader));
                    hints.extend(next.clone());
                    let text = format!("at {address}: {}", status.message());
                    failure = Some(anyhow::anyhow!(text));
                }
            }
        }
    }
    Err(failure.context("there is no address of a coordinator")?.context("no coordinator answers"))
}
