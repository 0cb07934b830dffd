//! Two programs of a site, or not of one site.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use common::Site;
use rackferry_tls::{
    Accepted, Authority, FileError, Identity, LinkError, Purpose, Role, Stream, Tls, Token,
    authority::LIFE, links,
};
use time::Duration;
use tokio::io::DuplexStream;

type Ends = (Result<Identity, LinkError>, Result<Identity, LinkError>);

/// Links one to another, and returns the identity that each side has met.
async fn link(from: &Tls, to: &Tls, role: Role, purpose: Purpose) -> Ends {
    let (calling, called) = common::link(from, to, role, purpose).await;
    (calling.map(|(_, met)| met), called.map(|(_, met)| met))
}

/// What both sides of a link that did not come about say.
async fn refused(from: &Tls, to: &Tls, role: Role) -> (String, String) {
    let (calling, called) = link(from, to, role, Purpose::Control).await;
    (calling.unwrap_err().to_string(), called.unwrap_err().to_string())
}

#[tokio::test]
async fn two_of_a_site_know_each_other() {
    let site = Site::new();
    let (agent, coordinator) = (site.issue(Role::Agent, "h1"), site.issue(Role::Coordinator, "c1"));
    for purpose in [Purpose::Control, Purpose::Pages] {
        let (calling, called) = link(&agent, &coordinator, Role::Coordinator, purpose).await;
        assert_eq!(calling.unwrap(), Identity::new(Role::Coordinator, "c1"));
        assert_eq!(called.unwrap(), Identity::new(Role::Agent, "h1"));
    }
}

#[tokio::test]
async fn another_sites_certificate_is_refused_by_both() {
    let (ours, theirs) = (Site::new(), Site::new());
    let (coordinator, foreign) =
        (ours.issue(Role::Coordinator, "c1"), theirs.issue(Role::Agent, "h1"));
    let (calling, _) = refused(&foreign, &coordinator, Role::Coordinator).await;
    assert!(calling.contains("not signed by the CA of this site"), "{calling}");
    // One that trusts our CA, and has a certificate of theirs.
    fs::copy(ours.folder("c1").join("ca.pem"), theirs.folder("h1").join("ca.pem")).unwrap();
    let Err(error) = foreign.reload() else { panic!("it is taken up") };
    assert!(error.to_string().contains("not signed by the CA of this site"), "{error}");
}

#[tokio::test]
async fn who_cannot_be_called_is_not_believed_when_called() {
    let site = Site::new();
    let (agent, admin) = (site.issue(Role::Agent, "h1"), site.issue(Role::Admin, "root"));
    let (calling, _) = link(&agent, &admin, Role::Coordinator, Purpose::Control).await;
    assert!(calling.is_err());
    let (calling, called) = refused(&agent, &agent, Role::Coordinator).await;
    assert!(calling.contains("of another role"), "{calling}");
    assert!(called.contains("refused"), "{called}");
}

#[tokio::test]
async fn one_kind_of_port_is_not_another() {
    let site = Site::new();
    let agent = site.issue(Role::Agent, "h1");
    let (near, far) = tokio::io::duplex(1 << 16);
    let (calling, called) = tokio::join!(
        agent.connect(near, Role::Agent, Purpose::Control),
        agent.accept(far, Purpose::Pages)
    );
    let calling = calling.err().unwrap().to_string();
    assert!(calling.contains("another kind of port"), "{calling}");
    assert!(called.is_err());
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let site = Site::new();
    let coordinator = site.issue(Role::Coordinator, "c1");
    let token = Token::new(&site.authority.pem).unwrap();
    // It knows the CA, and wants to speak gRPC like the others.
    let (near, far) = tokio::io::duplex(1 << 16);
    let (calling, called) =
        tokio::join!(links::join(near, token.authority()), coordinator.accept(far, Purpose::Pages));
    assert!(calling.is_err() && called.is_err());
}

async fn joined(
    coordinator: &Tls,
    authority: [u8; 32],
) -> (Result<Stream<DuplexStream>, LinkError>, bool) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (calling, called) = tokio::join!(links::join(near, authority), coordinator.accept_any(far));
    (calling, matches!(called, Ok(Accepted::Joining(_))))
}

#[tokio::test]
async fn a_newcomer_meets_only_the_site_of_its_token() {
    let (site, other) = (Site::new(), Site::new());
    let coordinator = site.issue(Role::Coordinator, "c1");
    let token = Token::new(&site.authority.pem).unwrap();
    let (calling, newcomer) = joined(&coordinator, token.authority()).await;
    assert!(calling.is_ok() && newcomer);
    let foreign = Token::new(&other.authority.pem).unwrap();
    let (calling, newcomer) = joined(&coordinator, foreign.authority()).await;
    assert!(calling.is_err() && !newcomer);
}

