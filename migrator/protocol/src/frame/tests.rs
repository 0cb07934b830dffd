use super::*;
use proptest::prelude::*;

fn any_digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 16]>().prop_map(Digest)
}

fn any_holder() -> impl Strategy<Value = Holder> {
    (any::<u32>(), any::<u64>()).prop_map(|(host, session)| Holder { host, session })
}

#[derive(Debug, Clone)]
enum Page {
    Zero,
    Raw(u8),
    Reference(Digest, Holder),
}

fn any_page() -> impl Strategy<Value = Page> {
    prop_oneof![
        Just(Page::Zero),
        any::<u8>().prop_map(Page::Raw),
        (any_digest(), any_holder()).prop_map(|(d, h)| Page::Reference(d, h)),
    ]
}

proptest! {
    #[test]
    fn a_batch_comes_back_page_by_page(
        pages in prop::collection::vec((0u16..3, 0u32..50, any_page()), 0..MAX_BATCH_PAGES),
        seq: u64, root in prop::option::of(any_digest()),
    ) {
        let (mut head, mut data) = (BatchHead::default(), Vec::new());
        for (block, page, kind) in &pages {
            match kind {
                Page::Zero => head.zero(*block, *page),
                Page::Raw(fill) => { head.raw(*block, *page); data.extend_from_slice(&[*fill; 4096]); }
                Page::Reference(d, h) => assert!(head.reference(*block, *page, *d, *h)),
            }
        }
        let mut payload = Vec::new();
        head.encode(seq, false, root, data.len(), &mut payload);
        payload.extend_from_slice(&data);

        let view = BatchView::decode(&payload).expect("our own batch");
        prop_assert_eq!((view.seq, view.root), (seq, root));
        let (mut raw, mut reference, mut got) = (0, 0, Vec::new());
        for run in view.runs() {
            for page in run.first..run.first + run.count {
                got.push((run.block, page, match run.kind {
                    RunKind::Zero => Page::Zero,
                    RunKind::Raw => { raw += 1; Page::Raw(view.data[(raw - 1) * 4096]) }
                    RunKind::Reference => {
                        reference += 1;
                        let (d, h) = view.reference(reference - 1);
                        Page::Reference(d, h)
                    }
                }));
            }
        }
        prop_assert_eq!(format!("{got:?}"), format!("{pages:?}"));
    }

    #[test]
    fn no_payload_makes_a_decoder_panic(kind in 0u8..40, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(kind) = Kind::try_from(kind) {
            let _ = FromSource::decode(kind, &bytes);
            let _ = FromTarget::decode(kind, &bytes);
        }
        let _ = Hello::decode(&bytes);
        let _ = SupplyView::decode(&bytes);
        let _ = ClaimRequest::decode(&bytes);
        let _ = ClaimReply::decode(&bytes);
        let _ = FetchRequest::decode(&bytes);
        let _ = FetchReplyView::decode(&bytes);
        let _ = Forget::decode(&bytes);
        if let Ok(view) = BatchView::decode(&bytes) {
            std::hint::black_box(view.runs().count());
            (0..view.references()).for_each(|i| { std::hint::black_box(view.reference(i)); });
        }
    }

    #[test]
    fn a_damaged_batch_is_refused_or_decoded_but_never_panics(
        flips in prop::collection::vec((0usize..5000, any::<u8>()), 1..6),
    ) {
        let mut head = BatchHead::default();
        head.zero(0, 7);
        head.raw(0, 8);
        assert!(head.reference(1, 9, Digest([3; 16]), Holder { host: 1, session: 2 }));
        let mut payload = Vec::new();
        head.encode(1, false, Some(Digest([9; 16])), 4096, &mut payload);
        payload.extend_from_slice(&[5; 4096]);
        for (at, with) in flips {
            let n = payload.len();
            payload[at % n] ^= with;
        }
        if let Ok(view) = BatchView::decode(&payload) {
            std::hint::black_box(view.runs().count());
            (0..view.references()).for_each(|i| { std::hint::black_box(view.reference(i)); });
        }
    }

    #[test]
    fn neighbour_frames_come_back(
        request: u64, crossing: u64, claimant in any_holder(),
        digests in prop::collection::vec(any_digest(), 0..MAX_CLAIM_DIGESTS),
        answers in prop::collection::vec(prop::option::of(any_holder()), 0..MAX_CLAIM_DIGESTS),
    ) {
        let mut out = Vec::new();
        let claim = ClaimRequest { request, crossing, claimant, tokens: digests.clone() };
        claim.encode(&mut out);
        prop_assert_eq!(ClaimRequest::decode(&out), Ok(claim));
        out.clear();
        let reply = ClaimReply { request, answers };
        reply.encode(&mut out);
        prop_assert_eq!(ClaimReply::decode(&out), Ok(reply));
        out.clear();
        let wanted = digests.iter().take(MAX_FETCH_DIGESTS).map(|d| (*d, crossing)).collect();
        let fetch = FetchRequest { request, wanted };
        fetch.encode(&mut out);
        prop_assert_eq!(FetchRequest::decode(&out), Ok(fetch));
        out.clear();
        let forget = Forget { crossing, claims: digests.iter().map(|d| (*d, claimant)).collect() };
        forget.encode(&mut out);
        prop_assert_eq!(Forget::decode(&out), Ok(forget));
    }
}

