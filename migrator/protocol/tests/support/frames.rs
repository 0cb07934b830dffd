//! What must hold for any bytes a peer sends as a frame, and good frames to damage. The fuzz target and the tests over
//! damaged frames share it.

use rackferry_migrator_protocol::frame::{
    Ack, BatchHead, BatchView, ClaimReply, ClaimRequest, Digest, FETCH_ABSENT, FETCH_PENDING,
    FETCH_PRESENT, FetchReplyHead, FetchReplyView, FetchRequest, Forget, FromSource, FromTarget,
    HEADER_LEN, Header, Hello, HoldBack, Holder, Kind, Lost, MAX_BATCH_PAGES, MAX_CLAIM_DIGESTS,
    MAX_FETCH_DIGESTS, Revoke, Role, RunKind, SupplyView, encode_supply, put_frame,
};

/// Decodes what `read` takes and checks that it reads the same when it is written again.
macro_rules! same_again {
    ($read:expr, $payload:expr) => {
        if let Ok(frame) = $read($payload) {
            let mut bytes = Vec::new();
            let _ = frame.encode(&mut bytes);
            assert!(bytes.len() <= $payload.len(), "a frame grew");
            assert!(
                $read(&bytes).as_ref() == Ok(&frame),
                "{frame:?} reads differently when written"
            );
        }
    };
}

/// A whole frame: its header decides how the payload is read. No input may panic, and none may make a decoder believe in
/// more than its bytes hold.
pub fn frame(data: &[u8]) {
    let Some((head, payload)) = data.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(header) = Header::decode(head) else { return };
    // A fuzzer cannot guess checksums; whether the payload passes is not what is tried here.
    let _ = header.check(payload);
    self::payload(header.kind, &payload[..payload.len().min(header.len)]);
}

/// The payload of a frame of this kind.
pub fn payload(kind: Kind, payload: &[u8]) {
    match kind {
        Kind::Hello => same_again!(Hello::decode, payload),
        Kind::Batch => batch(payload),
        Kind::Supply => supply(payload),
        Kind::Claim => {
            same_again!(ClaimRequest::decode, payload);
            let claimed = ClaimRequest::decode(payload).map_or(0, |claim| claim.tokens.len());
            assert!(claimed <= MAX_CLAIM_DIGESTS);
        }
        Kind::ClaimReply => same_again!(ClaimReply::decode, payload),
        Kind::Fetch => {
            same_again!(FetchRequest::decode, payload);
            let wanted = FetchRequest::decode(payload).map_or(0, |fetch| fetch.wanted.len());
            assert!(wanted <= MAX_FETCH_DIGESTS);
        }
        Kind::FetchReply => {
            if let Ok(reply) = FetchReplyView::decode(payload) {
                let present = reply.states.iter().filter(|state| **state == FETCH_PRESENT).count();
                assert_eq!(reply.pages.len(), present * 4096);
            }
        }
        Kind::Forget => same_again!(Forget::decode, payload),
        Kind::Revoke => same_again!(Revoke::decode, payload),
        Kind::HoldBack => same_again!(HoldBack::decode, payload),
        _ => {
            same_again!(|bytes: &[u8]| FromSource::decode(kind, bytes), payload);
            same_again!(|bytes: &[u8]| FromTarget::decode(kind, bytes), payload);
        }
    }
}

fn batch(payload: &[u8]) {
    let Ok(view) = BatchView::decode(payload) else { return };
    let (mut raw, mut references) = (0, 0);
    for run in view.runs() {
        assert!(run.count > 0 && run.first.checked_add(run.count).is_some());
        match run.kind {
            RunKind::Zero => {}
            RunKind::Raw => raw += run.count as usize,
            RunKind::Reference => references += run.count as usize,
        }
    }
    assert_eq!((raw, references), (view.raw_pages, view.references()));
    assert!(raw + references <= MAX_BATCH_PAGES);
    for index in 0..view.references() {
        let _ = view.reference(index);
    }
    assert!(view.zstd || view.data.len() == raw * 4096);
}

fn supply(payload: &[u8]) {
    let Ok(view) = SupplyView::decode(payload) else { return };
    assert_eq!(view.entries().count(), view.pages());
    assert!(view.pages() <= MAX_BATCH_PAGES);
    assert!(view.zstd || view.data.len() == view.pages() * 4096);
}

