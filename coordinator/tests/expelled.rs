//! Certificates that are expelled: what becomes of open connections, of new ones, of renewals and of tokens. A real
//! process, and hosts that are played.

use crate::common::{
    Agent, LIMIT,
    site::{Site, endpoint},
};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        CreateTokenRequest, ExpelCertificateRequest, ExpelledCertificate,
        ListExpelledCertificatesRequest, ReadmitCertificateRequest, RenewRequest,
        connect_response as down, enrolment_service_client::EnrolmentServiceClient,
    },
};
use rackferry_tls::{Request, Role, Tls, grpc};
use tonic::{Status, transport::Channel};

type Enrolment = EnrolmentServiceClient<Channel>;

async fn admin(site: &Site) -> Enrolment {
    EnrolmentServiceClient::new(site.caller(Role::Admin).await)
}

async fn expel(admin: &mut Enrolment, name: &str, force: bool) -> Result<(), Status> {
    let request = ExpelCertificateRequest { name: name.to_owned(), force, ..Default::default() };
    admin.expel_certificate(request).await.map(|_| ())
}

async fn names(admin: &mut Enrolment) -> Vec<(String, String)> {
    let list = admin.list_expelled_certificates(ListExpelledCertificatesRequest {}).await;
    let all = list.unwrap().into_inner().certificates;
    all.into_iter().map(|one| (one.name, one.by)).collect()
}

/// Why a caller cannot connect, with all causes; nothing if it can.
async fn refusal(site: &Site, tls: &Tls) -> String {
    let Err(error) = grpc::connect(&endpoint(site.port), Some(tls)).await else {
        return String::new();
    };
    let (mut text, mut cause) = (String::new(), Some(&error as &dyn std::error::Error));
    while let Some(error) = cause {
        text = format!("{text}{error}; ");
        cause = error.source();
    }
    text
}

/// The next list that an agent hears.
async fn hears_list(agent: &mut Agent) -> Vec<ExpelledCertificate> {
    loop {
        if let down::Message::Expelled(list) = agent.hear_any().await {
            return list.certificates;
        }
    }
}

const TEXT: &str = "our certificate is expelled from the site";

#[tokio::test]
async fn an_expelled_host_is_cut_off_and_stays_so_until_it_is_readmitted() {
    let site = Site::new();
    let mut coordinator = site.start().await;
    let (bad, good) = (site.issue(Role::Agent, "bad"), site.issue(Role::Agent, "good"));
    let mut there = Agent::over(site.channel(&bad).await, "bad", "r", vec![]).await.unwrap();
    let mut other = Agent::over(site.channel(&good).await, "good", "r", vec![]).await.unwrap();
    assert_eq!(hears_list(&mut other).await, []);
    let mut renewal = EnrolmentServiceClient::new(site.channel(&bad).await);
    let mut admin = admin(&site).await;
    expel(&mut admin, "bad", false).await.unwrap();

    there.end().await;
    let list = hears_list(&mut other).await;
    assert_eq!((list.len(), list[0].name.as_str()), (1, "bad"));
    let message = RenewRequest { request_pem: Request::new().unwrap().pem().to_owned() };
    // Its connection may end before the answer comes.
    assert!(renewal.renew(message).await.is_err());
    let refused =
        tokio::time::timeout(LIMIT, async { while !refusal(&site, &bad).await.contains(TEXT) {} });
    refused.await.expect("it is refused, and learns why");
    let token = CreateTokenRequest { host: "bad".to_owned(), ttl_seconds: 0 };
    let refused = admin.create_token(token).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::Expelled));
    assert_eq!(names(&mut admin).await, [("bad".to_owned(), "admin admin".to_owned())]);

    // It is written down.
    coordinator.kill();
    let _coordinator = site.start().await;
    // Once it leads it knows how far its log counts.
    let refused =
        tokio::time::timeout(LIMIT, async { while !refusal(&site, &bad).await.contains(TEXT) {} });
    refused.await.expect("it is refused by the next one, too");
    let mut admin = self::admin(&site).await;
    let readmit = ReadmitCertificateRequest { name: "bad".to_owned(), ..Default::default() };
    admin.readmit_certificate(readmit.clone()).await.unwrap();
    let again =
        tokio::time::timeout(LIMIT, async { while !refusal(&site, &bad).await.is_empty() {} });
    again.await.expect("it is let in");
    Agent::over(site.channel(&bad).await, "bad", "r", vec![]).await.unwrap();
    let refused = admin.readmit_certificate(readmit).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));
}

#[tokio::test]
async fn what_shuts_out_the_caller_or_the_coordinators_needs_force() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let mut admin = admin(&site).await;
    let own = expel(&mut admin, "admin", false).await.unwrap_err();
    assert_eq!(reason_of(&own), Some(Reason::NotPermitted));
    assert!(own.message().contains("--force"), "{own}");
    let last = expel(&mut admin, "c1", false).await.unwrap_err();
    assert_eq!(reason_of(&last), Some(Reason::NoMajority));
    assert_eq!(names(&mut admin).await, []);
    let wrong = ExpelCertificateRequest { serial: "xyz".to_owned(), ..ask("bad") };
    let wrong = admin.expel_certificate(wrong).await.unwrap_err();
    assert!(wrong.message().contains("openssl"), "{wrong}");
    let mut viewer = EnrolmentServiceClient::new(site.caller(Role::Viewer).await);
    assert_eq!(names(&mut viewer).await, []);
    let refused = viewer.expel_certificate(ask("bad")).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::NotPermitted));
    // Its connection may end before the answer comes.
    let _ = expel(&mut admin, "admin", true).await;
    let over = tokio::time::timeout(LIMIT, async {
        let tls = site.issue(Role::Admin, "admin");
        while !refusal(&site, &tls).await.contains(TEXT) {}
    });
    over.await.expect("the admin is expelled, as it wanted");
}

fn ask(name: &str) -> ExpelCertificateRequest {
    ExpelCertificateRequest { name: name.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn connections_end_with_their_age_and_are_made_anew() {
    let site = Site::new();
    let age = "[admission]\nmax_age_seconds = 2";
    let _coordinator = site.start_with("c1", site.dir.path(), site.port, age).await;
    let tls = site.issue(Role::Agent, "h1");
    let mut agent = Agent::over(site.channel(&tls).await, "h1", "r", vec![]).await.unwrap();
    agent.end().await;
    Agent::over(site.channel(&tls).await, "h1", "r", vec![]).await.unwrap();
}