#[test]
fn session_frames_come_back() {
    for frame in [
        FromSource::Stream { boundary: true, bytes: vec![1, 2, 3] },
        FromSource::RamStart(vec![4; 40]),
        FromSource::RamEnd,
        FromSource::Fallback { last: Some((3, 4)) },
        FromSource::Fallback { last: None },
        FromSource::Go,
        FromSource::Abort("no room".into()),
    ] {
        let mut out = Vec::new();
        let kind = frame.encode(&mut out);
        assert_eq!(FromSource::decode(kind, &out), Ok(frame));
    }
    for frame in [
        FromTarget::Ack(Ack { received: 9, resolved: vec![7, 5] }),
        FromTarget::Missing(vec![Lost { seq: 4, index: 2 }]),
        FromTarget::ReturnPath(vec![0, 2]),
        FromTarget::Loaded(None),
        FromTarget::Loaded(Some([8; 32])),
        FromTarget::Running,
        FromTarget::Abort("QEMU died".into()),
    ] {
        let mut out = Vec::new();
        let kind = frame.encode(&mut out);
        assert_eq!(FromTarget::decode(kind, &out), Ok(frame));
    }
}

#[test]
fn hello_of_another_version_is_refused_by_name() {
    let role = Role::Session { session: 1, generation: 2, migration_id: "m-1".into() };
    let hello = Hello { host_id: 4, role };
    let mut out = Vec::new();
    hello.encode(&mut out);
    assert_eq!(Hello::decode(&out), Ok(hello));
    out[0] = 9;
    assert_eq!(Hello::decode(&out), Err(FrameError::Version { theirs: 9 }));
}

#[test]
fn a_header_is_checked_before_its_length_is_believed() {
    let mut frame = Vec::new();
    put_frame(Kind::Stream, b"abc", &mut frame);
    let head: [u8; HEADER_LEN] = frame[..HEADER_LEN].try_into().expect("header");
    let header = Header::decode(&head).expect("our own header");
    assert_eq!((header.kind, header.len), (Kind::Stream, 3));
    assert_eq!(header.check(b"abc"), Ok(()));
    assert_eq!(header.check(b"abd"), Err(FrameError::Checksum { kind: Kind::Stream }));

    let mut long = head;
    long[8..12].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
    assert_eq!(Header::decode(&long), Err(FrameError::TooLong(MAX_PAYLOAD + 1)));
    let mut unknown = head;
    unknown[4] = 200;
    assert_eq!(Header::decode(&unknown), Err(FrameError::Kind(200)));
    let mut foreign = head;
    foreign[0] = 0;
    assert!(matches!(Header::decode(&foreign), Err(FrameError::Magic(_))));
}

#[test]
fn lengths_that_no_payload_can_hold_are_refused_before_allocation() {
    let mut claim = Vec::new();
    ClaimRequest {
        request: 1,
        crossing: 2,
        claimant: Holder { host: 1, session: 1 },
        tokens: vec![],
    }
    .encode(&mut claim);
    let n = claim.len();
    claim[n - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(ClaimRequest::decode(&claim), Err(FrameError::Short { .. })));
}

#[test]
fn a_batch_names_at_most_256_holders() {
    let mut head = BatchHead::default();
    for n in 0..256 {
        assert!(head.reference(0, n, Digest([0; 16]), Holder { host: n, session: 0 }));
    }
    assert!(!head.reference(0, 256, Digest([0; 16]), Holder { host: 256, session: 0 }));
    assert!(head.references() == 256);
}

#[test]
fn a_supply_comes_back() {
    let lost = [Lost { seq: 3, index: 1 }, Lost { seq: 4, index: 0 }];
    let mut out = Vec::new();
    encode_supply(&lost, false, 2 * 4096, &mut out);
    out.extend_from_slice(&[1; 2 * 4096]);
    let view = SupplyView::decode(&out).expect("our own supply");
    assert_eq!(view.entries().collect::<Vec<_>>(), lost);
    out.pop();
    assert!(SupplyView::decode(&out).is_err());
}
