//! Expelling certificates: what may be expelled, and how it is shown.

use rackferry_fleet::{ExpelledRecord, Moment};
use rackferry_proto::{
    Reason, refuse,
    v1::{ExpelCertificateRequest, ExpelledCertificate},
};
use rackferry_tls::{Expelled, Tls, grpc::Caller, identity::NAME_LIMIT, trust};
use tonic::Status;

use super::majority::Voters;

/// What is asked for, checked.
pub fn requested(name: String, serial: &str) -> Result<Expelled, Status> {
    let length = name.chars().count();
    if length == 0 || length > NAME_LIMIT || name.chars().any(char::is_control) {
        let text = format!("a certificate has a name of 1 to {NAME_LIMIT} characters");
        return Err(refuse(Reason::InvalidArgument, text));
    }
    let serial = match serial {
        "" => None,
        text => Some(trust::serial(text).ok_or_else(|| {
            let text = "a serial number is hexadecimal: openssl x509 -noout -serial -in cert.pem";
            refuse(Reason::InvalidArgument, text)
        })?),
    };
    Ok(Expelled { name, serial })
}

/// Refuses what would shut out the caller, or leave no majority of coordinators, unless it is forced.
///
/// # Errors
/// The refusal says what `--force` would do.
pub fn check(
    request: &ExpelCertificateRequest,
    expelled: &Expelled,
    caller: Option<&Caller>,
    tls: Option<&Tls>,
    voters: Voters,
) -> Result<(), Status> {
    if request.force {
        return Ok(());
    }
    if let Some(Caller::Known(shown)) = caller
        && shown.identity.name == expelled.name
    {
        let identity = &shown.identity;
        let text = format!(
            "this is the certificate of {identity}, whom it would expel: ask another admin. --force expels it all the same"
        );
        return Err(refuse(Reason::NotPermitted, text));
    }
    let Some(tls) = tls else { return Ok(()) };
    let concerns = |addr: &str| {
        // One that was not called is this one, or does not answer anyway.
        let shown = tls.dialled(addr).unwrap_or_else(|| tls.own());
        let is = expelled.serial.as_ref().is_none_or(|serial| *serial == shown.serial);
        is && shown.identity.name == expelled.name
    };
    let instead = "Issue that coordinator another certificate first, or remove it (rackferry cluster remove). --force \
                   expels it all the same.";
    let what = format!("expelling {}", expelled.name);
    voters.silenced(|_, addr| concerns(addr)).check_majority(&what, instead)
}

/// The record that expels, as the caller asks for it.
pub fn record(expelled: Expelled, caller: Option<&Caller>, at: Moment) -> ExpelledRecord {
    let by = match caller {
        Some(Caller::Known(shown)) => shown.identity.to_string(),
        _ => String::new(),
    };
    ExpelledRecord { name: expelled.name, serial: expelled.serial, by, at }
}

/// A record as clients and agents see it.
pub fn view(record: ExpelledRecord) -> ExpelledCertificate {
    let ExpelledRecord { name, serial, by, at } = record;
    ExpelledCertificate {
        name,
        serial: serial.unwrap_or_default(),
        by,
        expelled_unix_ms: at.unix_ms(),
    }
}

/// A record as the handshakes look at it.
pub fn denial(record: &ExpelledRecord) -> Expelled {
    Expelled { name: record.name.clone(), serial: record.serial.clone() }
}
