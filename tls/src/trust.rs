//! Trust is what a program knows beyond the CA: which certificates are expelled, and which connections are open. A
//! connection of a certificate that is expelled ends at once, and no new one is made.

use std::{
    collections::{BTreeSet, HashMap},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use rustls::pki_types::CertificateDer;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Identity, identity::IdentityError};

/// An expelled name, or one certificate of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expelled {
    /// The name of the holder, of whichever role.
    pub name: String,
    /// The serial number of the certificate as [`serial`] writes it; none: every certificate of the name.
    pub serial: Option<String>,
}

/// What a certificate shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The holder.
    pub identity: Identity,
    /// The serial number as [`serial`] writes it.
    pub serial: String,
}

impl Shown {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let identity = Identity::of(certificate)?;
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| IdentityError::Malformed)?;
        Ok(Self { identity, serial: serial(&parsed.raw_serial_as_string()).unwrap_or_default() })
    }
}

/// A serial number the way it is compared: hexadecimal, lower case, without colons and leading zeros. None if the text is
/// no serial number.
pub fn serial(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|&c| c != ':').collect();
    // 20 bytes at most in X.509, with a leading zero.
    let good = (1..=42).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit());
    good.then(|| digits.trim_start_matches('0').to_ascii_lowercase())
}

/// What a program knows beyond the CA. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Held for a look only, never over an await.
    expelled: RwLock<Arc<BTreeSet<Expelled>>>,
    /// The same.
    open: Mutex<HashMap<u64, Open>>,
    last: AtomicU64,
}

#[derive(Debug)]
struct Open {
    shown: Shown,
    /// Where the peer was called; none if it has called.
    dialled: Option<String>,
    cut: Arc<Cut>,
}

#[derive(Debug, Default)]
struct Cut {
    done: AtomicBool,
    token: CancellationToken,
}

impl Trust {
    pub(crate) fn expelled(&self) -> Arc<BTreeSet<Expelled>> {
        self.inner.expelled.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn denies(&self, shown: &Shown) -> bool {
        let expelled = self.expelled();
        let has =
            |serial| expelled.contains(&Expelled { name: shown.identity.name.clone(), serial });
        !expelled.is_empty() && (has(None) || has(Some(shown.serial.clone())))
    }

    /// Expels exactly these, and ends their connections; returns how many.
    pub(crate) fn expel(&self, all: BTreeSet<Expelled>) -> usize {
        *self.inner.expelled.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(all);
        let open = self.open();
        let denied = open.values().filter(|one| self.denies(&one.shown));
        denied
            .map(|one| {
                one.cut.done.store(true, Ordering::Release);
                one.cut.token.cancel();
            })
            .count()
    }

    /// The peer of an open connection that was dialled to this address.
    pub(crate) fn dialled(&self, address: &str) -> Option<Shown> {
        let open = self.open();
        let there = open.values().find(|one| one.dialled.as_deref() == Some(address));
        there.map(|one| one.shown.clone())
    }

    /// Notes a connection, unless its peer is expelled.
    pub(crate) fn enter(&self, shown: Shown) -> Option<Guard> {
        let cut = Arc::new(Cut::default());
        let id = self.inner.last.fetch_add(1, Ordering::Relaxed);
        let open = Open { shown: shown.clone(), dialled: None, cut: cut.clone() };
        self.open().insert(id, open);
        let waits = || Box::pin(cut.token.clone().cancelled_owned());
        let guard =
            Guard { trust: self.clone(), id, read: waits(), write: waits(), cut: cut.clone() };
        // It may have been expelled between the handshake and now.
        (!self.denies(&shown)).then_some(guard)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.inner.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's entry among the open ones, until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    trust: Trust,
    id: u64,
    cut: Arc<Cut>,
    read: Pin<Box<WaitForCancellationFutureOwned>>,
    write: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Each half of a connection may have a task of its own to wake.
#[derive(Clone, Copy)]
pub(crate) enum Half {
    Read,
    Write,
}

impl Guard {
    /// Notes where the peer was called.
    pub(crate) fn dialled(&self, address: &str) {
        if let Some(open) = self.trust.open().get_mut(&self.id) {
            open.dialled = Some(address.to_owned());
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.done.load(Ordering::Acquire)
    }

    /// Ready once the connection is to end.
    pub(crate) fn poll_cut(&mut self, half: Half, cx: &mut Context<'_>) -> Poll<()> {
        match half {
            Half::Read => self.read.as_mut().poll(cx),
            Half::Write => self.write.as_mut().poll(cx),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.trust.open().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    fn shown(name: &str, serial: &str) -> Shown {
        Shown { identity: Identity::new(Role::Agent, name), serial: serial.to_owned() }
    }

    fn expelled(name: &str, serial: Option<&str>) -> Expelled {
        Expelled { name: name.to_owned(), serial: serial.map(str::to_owned) }
    }

    #[test]
    fn a_serial_number_is_the_same_however_it_is_written() {
        for text in ["0A:bc", "abc", "ABC", "00:0a:BC"] {
            assert_eq!(serial(text).as_deref(), Some("abc"), "{text}");
        }
        for wrong in ["", "xyz", "12 34", &"1".repeat(43)] {
            assert_eq!(serial(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_is_expelled_with_all_its_certificates_or_with_one() {
        let trust = Trust::default();
        let (open, other) = (trust.enter(shown("h1", "1")), trust.enter(shown("h2", "2")));
        let (open, other) = (open.unwrap(), other.unwrap());
        assert_eq!(trust.expel([expelled("h1", None), expelled("h2", Some("3"))].into()), 1);
        assert!(open.is_cut() && !other.is_cut());
        assert!(trust.denies(&shown("h1", "9")) && trust.denies(&shown("h2", "3")));
        assert!(trust.enter(shown("h1", "1")).is_none());
        assert_eq!(trust.open().len(), 2, "what is refused is not kept");
        drop((open, other));
        trust.expel(BTreeSet::new());
        assert!(trust.enter(shown("h1", "1")).is_some() && trust.open().is_empty());
    }
}
