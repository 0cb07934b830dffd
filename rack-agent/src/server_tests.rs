//! Which hosts get contents, by a digest that they know.

use rackferry_dedup_index::{DomainKey, PAGE_SIZE};
use rackferry_migrator::rack::Member;
use rackferry_migrator_protocol::frame::FetchReplyView;
use rackferry_migrator_protocol::frame::Hello;
use rackferry_tls::Admission;
use tokio::net::TcpListener;

use super::*;

const CALLER: u32 = 7;
const PAGE: [u8; PAGE_SIZE] = [9; PAGE_SIZE];

fn member(host_id: u32) -> Member {
    Member { host_id, host: format!("h{host_id}"), page_addr: "127.0.0.1:1".into() }
}

/// What a neighbour gets that asks for the page.
struct Caller {
    reader: FrameReader<PageRead>,
    writer: FrameWriter<PageWrite>,
    digest: Digest,
}

impl Caller {
    async fn of(rack: &Arc<Rack>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let called = rack.clone();
        tokio::spawn(async move {
            let (stream, _, ticket) = Admission::default().accept(&listener).await;
            let (hello, _peer, (reader, mut writer)) =
                conn::greeting(stream, None, ticket).await.unwrap();
            conn::accept(&mut writer, 1).await.unwrap();
            Neighbour::new(called, hello.host_id, (reader, writer)).run().await
        });
        let hello = Hello { host_id: CALLER, role: Role::Neighbour };
        let (reader, writer) = conn::dial(&addr, "called", &hello, None).await.unwrap();
        Self { reader, writer, digest: rack.hasher.digest(&PAGE) }
    }

    async fn gets(&mut self) -> (u8, usize) {
        let mut payload = Vec::new();
        FetchRequest { request: 1, wanted: vec![(self.digest, 3)] }.encode(&mut payload);
        self.writer.send(Kind::Fetch, &[&payload]).await.unwrap();
        assert_eq!(self.reader.next(&mut payload).await.unwrap(), Kind::FetchReply);
        let view = FetchReplyView::decode(&payload).unwrap();
        (view.states[0], view.pages.len())
    }
}

#[tokio::test]
async fn only_a_member_that_vms_are_on_their_way_to_gets_contents() {
    let rack = Arc::new(Rack::new(1, &DomainKey([7; 32]), 1 << 20, 1 << 20, None));
    rack.store.keep(&[rack.hasher.digest(&PAGE)], &[PAGE]).unwrap();
    // The session that brings it is still under way, which a stranger is not told either.
    rack.session_opened(3);
    let mut caller = Caller::of(&rack).await;
    assert_eq!(caller.gets().await, (FETCH_ABSENT, 0), "no member of the rack");
    rack.set_receivers([CALLER].into());
    rack.set_members(&[member(2)]);
    assert_eq!(caller.gets().await, (FETCH_ABSENT, 0), "a member of another rack");
    rack.set_members(&[member(2), member(CALLER)]);
    assert_eq!(caller.gets().await, (FETCH_PRESENT, PAGE_SIZE));
    rack.set_receivers([2].into());
    assert_eq!(caller.gets().await, (FETCH_ABSENT, 0), "no VM is on its way to it");
    rack.set_receivers([2, CALLER].into());
    assert_eq!(caller.gets().await, (FETCH_PRESENT, PAGE_SIZE), "the view was late");
    rack.set_receivers([CALLER].into());
    rack.set_members(&[member(2)]);
    assert_eq!(caller.gets().await, (FETCH_ABSENT, 0), "it has left, on a connection of before");
}
