//! The page server: sessions of VMs that arrive, and requests of rack neighbours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rackferry_agent_core::HostName;
use rackferry_dedup_index::Digest;
use rackferry_migrator::conn::{
    self, ConnError, FrameReader, FrameWriter, Framed, PageRead, PageWrite, Peer,
};
use rackferry_migrator::rack::{Found, Rack, StoreReader};
use rackferry_migrator_protocol::frame::{
    ClaimReply, ClaimRequest, FETCH_ABSENT, FETCH_PENDING, FETCH_PRESENT, FetchReplyHead,
    FetchRequest, Forget, FrameError, HoldBack, Kind, Revoke, Role,
};
use rackferry_tls::Identity;
use rackferry_tls::admission::Ticket;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::agent::{Agent, Input};
use crate::convert;

/// How often, and how many times, the list of the rack's members is looked at for a caller that is not in it.
const MEMBER_LOOK_EVERY: Duration = Duration::from_millis(100);
/// See [`MEMBER_LOOK_EVERY`]: within the time that a caller waits for its greeting.
const MEMBER_LOOKS: u32 = 20;

/// Serves until the agent ends.
pub async fn run(agent: Agent, listener: TcpListener) {
    loop {
        let (stream, peer, ticket) = agent.admission().accept(&listener).await;
        let agent = agent.clone();
        tokio::spawn(async move {
            match connection(agent, stream, peer, ticket).await {
                Ok(()) => {}
                Err(error @ (ConnError::Tls(_) | ConnError::Stranger(_))) => {
                    info!(%peer, %error, "a caller for pages is refused");
                }
                Err(error) => debug!(%peer, %error, "page connection"),
            }
        });
    }
}

async fn connection(
    agent: Agent,
    stream: TcpStream,
    from: SocketAddr,
    ticket: Ticket,
) -> Result<(), ConnError> {
    let (hello, peer, (reader, mut writer)) = conn::greeting(stream, agent.tls(), ticket).await?;
    let age_limit = agent.admission().age_limit(from);
    let Some(rack) = agent.rack().cloned() else {
        return Err(FrameError::Unexpected { got: Kind::Hello }.into());
    };
    match hello.role {
        Role::Session { session, generation, migration_id } => {
            let Some(migration) = convert::id(&migration_id) else {
                return Err(FrameError::Unexpected { got: Kind::Hello }.into());
            };
            let caller = match peer {
                Peer::Known(peer) => Some(HostName::new(peer.name)),
                Peer::Unnamed(_) => None,
            };
            let framed = Box::new((reader, writer));
            agent.input(Input::Called { migration, session, generation, caller, framed }).await;
            Ok(())
        }
        Role::Neighbour => {
            if let Peer::Known(peer) = &peer
                && !is_member(&rack, hello.host_id, peer).await
            {
                return Err(ConnError::Stranger(peer.clone()));
            }
            conn::accept(&mut writer, rack.own_host).await?;
            let serving = Neighbour::new(rack, hello.host_id, (reader, writer)).run();
            // It calls again, and shows its certificate anew. Sessions go on for as long as their VM takes.
            timeout(age_limit, serving).await.unwrap_or(Ok(()))
        }
        Role::Accepted => Err(FrameError::Unexpected { got: Kind::Hello }.into()),
    }
}

/// Whether a caller is the member of the rack that it says it is. One that this host has not heard of yet may have got
/// the new list of members earlier.
async fn is_member(rack: &Rack, host_id: u32, peer: &Identity) -> bool {
    for _ in 0..MEMBER_LOOKS {
        if let Some(name) = rack.name_of(host_id) {
            return name == peer.name;
        }
        tokio::time::sleep(MEMBER_LOOK_EVERY).await;
    }
    false
}

/// One neighbour's connection; its requests are answered in order.
struct Neighbour {
    rack: Arc<Rack>,
    /// Its host's number; over TLS its certificate said so.
    host_id: u32,
    reader: FrameReader<PageRead>,
    writer: FrameWriter<PageWrite>,
    store_reader: StoreReader,
}

impl Neighbour {
    fn new(rack: Arc<Rack>, host_id: u32, (reader, writer): Framed) -> Self {
        Self { rack, host_id, reader, writer, store_reader: StoreReader::default() }
    }

    async fn run(mut self) -> Result<(), ConnError> {
        let mut payload = Vec::new();
        loop {
            match self.reader.next(&mut payload).await {
                Ok(kind) => self.answer(kind, &payload).await?,
                Err(ConnError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    async fn answer(&mut self, kind: Kind, payload: &[u8]) -> Result<(), ConnError> {
        match kind {
            Kind::Claim => {
                let claim = ClaimRequest::decode(payload)?;
                let answers = self.rack.claim_here(claim.crossing, claim.claimant, &claim.tokens);
                let mut out = Vec::new();
                ClaimReply { request: claim.request, answers }.encode(&mut out);
                self.writer.send(Kind::ClaimReply, &[&out]).await?;
            }
            Kind::Fetch => self.fetch(&FetchRequest::decode(payload)?).await?,
            Kind::Forget => self.rack.forget_here(&Forget::decode(payload)?),
            Kind::Revoke => {
                self.rack.shard.revoke(Revoke::decode(payload)?.session);
            }
            Kind::HoldBack => {
                let length = Duration::from_millis(HoldBack::decode(payload)?.millis.into());
                self.rack.uplink.neighbour_stopped(self.host_id, length);
            }
            got => return Err(FrameError::Unexpected { got }.into()),
        }
        Ok(())
    }

    /// Sends the contents that are here, to a host that VMs are on their way to; says of the others whether a session
    /// still brings them.
    async fn fetch(&mut self, request: &FetchRequest) -> Result<(), ConnError> {
        if !self.rack.may_fetch(self.host_id) {
            let states = vec![FETCH_ABSENT; request.wanted.len()];
            let mut head = Vec::new();
            FetchReplyHead { request: request.request, states }.encode(&mut head);
            self.writer.send(Kind::FetchReply, &[&head]).await?;
            return Ok(());
        }
        let digests: Vec<Digest> = request.wanted.iter().map(|w| w.0).collect();
        let mut states: Vec<u8> = request
            .wanted
            .iter()
            .map(
                |(_, session)| {
                    if self.rack.expects(*session) { FETCH_PENDING } else { FETCH_ABSENT }
                },
            )
            .collect();
        self.rack.store.read(&self.rack.hasher, &digests, &mut self.store_reader);
        for (state, found) in states.iter_mut().zip(self.store_reader.states()) {
            match found {
                Found::Here => *state = FETCH_PRESENT,
                Found::Gone => *state = FETCH_ABSENT,
                Found::Unknown => {}
            }
        }
        let mut head = Vec::new();
        FetchReplyHead { request: request.request, states }.encode(&mut head);
        let pages = self.store_reader.pages().as_flattened();
        self.writer.send(Kind::FetchReply, &[&head, pages]).await?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
