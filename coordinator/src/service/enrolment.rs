//! How hosts become part of the site.

use std::time::Duration;

use rackferry_fleet::{
    Act, Action, Caller as By, Done, Fleet, HostName, Moment, Refusal, TokenRecord,
};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        CreateTokenRequest, CreateTokenResponse, ExpelCertificateRequest, ExpelCertificateResponse,
        JoinRequest, JoinResponse, ListExpelledCertificatesRequest,
        ListExpelledCertificatesResponse, ReadmitCertificateRequest, ReadmitCertificateResponse,
        RenewRequest, RenewResponse, enrolment_service_server::EnrolmentService,
        join_service_server::JoinService,
    },
};
use rackferry_tls::{
    Authority, Expelled, Identity, Role, Tls, Token,
    authority::{AuthorityError, LIFE},
    grpc::Caller,
    identity::NAME_LIMIT,
    token::digest_of_secret,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    answer,
    audit::{self, recorded},
    expulsion,
    majority::Voters,
};
use crate::{
    convert,
    driver::Handle,
    raft::{Metrics, Network},
};

/// How long a token lasts, unless the admin says otherwise.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// The longest: a token that lies about is a way in.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// The door for hosts that come.
#[derive(Clone)]
pub struct Enrolments {
    handle: Handle,
    tls: Option<Tls>,
    metrics: watch::Receiver<Metrics>,
    network: Network,
}

impl Enrolments {
    pub fn new(
        handle: Handle,
        tls: Option<Tls>,
        metrics: watch::Receiver<Metrics>,
        network: Network,
    ) -> Self {
        Self { handle, tls, metrics, network }
    }

    fn voters(&self) -> Voters {
        Voters::of(&self.metrics.borrow(), &self.network)
    }

    /// The CA, if its key is here: looked for each time, so that it can come and go.
    fn authority(&self) -> Result<Authority, Status> {
        let tls = self.tls.as_ref().ok_or_else(|| {
            refuse(Reason::NoAuthority, "TLS is off at this site: hosts need no certificates")
        })?;
        Authority::load(tls.dir()).map_err(|error| {
            tracing::warn!(%error, "no certificate can be made here");
            let text = "the coordinator that leads has no ca.key beside its certificate";
            refuse(Reason::NoAuthority, text)
        })
    }
}

impl Enrolments {
    async fn token(
        &self,
        message: CreateTokenRequest,
        act: Act,
    ) -> Result<CreateTokenResponse, Status> {
        let CreateTokenRequest { host, ttl_seconds } = message;
        let length = host.chars().count();
        if length == 0 || length > NAME_LIMIT || host.chars().any(char::is_control) {
            let text = format!("a host has a name of 1 to {NAME_LIMIT} characters");
            return Err(refuse(Reason::InvalidArgument, text));
        }
        let life = match ttl_seconds {
            0 => TOKEN_LIFE,
            seconds => Duration::from_secs(seconds.into()),
        };
        if life > TOKEN_LIFE_MAX {
            return Err(refuse(Reason::InvalidArgument, "a token lasts 7 days at most"));
        }
        let token = Token::new(&self.authority()?.pem)
            .map_err(|error| Status::internal(error.to_string()))?;
        let digest = digest_of_secret(&token.secret());
        let lasts = format!("good for {} s", life.as_secs());
        let life = u64::try_from(life.as_nanos()).unwrap_or(u64::MAX);
        let name = host.clone();
        let expires = self.handle.act(act, move |fleet, now, out| {
            let expires = Moment(now.0.saturating_add(life));
            let token = TokenRecord { host: HostName::new(name), digest, expires };
            fleet.create_token(token, now, out)?;
            Ok(Done::new(expires, lasts))
        });
        let expires_unix_ms = answer(expires.await?)?.unix_ms();
        tracing::info!(%host, "a token was made");
        Ok(CreateTokenResponse { token: token.expose(), expires_unix_ms })
    }

