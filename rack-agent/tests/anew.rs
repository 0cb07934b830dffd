//! Which cluster of coordinators an agent follows: a real process, and a coordinator played by the test.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod common;

use common::{Site, wait_for};
use rackferry_tls::authority::LIFE;

#[tokio::test]
async fn an_agent_refuses_the_cluster_that_was_replaced() {
    let site = Site::start(LIFE).await;
    let met = site.folder("state").join("cluster.json");
    site.incarnation.send_replace(7);
    wait_for(async || std::fs::read_to_string(&met).is_ok_and(|text| text.contains('7'))).await;
    site.incarnation.send_replace(3);
    wait_for(async || {
        site.log().contains("another one has replaced (incarnation 3, replaced by 7)")
    })
    .await;
    assert!(std::fs::read_to_string(&met).unwrap().contains('7'));
}
