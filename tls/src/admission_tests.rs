use super::*;
use crate::Role;

fn port(limits: Limits) -> Admission {
    Admission::new(limits)
}

/// A ticket as `accept` gives it, or none.
fn ticket(admission: &Admission, from: &str) -> Option<Ticket> {
    let address = prefix(from.parse().unwrap());
    admission.begin(address).then(|| Ticket {
        admission: admission.clone(),
        address,
        _permit: None,
        used: false,
    })
}

fn refused(admission: &Admission) -> [u64; 5] {
    admission.refusals().map(|(_, count)| count)
}

#[test]
fn an_address_has_its_share_of_handshakes_and_no_other_is_the_poorer() {
    let admission = port(Limits { handshakes_per_address: 2, ..Limits::default() });
    let (one, two) = (ticket(&admission, "10.0.0.1"), ticket(&admission, "10.0.0.1"));
    assert!(one.is_some() && two.is_some() && ticket(&admission, "10.0.0.1").is_none());
    assert!(ticket(&admission, "10.0.0.2").is_some());
    drop(one);
    assert!(ticket(&admission, "::ffff:10.0.0.1").is_some(), "the same address, and free again");
    // Three were dropped before they had said what they are.
    assert_eq!(refused(&admission), [1, 3, 0, 0, 0]);
}

#[test]
fn an_ipv6_network_is_one_address() {
    let admission = port(Limits { handshakes_per_address: 1, ..Limits::default() });
    let _one = ticket(&admission, "2001:db8::1").unwrap();
    assert!(ticket(&admission, "2001:db8::2:1").is_none());
    assert!(ticket(&admission, "2001:db8:0:1::1").is_some());
}

#[test]
fn a_holder_has_its_quota_and_gets_it_back() {
    let limits = Limits { connections: 3, connections_per_identity: 2, ..Limits::default() };
    let admission = port(limits);
    let (a, b) = (Identity::new(Role::Agent, "a"), Identity::new(Role::Agent, "b"));
    let known = |who: &Identity| ticket(&admission, "10.0.0.1").unwrap().known(who);
    let places = [known(&a).unwrap(), known(&a).unwrap()];
    assert_eq!(known(&a).unwrap_err(), Refused::Identity);
    let last = known(&b).unwrap();
    assert_eq!(known(&b).unwrap_err(), Refused::Connections);
    drop((places, last));
    assert!(known(&a).is_ok());
    assert_eq!(refused(&admission), [0, 0, 1, 1, 0]);
    let counts = admission.counts();
    assert!(counts.known.each.is_empty() && counts.handshakes.each.is_empty());
}

#[test]
fn newcomers_have_places_of_their_own_and_an_address_a_quarter_of_them() {
    let admission = port(Limits { newcomers: 8, connections: 1, ..Limits::default() });
    let come = |from: &str| ticket(&admission, from).unwrap().newcomer();
    let places: Vec<_> = ["1", "1", "2", "2", "3", "3", "4", "4"]
        .map(|last| come(&format!("10.0.0.{last}")).unwrap())
        .into();
    assert_eq!(come("10.0.0.5").unwrap_err(), Refused::Newcomers);
    drop(places);
    let _two = [come("10.0.0.1").unwrap(), come("10.0.0.1").unwrap()];
    assert_eq!(come("10.0.0.1").unwrap_err(), Refused::Newcomers);
    assert!(ticket(&admission, "10.0.0.1").unwrap().unnamed().is_ok());
}
