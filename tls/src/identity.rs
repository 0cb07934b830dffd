//! Who somebody is: a role and a name, as a certificate says them.
//!
//! The subject of a certificate has the role as its organisation and the name as its common name. Those that others
//! call have the role as a DNS name too, so that whoever calls checks it as he would check a web server's: they
//! are reached by addresses that may change, and what matters is not the address.

use std::{fmt, str::FromStr};

use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// The longest name, as in X.509.
pub const NAME_LIMIT: usize = 64;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The agent of the host it is named after.
    Agent,
    /// A coordinator.
    Coordinator,
    /// Somebody who may look.
    Viewer,
    /// Somebody who may move VMs, too.
    Operator,
    /// Somebody who may change the site, too.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Agent, Self::Coordinator, Self::Viewer, Self::Operator, Self::Admin];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Coordinator => "coordinator",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The DNS name in the certificates of those that others call.
    pub const fn server_name(self) -> Option<&'static str> {
        match self {
            Self::Agent => Some("agent.rackferry.internal"),
            Self::Coordinator => Some("coordinator.rackferry.internal"),
            Self::Viewer | Self::Operator | Self::Admin => None,
        }
    }

    /// The same for TLS; nobody has an empty one.
    pub(crate) fn called(self) -> ServerName<'static> {
        let name = self.server_name().unwrap_or("nobody.rackferry.internal");
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

/// Who somebody is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What he may do.
    pub role: Role,
    /// Who he is; of an agent its host.
    pub name: String,
}

/// A certificate does not say who its holder is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// It is no certificate.
    #[error("it is no X.509 certificate")]
    Malformed,
    /// It has no role.
    #[error("it has no role: the organisation in its subject must be one")]
    Role(#[source] NotARole),
    /// It has no name.
    #[error("it has no name: the common name in its subject must be there once")]
    Name,
}

impl Identity {
    /// Somebody.
    pub fn new(role: Role, name: impl Into<String>) -> Self {
        Self { role, name: name.into() }
    }

    /// Who a certificate names. Whether it is to be believed is for TLS to check.
    ///
    /// # Errors
    /// If it names nobody.
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
