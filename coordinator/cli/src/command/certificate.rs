//! certificate: who is expelled from the site.

use rackferry_proto::v1::{
    ExpelCertificateRequest, ListExpelledCertificatesRequest, ReadmitCertificateRequest,
};

use super::{Context, confirm};
use crate::{
    args::Certificate,
    client::Client,
    exit::{Code, Failure},
    render,
    units::now_unix_ms,
};

pub async fn run(context: &Context, args: Certificate) -> Result<Code, Failure> {
    match args {
        Certificate::Expel { name, serial, force, yes } => {
            if !yes {
                let what = match &serial {
                    None => format!("Every certificate of {name}"),
                    Some(serial) => format!("The certificate {serial} of {name}"),
                };
                eprintln!(
                    "{what} is refused from now on, by all coordinators and agents, and its connections end.\n\
                     VMs of a host that is expelled run on there, and none of them can move."
                );
                confirm::type_name(&name)?;
            }
            let serial = serial.unwrap_or_default();
            let request = ExpelCertificateRequest { name, serial, force };
            let expel =
                async |client: Client| client.enrolment().expel_certificate(request.clone()).await;
            let answer = context.call(expel).await?.into_inner();
            let expelled = answer.certificate.ok_or(Failure::Answer("certificate"))?;
            let text = || format!("{} is expelled", render::expelled::name(&expelled));
            context.print(text, || render::json::expelled(std::slice::from_ref(&expelled)));
        }
        Certificate::Readmit { name, serial } => {
            let serial = serial.unwrap_or_default();
            let request = ReadmitCertificateRequest { name, serial };
            let readmit = async |client: Client| {
                client.enrolment().readmit_certificate(request.clone()).await
            };
            context.call(readmit).await?;
            let text = || format!("{} is readmitted", request.name);
            context.print(text, || render::json::expelled(&[]));
        }
        Certificate::List => {
            let list = async |client: Client| {
                let request = ListExpelledCertificatesRequest {};
                client.enrolment().list_expelled_certificates(request).await
            };
            let all = context.call(list).await?.into_inner().certificates;
            let table = || render::expelled::list(&all, now_unix_ms());
            context.print(table, || render::json::expelled(&all));
        }
    }
    Ok(Code::Done)
}
