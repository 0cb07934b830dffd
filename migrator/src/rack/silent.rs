//! A neighbour for tests that can fall silent like a frozen process: its kernel goes on to take connections and bytes.

use std::sync::{Arc, Mutex};

use rackferry_dedup_index::Digest;
use rackferry_migrator_protocol::frame::{
    ClaimReply, ClaimRequest, FETCH_ABSENT, FetchReplyHead, FetchRequest, Kind,
};
use rackferry_tls::Admission;
use rackferry_tls::admission::Ticket;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Member, Rack};
use crate::conn::{self, ConnError};

/// The neighbour's number and name.
pub(crate) const HOST: u32 = 2;

/// A neighbour's page server.
pub(crate) struct Neighbour {
    /// As the rack's view names it.
    pub(crate) member: Member,
    /// Whether it answers, and greets.
    pub(crate) awake: watch::Sender<bool>,
    claimed: Arc<Mutex<Vec<Digest>>>,
}

impl Neighbour {
    /// The names of all contents that were claimed at its shard.
    pub(crate) fn claimed(&self) -> Vec<Digest> {
        self.claimed.lock().unwrap().clone()
    }
}

/// The only neighbour of `rack`, which has a connection to it and hears nothing more.
pub(crate) async fn of(rack: &Rack) -> Neighbour {
    let neighbour = start().await;
    rack.set_members(std::slice::from_ref(&neighbour.member));
    assert!(rack.fetch(HOST, Vec::new()).await.is_some(), "the connection is made");
    neighbour.awake.send_replace(false);
    neighbour
}

/// Starts one that answers, on a port of its own.
pub(crate) async fn start() -> Neighbour {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let page_addr = listener.local_addr().unwrap().to_string();
    let awake = watch::Sender::new(true);
    let (state, claimed) = (awake.subscribe(), Arc::<Mutex<Vec<Digest>>>::default());
    let names = claimed.clone();
    tokio::spawn(async move {
        let admission = Admission::default();
        loop {
            let (stream, _, ticket) = admission.accept(&listener).await;
            tokio::spawn(serve(stream, ticket, state.clone(), names.clone()));
        }
    });
    let member = Member { host_id: HOST, host: "neighbour".into(), page_addr };
    Neighbour { member, awake, claimed }
}

async fn serve(
    stream: TcpStream,
    ticket: Ticket,
    mut awake: watch::Receiver<bool>,
    claimed: Arc<Mutex<Vec<Digest>>>,
) -> Result<(), ConnError> {
    let _ = awake.wait_for(|awake| *awake).await;
    let (_, _peer, (mut reader, mut writer)) = conn::greeting(stream, None, ticket).await?;
    conn::accept(&mut writer, HOST).await?;
    let mut payload = Vec::new();
    loop {
        let mut out = Vec::new();
        let kind = reader.next(&mut payload).await?;
        let _ = awake.wait_for(|awake| *awake).await;
        match kind {
            Kind::Claim => {
                let ClaimRequest { request, claimant, tokens, .. } =
                    ClaimRequest::decode(&payload)?;
                claimed.lock().unwrap().extend(&tokens);
                let answers = vec![Some(claimant); tokens.len()];
                ClaimReply { request, answers }.encode(&mut out);
                writer.send(Kind::ClaimReply, &[&out]).await?;
            }
            Kind::Fetch => {
                let FetchRequest { request, wanted } = FetchRequest::decode(&payload)?;
                let states = vec![FETCH_ABSENT; wanted.len()];
                FetchReplyHead { request, states }.encode(&mut out);
                writer.send(Kind::FetchReply, &[&out]).await?;
            }
            _ => {}
        }
    }
}