/// The error of opening the folder of an agent after it was changed.
fn spoilt(change: impl Fn(&Site, &Path)) -> String {
    let site = Site::new();
    site.issue(Role::Agent, "h1");
    change(&site, &site.folder("h1"));
    Tls::open(&site.folder("h1"), &[Role::Agent]).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let issue = |role, life| {
        move |site: &Site, dir: &Path| {
            site.authority.issue(dir, &Identity::new(role, "h1"), life).unwrap();
        }
    };
    let error = spoilt(issue(Role::Agent, Duration::seconds(-60)));
    assert!(error.ends_with("cert.pem is no good: it has expired"), "{error}");
    let error = spoilt(issue(Role::Admin, LIFE));
    assert!(error.contains("is the certificate of admin h1"), "{error}");
    let error = spoilt(|_, dir| fs::remove_file(dir.join("cert.pem")).unwrap());
    assert!(error.contains("rackferry-agent join"), "{error}");
    let error = spoilt(|_, dir| fs::write(dir.join("ca.pem"), "nothing").unwrap());
    assert!(error.contains("ca.pem does not hold a certificate in PEM"), "{error}");
    let error = spoilt(|site, dir| {
        site.issue(Role::Agent, "h2");
        fs::copy(site.folder("h2").join("key.pem"), dir.join("key.pem")).unwrap();
    });
    assert!(error.contains("not the certificate of the key beside it"), "{error}");
    let error = spoilt(|_, dir| {
        let path = dir.join("key.pem");
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    });
    assert!(error.contains("chmod 600"), "{error}");
}

#[test]
fn keys_are_their_owners_and_nothing_is_made_twice() {
    let site = Site::new();
    site.issue(Role::Coordinator, "c1");
    site.authority.lend(&site.folder("c1")).unwrap();
    for key in [site.folder("ca.key"), site.folder("c1/key.pem"), site.folder("c1/ca.key")] {
        let mode = fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", key.display());
    }
    assert!(Authority::create(site.dir.path()).is_err());
    assert!(Authority::load(&site.folder("c1")).is_ok());
    for name in ["", "a\nb", &"x".repeat(65)] {
        let holder = Identity::new(Role::Agent, name);
        assert!(site.authority.issue(&site.folder("h"), &holder, LIFE).is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn new_files_are_taken_up_and_bad_ones_are_not() {
    let site = Site::new();
    let (agent, coordinator) = (site.issue(Role::Agent, "h1"), site.issue(Role::Coordinator, "c1"));
    assert!(!agent.reload().unwrap(), "nothing has changed");
    fs::write(site.folder("h1").join("cert.pem"), "half of").unwrap();
    assert!(matches!(agent.reload(), Err(FileError::Malformed { .. })));
    let (_, called) = link(&agent, &coordinator, Role::Coordinator, Purpose::Control).await;
    assert_eq!(called.unwrap().name, "h1");
    let renamed = Identity::new(Role::Agent, "h2");
    site.authority.issue(&site.folder("h1"), &renamed, LIFE).unwrap();
    assert!(agent.reload().unwrap());
    let (_, called) = link(&agent, &coordinator, Role::Coordinator, Purpose::Control).await;
    assert_eq!(called.unwrap(), renamed);
}

/// A certificate that expires while its program runs opens no more connections, also not as part of an old session.
#[tokio::test]
async fn one_that_expires_later_is_refused_later() {
    let site = Site::new();
    let coordinator = site.issue(Role::Coordinator, "c1");
    let holder = Identity::new(Role::Agent, "h1");
    site.authority.issue(&site.folder("h1"), &holder, Duration::seconds(5)).unwrap();
    let agent = Tls::open(&site.folder("h1"), &[Role::Agent]).unwrap();
    let (_, called) = link(&agent, &coordinator, Role::Coordinator, Purpose::Control).await;
    assert!(called.is_ok());
    let left = agent.expires() - time::OffsetDateTime::now_utc().unix_timestamp();
    tokio::time::sleep(std::time::Duration::from_secs(left.unsigned_abs() + 1)).await;
    let (calling, called) = refused(&agent, &coordinator, Role::Coordinator).await;
    assert!(calling.contains("our certificate has expired"), "{calling}");
    assert!(called.contains("it has expired"), "{called}");
}
