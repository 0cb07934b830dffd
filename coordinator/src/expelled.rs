//! The keeper of the list of those who are expelled: what is applied of the log is what handshakes look at, here as at
//! every other coordinator, whichever leads.

use rackferry_tls::Tls;
use tokio::sync::watch;

use crate::{
    raft::{Applied, Metrics},
    service::denial,
};

/// Takes up the list with every change of the log, until the log ends.
pub async fn keep(tls: Tls, applied: Applied, mut metrics: watch::Receiver<Metrics>) {
    let mut known = None;
    loop {
        let records = applied.expelled();
        if known.as_ref() != Some(&records) {
            let ended = tls.expel(records.iter().map(denial));
            if known.is_some() || !records.is_empty() {
                let expelled = records.len();
                tracing::info!(expelled, ended, "the list of expelled certificates is in use");
            }
            known = Some(records);
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
