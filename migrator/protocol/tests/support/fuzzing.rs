//! What must hold for any input. The fuzz targets and the tests over damaged captures share it.

use rackferry_migrator_protocol::stream::multifd::{ChannelItem, ChannelParser};
use rackferry_migrator_protocol::stream::return_path::{Message, ReturnPath, ReturnPathParser};
use rackferry_migrator_protocol::stream::{Blocks, Item, RamHead, StreamError, StreamParser};

use super::{Loaded, Raw, rewrite};

/// Blocks of the captured VMs, in pages.
const CAPTURED: [(&str, u32); 7] = [
    ("pc.ram", 4098),
    ("/rom@etc/acpi/tables", 32),
    ("0000:00:01.0/vga.vram", 256),
    ("pc.rom", 32),
    ("pc.bios", 16),
    ("/rom@etc/table-loader", 1),
    ("/rom@etc/acpi/rsdp", 1),
];

/// A size of pieces that depends on the input, so that a failure can be repeated.
fn piece(data: &[u8]) -> usize {
    1 + data.iter().step_by(97).fold(data.len(), |sum, byte| sum * 31 % 8191 + usize::from(*byte))
}

/// The main channel: cuts do not matter, and a rewritten stream loads the same.
pub fn qemu_stream(data: &[u8]) {
    let (whole, opaque) = load(data, data.len());
    let (pieces, _) = load(data, piece(data));
    assert!(whole == pieces, "cuts matter");
    if let (Ok(expected), false) = (whole, opaque) {
        let again = Loaded::from_stream(&rewrite(data, piece(data) + 70_000, |_| {}));
        let again = again.expect("the writer's streams are good");
        assert!(again.pages == expected.pages && again.other == expected.other);
    }
}

/// What a stream loads, and whether the parser fell back.
fn load(data: &[u8], piece: usize) -> (Result<Loaded, StreamError>, bool) {
    let (mut parser, mut loaded) = (StreamParser::new(), Loaded::default());
    let (mut done, mut end) = (0, 0);
    let mut fell_back = false;
    while end < data.len() {
        end = data.len().min(end + piece);
        let mut items = Vec::new();
        match parser.parse(&data[done..end], &mut items) {
            Ok(consumed) => {
                loaded.apply(&parser, &data[done..end], &items);
                done += consumed;
            }
            Err(error) => return (Err(error), fell_back),
        }
        fell_back |= items.iter().any(|item| matches!(item, Item::Fallback { .. }));
    }
    (parser.finish().map(|()| loaded), fell_back)
}

/// A multifd channel: cuts do not matter.
pub fn multifd(data: &[u8]) {
    let blocks = captured_blocks();
    let whole = channel(data, data.len().max(1), &blocks);
    assert!(whole == channel(data, piece(data), &blocks), "cuts matter");
}

fn captured_blocks() -> Blocks {
    let mut head = Raw::default();
    head.ram_head_of(&CAPTURED, 2);
    RamHead::parse(&head.0).expect("a good head").blocks
}

fn channel(
    data: &[u8],
    piece: usize,
    blocks: &Blocks,
) -> (Vec<ChannelItem>, Result<(), StreamError>) {
    let (mut parser, mut all) = (ChannelParser::new(), Vec::new());
    let (mut done, mut end) = (0, 0);
    while end < data.len() {
        end = data.len().min(end + piece);
        loop {
            let mut items = Vec::new();
            let result = parser.parse(&data[done..end], blocks, &mut items);
            for item in &mut items {
                if let ChannelItem::Page { at, .. } = item {
                    assert!(done + *at + 4096 <= end);
                    *at += done;
                }
            }
            let waits = items.last() == Some(&ChannelItem::Sync);
            all.append(&mut items);
            match result {
                Ok(consumed) => done += consumed,
                Err(error) => return (all, Err(error)),
            }
            if !waits {
                break;
            }
        }
    }
    (all, parser.finish(data.len() - done))
}

/// The return path: cuts do not matter, and what was read is written the same way.
pub fn return_path(data: &[u8]) {
    let whole = messages(data, data.len().max(1));
    assert!(whole == messages(data, piece(data)), "cuts matter");
    let mut bytes = Vec::new();
    whole.0.iter().for_each(|message| message.encode(&mut bytes));
    assert!(messages(&bytes, 512) == (whole.0, true));
    let _ = ReturnPath::new().push(data, &mut Vec::new());
}

fn messages(data: &[u8], piece: usize) -> (Vec<Message>, bool) {
    let (mut parser, mut messages) = (ReturnPathParser::new(), Vec::new());
    let good = data.chunks(piece).all(|piece| parser.push(piece, &mut messages).is_ok());
    (messages, good)
}
