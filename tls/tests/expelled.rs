//! Certificates of a site that are expelled: open connections, and new ones, at both ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::Site;
use rackferry_tls::{Expelled, LinkError, Purpose, Role, Stream, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

type Linked = Result<Stream<DuplexStream>, LinkError>;

/// A link from one to another, at both ends.
async fn link(from: &Tls, to: &Tls) -> (Linked, Linked) {
    let (calling, called) = common::link(from, to, Role::Agent, Purpose::Pages).await;
    (calling.map(|(stream, _)| stream), called.map(|(stream, _)| stream))
}

/// The certificate of an agent.
fn issue(site: &Site, name: &str) -> Tls {
    site.issue(Role::Agent, name)
}

fn name(name: &str) -> [Expelled; 1] {
    [Expelled { name: name.to_owned(), serial: None }]
}

#[tokio::test]
async fn open_connections_of_the_expelled_end_and_no_others_do() {
    let site = Site::new();
    let (own, bad, good) = (issue(&site, "own"), issue(&site, "bad"), issue(&site, "good"));
    // It waits for what never comes: it is woken.
    let (_far, called) = link(&bad, &own).await;
    let mut called = called.unwrap();
    let (calling, _far_too) = link(&own, &bad).await;
    let mut calling = calling.unwrap();
    let (kept, other) = link(&good, &own).await;
    let (mut kept, mut other) = (kept.unwrap(), other.unwrap());
    let waits = tokio::spawn(async move { called.read_u8().await.unwrap_err() });
    let waits_too = tokio::spawn(async move { calling.read_u8().await.unwrap_err() });
    tokio::task::yield_now().await;
    assert_eq!(own.expel(name("bad")), 2);
    for waits in [waits, waits_too] {
        assert_eq!(waits.await.unwrap().kind(), std::io::ErrorKind::ConnectionAborted);
    }
    other.write_u8(7).await.unwrap();
    other.flush().await.unwrap();
    assert_eq!(kept.read_u8().await.unwrap(), 7);
}

#[tokio::test]
async fn the_expelled_are_refused_at_both_ends_and_learn_why_until_they_are_readmitted() {
    let site = Site::new();
    let (own, bad) = (issue(&site, "own"), issue(&site, "bad"));
    own.expel(name("bad"));
    let (calling, called) = link(&bad, &own).await;
    let (calling, called) = (calling.unwrap_err().to_string(), called.unwrap_err().to_string());
    assert!(calling.contains("our certificate is expelled from the site"), "{calling}");
    assert!(called.contains("it is expelled from the site"), "{called}");
    let (calling, _) = link(&own, &bad).await;
    let text = calling.unwrap_err().to_string();
    assert!(text.contains("it is expelled from the site"), "{text}");
    own.expel([]);
    assert!(link(&bad, &own).await.0.is_ok());
}

#[tokio::test]
async fn one_certificate_of_a_name_is_expelled_and_a_newer_one_is_not() {
    let site = Site::new();
    let own = issue(&site, "own");
    let old = issue(&site, "host");
    let (_ends, _here) = link(&old, &own).await;
    // What the other side has shown is known where it was called.
    let serial = serial_of(&site, "host");
    own.expel([Expelled { name: "host".to_owned(), serial: Some(serial) }]);
    assert!(own.denies(&old.own()), "it must not be renewed either");
    assert!(link(&old, &own).await.0.is_err());
    let new = issue(&site, "host");
    assert!(!own.denies(&new.own()));
    assert!(link(&new, &own).await.0.is_ok());
}

/// As `openssl x509 -serial` shows it.
fn serial_of(site: &Site, name: &str) -> String {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    use x509_parser::prelude::{FromDer, X509Certificate};
    let path = site.folder(name).join("cert.pem");
    let der = CertificateDer::from_pem_file(path).unwrap();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    rackferry_tls::trust::serial(&parsed.raw_serial_as_string().to_uppercase()).unwrap()
}
