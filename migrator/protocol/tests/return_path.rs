//! Return path messages and barriers.

use proptest::prelude::*;
use rackferry_migrator_protocol::stream::return_path::{
    BarrierError, BarrierId, MAX_BITMAP, Message, ReturnPath, ReturnPathError, ReturnPathEvent,
    ReturnPathParser,
};

fn name() -> impl Strategy<Value = Box<str>> {
    "[a-z0-9:./]{1,255}".prop_map(Into::into)
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any::<u32>().prop_map(Message::Shut),
        any::<u32>().prop_map(Message::Pong),
        any::<u32>().prop_map(Message::ResumeAck),
        Just(Message::SwitchoverAck),
        (prop::option::of(name()), any::<u64>(), any::<u32>())
            .prop_map(|(block, start, len)| Message::ReqPages { block, start, len }),
        (name(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(block, bitmap)| Message::RecvBitmap { block, bitmap: bitmap.into() }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        messages in prop::collection::vec(message(), 0..8),
        piece in 1..700usize,
    ) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        let mut parser = ReturnPathParser::new();
        let mut read = Vec::new();
        for piece in bytes.chunks(piece) {
            parser.push(piece, &mut read).expect("good messages");
        }
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut events = Vec::new();
        let _ = ReturnPath::new().push(&bytes, &mut events);
    }

    #[test]
    fn damaged_messages_are_safe(
        messages in prop::collection::vec(message(), 1..4),
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let _ = ReturnPath::new().push(&bytes, &mut Vec::new());
    }
}

#[test]
fn the_wire_form_is_qemus() {
    let mut bytes = Vec::new();
    Message::SwitchoverAck.encode(&mut bytes);
    Message::Shut(0).encode(&mut bytes);
    Message::ReqPages { block: Some("ab".into()), start: 0x1000, len: 4096 }.encode(&mut bytes);
    let expected = [
        &[0, 7, 0, 0][..],
        &[0, 1, 0, 4, 0, 0, 0, 0],
        &[0, 3, 0, 15, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x10, 0, 2, b'a', b'b'],
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn private_pongs_are_kept_and_shut_stands_out() {
    let mut path = ReturnPath::new();
    let (first, ping) = path.start_barrier().expect("the first");
    let (second, next) = path.start_barrier().expect("the second");
    assert!(ping >= 0x7a00_0000 && next == ping + 1 && first < second);
    let mut bytes = Vec::new();
    for message in [
        Message::Pong(1),
        Message::Pong(ping),
        Message::Pong(next),
        Message::SwitchoverAck,
        Message::Shut(0),
    ] {
        message.encode(&mut bytes);
    }
    let mut events = Vec::new();
    path.push(&bytes, &mut events).expect("good messages");
    assert_eq!(
        events,
        [
            ReturnPathEvent::Forward(Message::Pong(1)),
            ReturnPathEvent::Passed(first),
            ReturnPathEvent::Passed(second),
            ReturnPathEvent::Forward(Message::SwitchoverAck),
            ReturnPathEvent::Shut(0),
        ]
    );
    assert!(path.barriers().has_passed(second) && path.barriers().under_way() == 0);
}

#[test]
fn answers_out_of_turn_are_errors() {
    let mut path = ReturnPath::new();
    let mut bytes = Vec::new();
    Message::Pong(0x7a00_0000).encode(&mut bytes);
    let unexpected = BarrierError::Unexpected { found: 0x7a00_0000 };
    assert_eq!(path.push(&bytes, &mut Vec::new()), Err(unexpected.into()));

    let mut path = ReturnPath::new();
    let (first, _) = path.start_barrier().expect("the first");
    path.start_barrier().expect("the second");
    bytes.clear();
    Message::Pong(0x7a00_0001).encode(&mut bytes);
    assert!(path.push(&bytes, &mut Vec::new()).is_err());
    assert_eq!(first, BarrierId(0));
    assert!(!path.barriers().has_passed(first));
}

#[test]
fn lengths_are_limited() {
    let mut parser = ReturnPathParser::new();
    let mut none = Vec::new();
    let long = parser.push(&[0, 2, 2, 1], &mut none);
    assert_eq!(long, Err(ReturnPathError::Payload { kind: 2, len: 513 }));
    let short = ReturnPathParser::new().push(&[0, 2, 0, 1, 9], &mut none);
    assert_eq!(short, Err(ReturnPathError::Payload { kind: 2, len: 1 }));
    let unknown = ReturnPathParser::new().push(&[0, 8, 0, 0], &mut none);
    assert_eq!(unknown, Err(ReturnPathError::Type(8)));
    let mut bitmap = vec![0, 5, 0, 2, 1, b'a'];
    bitmap.extend_from_slice(&(MAX_BITMAP + 1).to_be_bytes());
    let error = ReturnPathParser::new().push(&bitmap, &mut none);
    assert_eq!(error, Err(ReturnPathError::BitmapLength(MAX_BITMAP + 1)));
}

#[test]
fn a_bitmap_ends_with_its_mark() {
    let mut bytes = Vec::new();
    Message::RecvBitmap { block: "a".into(), bitmap: [1, 2].into() }.encode(&mut bytes);
    *bytes.last_mut().expect("a mark") = 0;
    let error = ReturnPathParser::new().push(&bytes, &mut Vec::new());
    assert_eq!(error, Err(ReturnPathError::BitmapEnd(0x0123_4567_89ab_cd00)));
}
