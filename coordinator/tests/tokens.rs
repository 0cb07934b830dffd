//! How hosts come into the site: tokens, and what becomes of them. A real process.

use std::{fs, time::Duration};

use crate::common::{
    Agent,
    site::{Site, endpoint},
};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        CreateTokenRequest, JoinRequest, JoinResponse, RenewRequest, connect_response as down,
        enrolment_service_client::EnrolmentServiceClient, join_service_client::JoinServiceClient,
    },
};
use rackferry_tls::{Request, Role, Tls, Token, grpc};
use tonic::Status;

async fn token(site: &Site, host: &str, ttl_seconds: u32) -> Result<Token, Status> {
    let mut enrolment = EnrolmentServiceClient::new(site.caller(Role::Admin).await);
    let request = CreateTokenRequest { host: host.to_owned(), ttl_seconds };
    Ok(enrolment.create_token(request).await?.into_inner().token.parse().unwrap())
}

async fn join(
    site: &Site,
    token: &Token,
    host: &str,
    request: &Request,
) -> Result<JoinResponse, Status> {
    let channel = grpc::join(&endpoint(site.port), token).await.unwrap();
    let request = JoinRequest {
        secret: token.secret(),
        host: host.to_owned(),
        request_pem: request.pem().to_owned(),
    };
    Ok(JoinServiceClient::new(channel).join(request).await?.into_inner())
}

async fn refused(site: &Site, token: &Token, host: &str) -> Option<Reason> {
    let request = Request::new().unwrap();
    reason_of(&join(site, token, host, &request).await.unwrap_err())
}

#[tokio::test]
async fn a_token_lets_its_host_in_once() {
    let site = Site::new();
    let mut coordinator = site.start().await;
    let good = token(&site, "h1", 0).await.unwrap();
    assert_eq!(refused(&site, &good, "h2").await, Some(Reason::TokenRefused));
    let request = Request::new().unwrap();
    let JoinResponse { certificate_pem, ca_pem } =
        join(&site, &good, "h1", &request).await.unwrap();
    request.keep(&site.folder("joined"), &certificate_pem, &ca_pem).unwrap();
    let tls = Tls::open(&site.folder("joined"), &[Role::Agent]).unwrap();
    let mut agent = Agent::over(site.channel(&tls).await, "h1", "r", vec![]).await.unwrap();
    assert!(matches!(agent.hear_any().await, down::Message::Welcome(_)));

    assert_eq!(refused(&site, &good, "h1").await, Some(Reason::TokenRefused));
    coordinator.kill();
    let _coordinator = site.start().await;
    assert_eq!(refused(&site, &good, "h1").await, Some(Reason::TokenRefused));
}

#[tokio::test]
async fn a_token_ends_with_its_time_or_with_a_newer_one() {
    let site = Site::new();
    let mut coordinator = site.start().await;
    let (old, brief) = (token(&site, "h1", 0).await.unwrap(), token(&site, "h2", 1).await.unwrap());
    let new = token(&site, "h1", 0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(refused(&site, &old, "h1").await, Some(Reason::TokenRefused));
    assert_eq!(refused(&site, &brief, "h2").await, Some(Reason::TokenRefused));
    // The log remembers.
    coordinator.kill();
    let _coordinator = site.start().await;
    assert!(join(&site, &new, "h1", &Request::new().unwrap()).await.is_ok());
    let long = token(&site, "h1", 8 * 86_400).await.unwrap_err();
    assert_eq!(reason_of(&long), Some(Reason::InvalidArgument));
}

#[tokio::test]
async fn without_the_cas_key_no_host_is_let_in_and_no_token_is_used() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let good = token(&site, "h1", 0).await.unwrap();
    let (key, away) = (site.folder("c1").join("ca.key"), site.dir.path().join("away"));
    fs::rename(&key, &away).unwrap();
    assert_eq!(refused(&site, &good, "h1").await, Some(Reason::NoAuthority));
    // A caller without a token does not come so far.
    assert_eq!(refused(&site, &good, "h2").await, Some(Reason::TokenRefused));
    let refused = token(&site, "h2", 0).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::NoAuthority));
    fs::rename(&away, &key).unwrap();
    assert!(join(&site, &good, "h1", &Request::new().unwrap()).await.is_ok());
}

#[tokio::test]
async fn an_agent_renews_its_certificate_and_stays_who_it_is() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let tls = site.issue(Role::Agent, "h1");
    let request = Request::new().unwrap();
    let message = RenewRequest { request_pem: request.pem().to_owned() };
    let mut enrolment = EnrolmentServiceClient::new(site.channel(&tls).await);
    let renewed = enrolment.renew(message).await.unwrap().into_inner();
    request.keep(&site.folder("h1"), &renewed.certificate_pem, &renewed.ca_pem).unwrap();
    assert!(tls.reload().unwrap());
    assert_eq!(tls.holder().to_string(), "agent h1");
    let rubbish = RenewRequest { request_pem: "a request".to_owned() };
    let refused = enrolment.renew(rubbish).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));
}

/// Bytes as a program might have logged them.
fn spellings(secret: &[u8]) -> Vec<String> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{secret:?}");
    vec![hex.to_uppercase(), hex, list.trim_matches(['[', ']']).to_owned(), escaped(secret)]
}

/// As protobuf's and `bytes`' own texts have them.
fn escaped(secret: &[u8]) -> String {
    secret.escape_ascii().to_string()
}

#[tokio::test]
async fn secrets_are_not_logged_at_any_level() {
    let site = Site::new();
    let coordinator = site.start().await;
    let good = token(&site, "h1", 0).await.unwrap();
    let request = Request::new().unwrap();
    let joined = join(&site, &good, "h1", &request).await.unwrap();
    request.keep(&site.folder("joined"), &joined.certificate_pem, &joined.ca_pem).unwrap();
    let tls = Tls::open(&site.folder("joined"), &[Role::Agent]).unwrap();
    let mut agent = Agent::over(site.channel(&tls).await, "h1", "r", vec![]).await.unwrap();
    let down::Message::Welcome(welcome) = agent.hear_any().await else { panic!("not welcome") };
    refused(&site, &good, "h1").await;
    drop(coordinator);
    let log = site.log();
    assert!(log.contains("TRACE") && log.contains("joined the site"), "it logs all there is");
    let mut secrets = spellings(&welcome.domain_key);
    secrets.extend([good.secret(), good.expose()]);
    for file in ["c1/key.pem", "c1/ca.key"] {
        let pem = fs::read_to_string(site.folder("").join(file)).unwrap();
        // Each line of the key itself is secret enough.
        secrets.extend(pem.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    }
    for secret in secrets {
        assert!(!log.contains(&secret), "the log has {secret}");
    }
    // Nor does the database know the token.
    let database = fs::read(site.dir.path().join("data/coordinator.redb")).unwrap();
    let secret = good.secret();
    assert!(!database.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
}
