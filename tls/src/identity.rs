//! An identity names a program or a person of the site: a role and a name, as a certificate states them.
//!
//! The subject of a certificate has the role as its organisation and the name as its common name. The certificates of
//! agents and coordinators, which others call, have the role as a DNS name too, so that a caller checks it like a web
//! server's: they are reached by addresses that may change, and the address is not what matters.

use std::{fmt, str::FromStr};

use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// The longest name, as in X.509.
pub const NAME_LIMIT: usize = 64;

/// A role says what the holder of a certificate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The agent of the host it is named after.
    Agent,
    /// A coordinator.
    Coordinator,
    /// A person or a program that may look.
    Viewer,
    /// A person or a program that may move VMs, too.
    Operator,
    /// A person or a program that may change the site, too.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::Agent, Self::Coordinator, Self::Viewer, Self::Operator, Self::Admin];

    /// The role's name in certificates and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Coordinator => "coordinator",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The DNS name in the certificates of a role that others call.
    pub const fn server_name(self) -> Option<&'static str> {
        match self {
            Self::Agent => Some("agent.rackferry.internal"),
            Self::Coordinator => Some("coordinator.rackferry.internal"),
            Self::Viewer | Self::Operator | Self::Admin => None,
        }
    }

    /// The same for TLS. A role that is never called gets a name that no certificate has.
    pub(crate) fn called(self) -> ServerName<'static> {
        let name = self.server_name().unwrap_or("no-server.rackferry.internal");
        ServerName::try_from(name).expect("the names above are DNS names")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no role.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0} is no role; there are agent, coordinator, viewer, operator and admin")]
pub struct NotARole(String);

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Self, NotARole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NotARole(text.to_owned()))
    }
}

/// An identity: what a certificate states about its holder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What the holder may do.
    pub role: Role,
    /// The name of the holder; an agent has the name of its host.
    pub name: String,
}

/// A certificate does not state an identity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The certificate is none.
    #[error("it is no X.509 certificate")]
    Malformed,
    /// The certificate states no role.
    #[error("it has no role: the organisation in its subject must be one")]
    Role(#[source] NotARole),
    /// The certificate states no name.
    #[error("it has no name: the common name in its subject must be there once")]
    Name,
}

impl Identity {
    /// Makes an identity of a role and a name.
    pub fn new(role: Role, name: impl Into<String>) -> Self {
        Self { role, name: name.into() }
    }

    /// Reads the identity that a certificate states. Whether it is to be believed is for TLS to check.
    ///
    /// # Errors
    /// If it is no certificate, or states no role or no name.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
        let subject = parsed.subject();
        let role = only(subject, X509Name::iter_organization).unwrap_or_default();
        let role = role.parse().map_err(IdentityError::Role)?;
        let name = only(subject, X509Name::iter_common_name).ok_or(IdentityError::Name)?;
        Ok(Self { role, name: name.to_owned() })
    }
}

/// The value of an attribute that is there once.
fn only<'a, I>(name: &'a X509Name<'a>, attribute: impl Fn(&'a X509Name<'a>) -> I) -> Option<&'a str>
where
    I: Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
{
    let mut values = attribute(name);
    let value = values.next()?.as_str().ok()?;
    values.next().is_none().then_some(value)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_back() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn what_is_no_certificate_names_nobody() {
        let nothing = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(Identity::of(&nothing), Err(IdentityError::Malformed));
    }
}
