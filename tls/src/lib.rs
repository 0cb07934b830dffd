//! Certificates of a site, and TLS between its programs.
//!
//! A site has one CA. Every program shows a certificate of it, on every link. The certificate states the
//! program's [`Identity`], and nothing else is believed. TLS 1.3 only; sessions are never resumed, so that each
//! connection looks at the certificates anew.
//!
//! * [`admission`]: how many callers a port takes, and of whom.
//! * [`identity`]: roles and names, and how a certificate says them.
//! * [`authority`]: the CA: made once, signs what others ask for.
//! * [`files`]: the three files of a program, and what can be wrong with them.
//! * [`links`]: connections; certificates that change on disk are taken up without a restart.
//! * [`token`]: how a host gets its first certificate.
//! * [`trust`]: certificates that are expelled, and their connections.
//! * [`setting`]: where the files are, or that there is no TLS.
pub mod admission;
pub mod authority;
mod config;
pub mod files;
#[cfg(feature = "grpc")]
pub mod grpc;
mod held;
pub mod identity;
pub mod links;
pub mod setting;
pub mod token;
pub mod trust;
mod verifier;

pub use admission::Admission;
pub use authority::{Authority, Request};
pub use files::FileError;
pub use held::Held;
pub use identity::{Identity, Role};
pub use links::{Accepted, LinkError, Purpose, Stream, Tls};
pub use setting::Setting;
pub use token::Token;
pub use trust::{Expelled, Shown};