    /// `by` is the caller as far as its connection says.
    async fn admit(&self, message: JoinRequest, by: By) -> Result<JoinResponse, Status> {
        let JoinRequest { secret, host, request_pem } = message;
        let (name, digest) = (HostName::new(host.clone()), digest_of_secret(&secret));
        let refused = |refusal| {
            tracing::warn!(%host, "a token was refused");
            convert::refusal(&refusal)
        };
        // For any caller that reaches the port: no key is read and nothing is signed for one without a token.
        let (of, its) = (name.clone(), digest.clone());
        let held = self.handle.ask(move |fleet, now| fleet.check_token(&of, &its, now)).await?;
        held.map_err(refused)?;
        // Made before the token is used up: what can fail has failed by then.
        let authority = self.authority()?;
        let certificate_pem = sign(&authority, &request_pem, &host)?;
        let by = By { role: "token".to_owned(), name: host.clone(), ..by };
        let act = Act::new(by, Action::Join, host.clone());
        let used = self.handle.act(act, move |fleet, now, out| {
            fleet.use_token(&name, &digest, now, out)?;
            Ok(Done::new((), "a certificate was issued"))
        });
        used.await?.map_err(refused)?;
        tracing::info!(%host, "joined the site");
        Ok(JoinResponse { certificate_pem, ca_pem: authority.pem })
    }
}

fn sign(authority: &Authority, request: &str, host: &str) -> Result<String, Status> {
    let holder = Identity::new(Role::Agent, host);
    authority.sign(request, &holder, LIFE).map_err(|error| match error {
        AuthorityError::Request | AuthorityError::Name(_) => {
            refuse(Reason::InvalidArgument, error.to_string())
        }
        other => Status::internal(other.to_string()),
    })
}

#[tonic::async_trait]
impl EnrolmentService for Enrolments {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        self.handle.admit().await?;
        recorded(&self.handle, request, |message, act| self.token(message, act)).await
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        recorded(&self.handle, request, |RenewRequest { request_pem }, act| async move {
            let Some(Caller::Known(shown)) = caller else {
                return Err(refuse(Reason::NotPermitted, "there is no certificate to renew"));
            };
            let identity = &shown.identity;
            // Its connection is about to end; until then it must not get another certificate.
            if self.tls.as_ref().is_some_and(|tls| tls.denies(&shown)) {
                return Err(convert::refusal(&Refusal::Expelled(identity.name.clone())));
            }
            let authority = self.authority()?;
            let certificate_pem = sign(&authority, &request_pem, &identity.name)?;
            answer(self.handle.act(act, |_, _, _| Ok(Done::new((), ""))).await?)?;
            tracing::info!(host = identity.name, "its certificate was renewed");
            Ok(RenewResponse { certificate_pem, ca_pem: authority.pem })
        })
        .await
    }

    async fn expel_certificate(
        &self,
        request: Request<ExpelCertificateRequest>,
    ) -> Result<Response<ExpelCertificateResponse>, Status> {
        self.handle.admit().await?;
        let caller = request.extensions().get::<Caller>().cloned();
        recorded(&self.handle, request, |request, act| async move {
            let expelled = expulsion::requested(request.name.clone(), &request.serial)?;
            let voters = self.voters();
            expulsion::check(&request, &expelled, caller.as_ref(), self.tls.as_ref(), voters)?;
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                let record = expulsion::record(expelled, caller.as_ref(), now);
                fleet.expel(record.clone(), now, out)?;
                Ok(Done::new(record, if request.force { "forced" } else { "" }))
            };
            let record = answer(self.handle.act(act, turn).await?)?;
            Ok(ExpelCertificateResponse { certificate: Some(expulsion::view(record)) })
        })
        .await
    }

    async fn readmit_certificate(
        &self,
        request: Request<ReadmitCertificateRequest>,
    ) -> Result<Response<ReadmitCertificateResponse>, Status> {
        self.handle.admit().await?;
        recorded(&self.handle, request, |request, act| async move {
            let Expelled { name, serial } = expulsion::requested(request.name, &request.serial)?;
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                fleet.readmit(&name, serial.as_deref(), now, out)?;
                Ok(Done::new((), ""))
            };
            answer(self.handle.act(act, turn).await?)?;
            Ok(ReadmitCertificateResponse {})
        })
        .await
    }

    async fn list_expelled_certificates(
        &self,
        _: Request<ListExpelledCertificatesRequest>,
    ) -> Result<Response<ListExpelledCertificatesResponse>, Status> {
        self.handle.admit().await?;
        let listed = |fleet: &Fleet| fleet.expelled().cloned().map(expulsion::view).collect();
        let certificates = self.handle.ask(move |fleet, _| listed(fleet)).await?;
        Ok(Response::new(ListExpelledCertificatesResponse { certificates }))
    }
}

#[tonic::async_trait]
impl JoinService for Enrolments {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.handle.admit().await?;
        let by = audit::caller(request.extensions());
        recorded(&self.handle, request, |message, _| self.admit(message, by)).await
    }
}
