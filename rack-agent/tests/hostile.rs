//! What a hostile agent gets at another agent's page port: it has a valid certificate of the site, of a host of its own,
//! and wants more. A real process. Poisoned specs are in `doors.rs`, crowds of idle connections in `crowd.rs`.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod common;

use common::{HOST, NEIGHBOUR, NEIGHBOUR_ID, Site, wait_for};
use rackferry_migrator::conn::{self, ConnError, Framed};
use rackferry_migrator_protocol::frame::{
    ClaimRequest, Digest, FETCH_ABSENT, FetchReplyView, FetchRequest, Hello, HoldBack, Holder,
    Kind, Revoke, Role as Speaks,
};
use rackferry_tls::authority::LIFE;
use rackferry_tls::{Role, Tls};

async fn call(site: &Site, host_id: u32, role: Speaks, tls: &Tls) -> Result<Framed, ConnError> {
    let hello = Hello { host_id, role };
    conn::dial(&site.page_addr, HOST, &hello, Some(tls)).await
}

#[tokio::test]
async fn a_host_of_another_rack_gets_no_connection() {
    let site = Site::start(LIFE).await;
    let (neighbour, evil) = (site.issue(Role::Agent, NEIGHBOUR), site.issue(Role::Agent, "x1"));
    wait_for(async || call(&site, NEIGHBOUR_ID, Speaks::Neighbour, &neighbour).await.is_ok()).await;
    for host_id in [0, 1, NEIGHBOUR_ID, 8, u32::MAX] {
        let called = call(&site, host_id, Speaks::Neighbour, &evil).await;
        assert!(called.is_err(), "as host {host_id}");
    }
    for session in [0, 1, 7, u64::MAX] {
        let migration_id = format!("mig-{session}");
        let role = Speaks::Session { session, generation: 1, migration_id };
        assert!(call(&site, 1, role, &evil).await.is_err(), "session {session}");
    }
    let role = Speaks::Session { session: 1, generation: 1, migration_id: "../../x".to_owned() };
    assert!(call(&site, 1, role, &evil).await.is_err(), "no migration's name");
    // The others are served as before.
    assert!(call(&site, NEIGHBOUR_ID, Speaks::Neighbour, &neighbour).await.is_ok());
}

/// The worst of its place: a member of the rack.
#[tokio::test]
async fn a_hostile_neighbour_gets_no_content_that_is_not_there_and_breaks_nothing() {
    let site = Site::start(LIFE).await;
    let evil = site.issue(Role::Agent, NEIGHBOUR);
    wait_for(async || call(&site, NEIGHBOUR_ID, Speaks::Neighbour, &evil).await.is_ok()).await;
    let (mut reader, mut writer) =
        call(&site, NEIGHBOUR_ID, Speaks::Neighbour, &evil).await.unwrap();
    let mut payload = Vec::new();
    let wanted: Vec<_> = (0..128).map(|n| (Digest([n; 16]), u64::from(n))).collect();
    FetchRequest { request: 1, wanted }.encode(&mut payload);
    writer.send(Kind::Fetch, &[&payload]).await.unwrap();
    assert_eq!(reader.next(&mut payload).await.unwrap(), Kind::FetchReply);
    let view = FetchReplyView::decode(&payload).unwrap();
    assert!(view.states.iter().all(|state| *state == FETCH_ABSENT) && view.pages.is_empty());

    // Sessions of others are undone at this shard alone, which costs bytes and no VM.
    let mut out = Vec::new();
    Revoke { session: 7 }.encode(&mut out);
    writer.send(Kind::Revoke, &[&out]).await.unwrap();
    // Sessions hold back for a third of the time at most, whatever neighbours say.
    out.clear();
    HoldBack { millis: u16::MAX }.encode(&mut out);
    writer.send(Kind::HoldBack, &[&out]).await.unwrap();
    let claimant = Holder { host: 1, session: 7 };
    let mut claim = Vec::new();
    let tokens = vec![Digest([3; 16]); 16];
    ClaimRequest { request: 2, crossing: 1, claimant, tokens }.encode(&mut claim);
    writer.send(Kind::Claim, &[&claim]).await.unwrap();
    assert_eq!(reader.next(&mut payload).await.unwrap(), Kind::ClaimReply);

    // A frame that is not of this place ends the connection, and nothing else.
    writer.send(Kind::Batch, &[&[0xff; 64]]).await.unwrap();
    assert!(reader.next(&mut payload).await.is_err());
    assert!(call(&site, NEIGHBOUR_ID, Speaks::Neighbour, &evil).await.is_ok());
}
