//! Neighbours that are expelled, at an agent's page port: a real process, and a coordinator played by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod common;

use common::{HOST, NEIGHBOUR, NEIGHBOUR_ID, Site, wait_for};
use rackferry_migrator::conn::{self, ConnError, Framed};
use rackferry_migrator_protocol::frame::{Hello, Role as Speaks};
use rackferry_proto::v1::{Expelled, ExpelledCertificate};
use rackferry_tls::{Role, Tls, authority::LIFE};

async fn call(site: &Site, neighbour: &Tls) -> Result<Framed, ConnError> {
    let hello = Hello { host_id: NEIGHBOUR_ID, role: Speaks::Neighbour };
    conn::dial(&site.page_addr, HOST, &hello, Some(neighbour)).await
}

async fn is_refused(site: &Site, neighbour: &Tls) -> bool {
    let error = call(site, neighbour).await.err().map(|error| error.to_string());
    error.is_some_and(|text| text.contains("our certificate is expelled from the site"))
}

#[tokio::test]
async fn a_page_server_cuts_the_expelled_off_also_when_it_starts_without_a_coordinator() {
    let mut site = Site::start(LIFE).await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    wait_for(async || call(&site, &neighbour).await.is_ok()).await;
    let (mut reader, _writer) = call(&site, &neighbour).await.unwrap();
    let one = ExpelledCertificate { name: NEIGHBOUR.to_owned(), ..Default::default() };
    site.expelled.send_replace(Expelled { certificates: vec![one] });

    let mut payload = Vec::new();
    assert!(reader.next(&mut payload).await.is_err(), "its connection ends");
    wait_for(async || is_refused(&site, &neighbour).await).await;

    let kept = site.folder("state").join("expelled.json");
    wait_for(async || std::fs::read_to_string(&kept).is_ok_and(|text| text.contains(NEIGHBOUR)))
        .await;
    site.restart_alone();
    wait_for(async || is_refused(&site, &neighbour).await).await;
}

#[tokio::test]
async fn the_readmitted_are_let_in_again() {
    let site = Site::start(LIFE).await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    let one = ExpelledCertificate { name: NEIGHBOUR.to_owned(), ..Default::default() };
    site.expelled.send_replace(Expelled { certificates: vec![one] });
    wait_for(async || is_refused(&site, &neighbour).await).await;
    site.expelled.send_replace(Expelled::default());
    wait_for(async || call(&site, &neighbour).await.is_ok()).await;
}
