//! Which callers are let in at an agent's page port, and which are not: a real process, a coordinator played by the
//! test, and callers of every kind.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod common;
#[path = "qemus/mod.rs"]
mod qemus;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use common::{HOST, KEY, NEIGHBOUR, NEIGHBOUR_ID, Site, wait_for};
use qemus::qemus;
use rackferry_migrator::conn::{self, ConnError};
use rackferry_migrator_protocol::frame::{Hello, Role as Speaks};
use rackferry_proto::v1;
use rackferry_tls::authority::LIFE;
use rackferry_tls::{Authority, Identity, Role, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a rack neighbour's call comes to.
async fn call(site: &Site, host: &str, tls: Option<&Tls>) -> Result<(), ConnError> {
    call_as(site, NEIGHBOUR_ID, host, tls).await
}

async fn call_as(
    site: &Site,
    host_id: u32,
    host: &str,
    tls: Option<&Tls>,
) -> Result<(), ConnError> {
    let hello = Hello { host_id, role: Speaks::Neighbour };
    conn::dial(&site.page_addr, host, &hello, tls).await.map(|_| ())
}

async fn refused(site: &Site, tls: Option<&Tls>) -> String {
    call(site, HOST, tls).await.unwrap_err().to_string()
}

#[tokio::test]
async fn agents_of_the_site_are_let_in_and_nobody_without_a_certificate() {
    let site = Site::start(LIFE).await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    // Once the coordinator has welcomed the agent.
    wait_for(async || call(&site, HOST, Some(&neighbour)).await.is_ok()).await;
    assert!(call(&site, HOST, None).await.is_err());
    let error = call(&site, "another", Some(&neighbour)).await.unwrap_err();
    assert!(matches!(error, ConnError::Stranger(who) if who.name == HOST));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(site.authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"rackferry-pages/1".to_vec()];
    let name = ServerName::try_from("agent.rackferry.internal").unwrap();
    let stream = TcpStream::connect(&site.page_addr).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    let error = stream.read_u8().await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn people_and_coordinators_get_no_pages() {
    let site = Site::start(LIFE).await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    wait_for(async || call(&site, HOST, Some(&neighbour)).await.is_ok()).await;
    for role in [Role::Viewer, Role::Operator, Role::Admin, Role::Coordinator] {
        assert!(call(&site, HOST, Some(&site.issue(role, role.as_str()))).await.is_err());
        let why = format!("the peer is {role} {role}, not the expected agent");
        wait_for(async || site.log().contains(&why)).await;
    }
}

#[tokio::test]
async fn a_neighbour_is_the_member_of_the_rack_that_it_says_it_is() {
    let site = Site::start(LIFE).await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    let other = site.issue(Role::Agent, "other");
    wait_for(async || call(&site, HOST, Some(&neighbour)).await.is_ok()).await;
    assert!(call(&site, HOST, Some(&other)).await.is_err(), "another host's number");
    assert!(call_as(&site, 8, HOST, Some(&neighbour)).await.is_err(), "no number of the rack");
    assert!(call_as(&site, 1, HOST, Some(&other)).await.is_err(), "the called host's own");
    wait_for(async || site.log().contains("the peer is agent other, not the expected agent")).await;
}

/// A call by the numbers of a migration that is expected.
async fn bring(site: &Site, tls: &Tls) -> Result<(), ConnError> {
    let session = Speaks::Session { session: 7, generation: 2, migration_id: "mig-7".to_owned() };
    let hello = Hello { host_id: 7, role: session };
    conn::dial(&site.page_addr, HOST, &hello, Some(tls)).await.map(|_| ())
}

/// A spec that would run a program of its author's here, and how.
async fn poisoned(more: &str, hint: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (program, ran) = (dir.path().join("qemu-evil"), dir.path().join("ran"));
    fs::write(&program, format!("#!/bin/sh\ntouch {}\n", ran.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let more = more.replace("PROGRAM", &program.display().to_string());
    let prepare = v1::PrepareTarget {
        migration_id: "mig-7".to_owned(),
        session: 7,
        vm: "mover".to_owned(),
        generation: 2,
        spec_toml: format!("name = 'mover'\nmemory = '32MiB'\n{more}\n"),
        memory_bytes: 32 << 20,
        options: Some(v1::MigrationOptions::default()),
        source_host: "source".to_owned(),
        ..v1::PrepareTarget::default()
    };
    let site = Site::start_with(LIFE, Some(prepare)).await;
    wait_for(async || site.log().contains("target not prepared")).await;
    let log = site.log();
    assert!(log.contains(hint) && !log.contains("VM added"), "{log}");
    assert!(!ran.exists(), "not even asked for its version");
}

/// What a compromised source could have reported.
#[tokio::test]
async fn a_poisoned_spec_starts_nothing() {
    tokio::join!(
        poisoned("[qemu]\nbinary = 'PROGRAM'", "policy does not allow the QEMU"),
        poisoned("extra_args = ['--incoming', 'exec:PROGRAM']", "--incoming is set by the agent"),
        poisoned("extra_args = ['-netdev', 'tap,id=n,script=PROGRAM']", "not allow -netdev tap"),
        poisoned("extra_args = ['--readconfig', '/srv/x']", "-readconfig in extra_args is refused"),
        poisoned("[[disk]]\npath = '/dev/vda'", "not allow disk.path = /dev/vda"),
        poisoned("serial = 'file:/etc/cron.d/x'", "not allow serial = /etc/cron.d/x"),
    );
}

#[tokio::test]
async fn only_the_host_that_the_coordinator_named_brings_a_vm() {
    if !qemus().iter().any(|(version, _)| *version == "7.2") {
        return;
    }
    let prepare = v1::PrepareTarget {
        migration_id: "mig-7".to_owned(),
        session: 7,
        vm: "mover".to_owned(),
        generation: 2,
        spec_toml: "name = 'mover'\nmemory = '32MiB'\n".to_owned(),
        memory_bytes: 32 << 20,
        options: Some(v1::MigrationOptions::default()),
        source_host: "source".to_owned(),
        ..v1::PrepareTarget::default()
    };
    let site = Site::start_with(LIFE, Some(prepare)).await;
    let (source, other) = (site.issue(Role::Agent, "source"), site.issue(Role::Agent, "other"));
    wait_for(async || site.log().contains("VM added")).await;
    for _ in 0..20 {
        assert!(bring(&site, &other).await.is_err(), "it has the numbers, but is another host");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    wait_for(async || bring(&site, &source).await.is_ok()).await;
    // It hung up at once, so what it brought is nothing.
    wait_for(async || site.log().contains("VM removed")).await;
}

#[tokio::test]
async fn a_certificate_of_another_site_or_of_another_time_gets_no_pages() {
    let site = Site::start(LIFE).await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    wait_for(async || call(&site, HOST, Some(&neighbour)).await.is_ok()).await;
    let foreign = Authority::create(&site.folder("foreign-ca")).unwrap();
    let dir = site.folder("foreign");
    foreign.issue(&dir, &Identity::new(Role::Agent, "neighbour"), LIFE).unwrap();
    // It believes our CA too, so that nothing but the agent is in its way.
    fs::write(dir.join("ca.pem"), format!("{}{}", foreign.pem, site.authority.pem)).unwrap();
    let text = refused(&site, Some(&Tls::open(&dir, &[Role::Agent]).unwrap())).await;
    assert!(text.contains("our certificate is not of its site"), "{text}");

    let brief = site.issue_for(Role::Agent, "brief", time::Duration::seconds(5));
    let over = brief.expires();
    wait_for(async || time::OffsetDateTime::now_utc().unix_timestamp() > over).await;
    let text = refused(&site, Some(&brief)).await;
    assert!(text.contains("our certificate has expired"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_renewed_and_taken_up_while_it_runs() {
    let site = Site::start(time::Duration::days(1)).await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    let first = fs::read(site.folder(HOST).join("cert.pem")).unwrap();
    wait_for(async || site.log().contains("new certificates are in use")).await;
    assert_ne!(fs::read(site.folder(HOST).join("cert.pem")).unwrap(), first);
    wait_for(async || call(&site, HOST, Some(&neighbour)).await.is_ok()).await;
}

#[tokio::test]
async fn secrets_are_not_logged_at_any_level() {
    let site = Site::start(LIFE).await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    // It has the key once it answers.
    wait_for(async || call(&site, HOST, Some(&neighbour)).await.is_ok()).await;
    let log = site.log();
    assert!(log.contains("TRACE"), "it logs all there is");
    let hex: String = KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{KEY:?}");
    let mut secrets = vec![hex.to_uppercase(), hex, KEY.escape_ascii().to_string()];
    secrets.push(list.trim_matches(['[', ']']).to_owned());
    let pem = fs::read_to_string(site.folder(HOST).join("key.pem")).unwrap();
    secrets.extend(pem.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
    for secret in secrets {
        assert!(!log.contains(&secret), "the log has {secret}");
    }
}

#[test]
fn it_does_not_start_unless_tls_is_set_or_off() {
    let (code, log) = common::ends("");
    assert_eq!(code, Some(1));
    assert!(log.contains("rackferry-agent join") && log.contains("tls = \"off\""), "{log}");
}

#[test]
fn it_does_not_start_with_the_certificate_of_another_host() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(&dir.path().join("ca")).unwrap();
    let own = dir.path().join("own");
    authority.issue(&own, &Identity::new(Role::Agent, "another"), LIFE).unwrap();
    let (code, log) = common::ends(&format!("tls = {{ dir = '{}' }}", own.display()));
    assert_eq!(code, Some(1));
    assert!(log.contains("its certificate agent another"), "{log}");
}