/// Good frames of every kind.
pub fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let holder = Holder { host: 7, session: 9 };
    let mut all = Vec::new();
    let mut add = |name, kind, payload: &[u8]| {
        let mut frame = Vec::new();
        put_frame(kind, payload, &mut frame);
        all.push((name, frame));
    };
    let session = Role::Session { session: 3, generation: 4, migration_id: "mig-3".to_owned() };
    for (name, role) in [
        ("hello-session", session),
        ("hello-neighbour", Role::Neighbour),
        ("hello-accepted", Role::Accepted),
    ] {
        let mut payload = Vec::new();
        Hello { host_id: 1, role }.encode(&mut payload);
        add(name, Kind::Hello, &payload);
    }
    add("batch", Kind::Batch, &good_batch(holder));
    let mut payload = Vec::new();
    encode_supply(&[Lost { seq: 1, index: 2 }], false, 4096, &mut payload);
    payload.extend_from_slice(&[5; 4096]);
    add("supply", Kind::Supply, &payload);
    for (name, frame) in [
        ("stream", FromSource::Stream { boundary: true, bytes: vec![1, 2, 3] }),
        ("ram-start", FromSource::RamStart(vec![4; 40])),
        ("ram-end", FromSource::RamEnd),
        ("fallback", FromSource::Fallback { last: Some((1, 2)) }),
        ("go", FromSource::Go),
        ("abort", FromSource::Abort("no".to_owned())),
    ] {
        let mut payload = Vec::new();
        let kind = frame.encode(&mut payload);
        add(name, kind, &payload);
    }
    for (name, frame) in [
        ("ack", FromTarget::Ack(Ack { received: 8, resolved: vec![1, 5, 7] })),
        (
            "missing",
            FromTarget::Missing(vec![Lost { seq: 1, index: 2 }, Lost { seq: 3, index: 4 }]),
        ),
        ("return-path", FromTarget::ReturnPath(vec![0, 2, 0, 4, 0, 0, 0, 1])),
        ("loaded", FromTarget::Loaded(Some([3; 32]))),
        ("running", FromTarget::Running),
    ] {
        let mut payload = Vec::new();
        let kind = frame.encode(&mut payload);
        add(name, kind, &payload);
    }
    neighbours(holder, &mut add);
    all
}

fn good_batch(holder: Holder) -> Vec<u8> {
    let mut head = BatchHead::default();
    (0..5).for_each(|page| head.zero(0, page));
    head.raw(0, 5);
    head.raw(0, 6);
    assert!(head.reference(1, 0, Digest([8; 16]), holder));
    assert!(head.reference(1, 1, Digest([9; 16]), Holder { host: 8, session: 10 }));
    let mut payload = Vec::new();
    head.encode(12, false, Some(Digest([1; 16])), 8192, &mut payload);
    payload.extend_from_slice(&[6; 8192]);
    payload
}

fn neighbours(holder: Holder, add: &mut impl FnMut(&'static str, Kind, &[u8])) {
    let mut payload = Vec::new();
    let digests = vec![Digest([1; 16]), Digest([2; 16])];
    ClaimRequest { request: 1, crossing: 2, claimant: holder, tokens: digests }
        .encode(&mut payload);
    add("claim", Kind::Claim, &payload);
    payload.clear();
    ClaimReply { request: 1, answers: vec![None, Some(holder)] }.encode(&mut payload);
    add("claim-reply", Kind::ClaimReply, &payload);
    payload.clear();
    FetchRequest { request: 2, wanted: vec![(Digest([1; 16]), 3), (Digest([2; 16]), 4)] }
        .encode(&mut payload);
    add("fetch", Kind::Fetch, &payload);
    payload.clear();
    let states = vec![FETCH_PENDING, FETCH_PRESENT, FETCH_ABSENT];
    FetchReplyHead { request: 2, states }.encode(&mut payload);
    payload.extend_from_slice(&[7; 4096]);
    add("fetch-reply", Kind::FetchReply, &payload);
    payload.clear();
    Forget { crossing: 2, claims: vec![(Digest([1; 16]), holder)] }.encode(&mut payload);
    add("forget", Kind::Forget, &payload);
    payload.clear();
    Revoke { session: 9 }.encode(&mut payload);
    add("revoke", Kind::Revoke, &payload);
    payload.clear();
    HoldBack { millis: 250 }.encode(&mut payload);
    add("hold-back", Kind::HoldBack, &payload);
}
