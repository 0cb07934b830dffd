//! init, issue, and the certificate the command itself shows.

use std::path::{Path, PathBuf};

use rackferry_tls::{
    Authority, Identity, Role, Tls,
    authority::{AuthorityError, LIFE},
};
use time::Duration;

use crate::{
    args::{Init, Issue, IssuedRole},
    exit::{Code, Failure},
};

/// Whom the first coordinator's certificate names, and its folder.
const COORDINATOR: &str = "coordinator";
/// The name in the first admin's certificate, and its folder.
const ADMIN: &str = "admin";

/// The roles of clients.
const PEOPLE: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

/// The certificate to show: of the folder that is named, or of the usual one. None if TLS is off.
///
/// # Errors
/// If there is none, or it is no good.
pub fn own(tls: Option<&str>) -> Result<Option<Tls>, Failure> {
    let dir = match tls {
        Some("off") => return Ok(None),
        Some(dir) => PathBuf::from(dir),
        None => {
            let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
            home.join(".config/rackferry")
        }
    };
    if !dir.exists() {
        return Err(Failure::NoCertificate(dir.display().to_string()));
    }
    Ok(Some(Tls::open(&dir, &PEOPLE).map_err(AuthorityError::from)?))
}

/// Makes a site.
pub fn init(args: &Init) -> Result<Code, Failure> {
    let Init { dir } = args;
    let authority = Authority::create(dir)?;
    let (coordinator, admin) = (dir.join(COORDINATOR), dir.join(ADMIN));
    issue_coordinator(&authority, &coordinator, COORDINATOR, LIFE)?;
    authority.issue(&admin, &Identity::new(Role::Admin, ADMIN), LIFE)?;
    println!(
        "{0}: the CA of the site. The holder of ca.key decides which programs and people belong to it.\n\
         {1}: for the coordinator; set `dir` in its [tls] to a copy that it owns.\n\
         {2}: for you; copy it to ~/.config/rackferry, or name it by --tls.",
        dir.display(),
        coordinator.display(),
        admin.display(),
    );
    Ok(Code::Done)
}

/// Makes a certificate.
pub fn issue(args: &Issue) -> Result<Code, Failure> {
    let Issue { role, name, ca, out, days } = args;
    let authority = Authority::load(ca)?;
    let dir = out.clone().unwrap_or_else(|| ca.join(name));
    let life = Duration::days((*days).into());
    let person = match role {
        IssuedRole::Coordinator => {
            issue_coordinator(&authority, &dir, name, life)?;
            println!("{}", dir.display());
            return Ok(Code::Done);
        }
        IssuedRole::Viewer => Role::Viewer,
        IssuedRole::Operator => Role::Operator,
        IssuedRole::Admin => Role::Admin,
    };
    authority.issue(&dir, &Identity::new(person, name), life)?;
    println!("{}", dir.display());
    Ok(Code::Done)
}

/// A coordinator gets the CA's key too, so that hosts can join whichever leads.
fn issue_coordinator(
    authority: &Authority,
    dir: &Path,
    name: &str,
    life: Duration,
) -> Result<(), AuthorityError> {
    authority.issue(dir, &Identity::new(Role::Coordinator, name), life)?;
    Ok(authority.lend(dir)?)
}
