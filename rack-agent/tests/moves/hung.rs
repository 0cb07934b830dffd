//! Storage that does not answer: a disk that is a FIFO without a writer, which no open comes back from.

use rackferry_proto::v1;
use rackferry_proto::v1::connect_request::Message as Up;
use rackferry_proto::v1::connect_response::Message as Down;
use rustix::fs::{CWD, Mode, OFlags, mkfifoat, open};

use super::played::Host;
use super::qemus::qemus;
use super::{ID, id, listed, prepare};

/// One thread runs the agent: were it to open the disk itself, no report would come, and no answer.
#[tokio::test]
async fn storage_that_hangs_holds_up_nothing_but_its_own_vm() {
    let Some((_, qemu)) = qemus().into_iter().next() else { return };
    let mut host = Host::start("target", &qemu).await;
    let mut to = host.stream(2).await;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    mkfifoat(CWD, &disk, Mode::RUSR | Mode::WUSR).unwrap();
    let spec =
        format!("name = 'mover'\nmemory = '64MiB'\n[[disk]]\npath = {disk:?}\nreadonly = true\n");
    let check = v1::CheckTarget {
        check: 3,
        vm: "mover".into(),
        spec_toml: spec.clone(),
        ..Default::default()
    };
    to.order(Down::CheckTarget(check)).await;
    to.hears(|up| matches!(up, Up::HostReport(_))).await;
    let Up::CheckReport(report) = to.hears(|up| matches!(up, Up::CheckReport(_))).await else {
        unreachable!()
    };
    let causes: Vec<_> = report.findings.iter().map(|f| (f.code(), f.cause.as_str())).collect();
    let cause = format!("{}: its storage does not answer", disk.display());
    assert!(causes.contains(&(v1::FindingCode::File, &cause)), "{causes:?}");

    // The copy that is discarded while its storage is looked at does not appear afterwards.
    let come_back = || open(&disk, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty());
    drop(come_back().unwrap());
    to.order(prepare(&spec)).await;
    let discard = v1::DiscardTarget { migration_id: id(), reason: String::new() };
    to.order(Down::DiscardTarget(discard)).await;
    to.hears(|up| matches!(up, Up::Ended(end) if end.reason.contains("does not answer"))).await;
    to.hears(|up| matches!(up, Up::TargetDiscarded(gone) if gone.migration_id == ID)).await;
    assert_eq!(listed(&host).await, []);
    let _ = come_back();
}
