//! The writer: exact bytes, and what it refuses to do.

mod support;

use rackferry_migrator_protocol::stream::{
    LATE_PAGES_MAX, PAGE_SIZE, PageContent, PageId, StreamWriter, WriteError,
};
use support::Raw;

const RAM: u32 = 2;
const ONES: [u8; PAGE_SIZE] = [1; PAGE_SIZE];
const TWOS: [u8; PAGE_SIZE] = [2; PAGE_SIZE];

/// A writer behind the START of [`support::BLOCKS`].
fn started() -> (StreamWriter, Vec<u8>) {
    let (mut writer, mut out) = (StreamWriter::new(), Vec::new());
    let mut head = Raw::default();
    head.ram_head(RAM);
    writer.ram_start(&head.0, &mut out).expect("a good head");
    (writer, out)
}

#[test]
fn names_and_sections_are_made_anew() {
    let (mut writer, mut out) = started();
    writer.page(0, 5, &ONES, &mut out).expect("a page");
    writer.zero(0, 6, &mut out).expect("a page");
    writer.flush_section(&mut out);
    writer.flush_section(&mut out);
    writer.page(0, 7, &TWOS, &mut out).expect("a page");
    writer.page(1, 0, &TWOS, &mut out).expect("a page");
    writer.inject_ping(0x7a00_0000, &mut out).expect("between sections");
    writer.forward(b"opaque", true, &mut out);
    writer.ram_end(&mut out).expect("memory is open");
    writer.forward(b"devices", false, &mut out);

    let mut expected = Raw::default();
    expected.ram_start(RAM);
    expected.part(2, RAM).page("pc.ram", 5, &ONES).zero_continued(6).eos(RAM);
    expected.part(2, RAM).page_continued(7, &TWOS).page("pc.bios", 0, &TWOS).eos(RAM);
    expected.command(2, &0x7a00_0000u32.to_be_bytes()).put(b"opaque");
    expected.part(3, RAM).eos(RAM).put(b"devices");
    assert!(out == expected.0);
}

#[test]
fn a_return_path_can_be_opened() {
    let (mut writer, mut out) = started();
    out.clear();
    writer.inject_open_return_path(&mut out).expect("between sections");
    assert_eq!(out, [8, 0, 1, 0, 0]);
}

#[test]
fn nothing_is_put_into_forwarded_bytes() {
    let (mut writer, mut out) = started();
    writer.forward(b"half a section", false, &mut out);
    let written = out.len();
    assert_eq!(writer.inject_ping(1, &mut out), Err(WriteError::NotBetween));
    assert_eq!(writer.zero(0, 0, &mut out), Err(WriteError::NotBetween));
    assert_eq!(writer.ram_end(&mut out), Err(WriteError::NotBetween));
    assert_eq!(out.len(), written);
    writer.forward(b"the other half", true, &mut out);
    assert_eq!(writer.inject_ping(1, &mut out), Ok(()));
}

/// A reference to a ROM or to video memory is resolved while VFIO's section is half through.
#[test]
fn a_page_that_comes_late_waits_for_the_end_of_the_section() {
    let (mut writer, mut out) = started();
    writer.forward(b"half a section", false, &mut out);
    let written = out.len();
    writer.page(0, 5, &ONES, &mut out).expect("it is kept");
    writer.page(1, 0, &TWOS, &mut out).expect("it is kept");
    let error = WriteError::NoSuchPage(PageId { block: 3, page: 0 });
    assert_eq!(writer.page(3, 0, &ONES, &mut out), Err(error));
    assert_eq!(writer.fallback(None, None, &mut out), Err(WriteError::NotBetween));
    assert_eq!(out.len(), written);
    writer.forward(b", half of the rest", false, &mut out);
    writer.forward(b", the rest", true, &mut out);
    writer.page(0, 5, &TWOS, &mut out).expect("a newer one, behind it");
    writer.ram_end(&mut out).expect("memory is open");

    let mut expected = Raw::default();
    expected.ram_start(RAM).put(b"half a section, half of the rest, the rest");
    expected.part(2, RAM).page("pc.ram", 5, &ONES).page("pc.bios", 0, &TWOS);
    expected.page("pc.ram", 5, &TWOS).eos(RAM).part(3, RAM).eos(RAM);
    assert!(out == expected.0);
}

#[test]
fn late_pages_are_bounded() {
    let (mut writer, mut out) = started();
    writer.forward(b"a section without an end", false, &mut out);
    for _ in 0..LATE_PAGES_MAX {
        writer.page(0, 5, &ONES, &mut out).expect("it is kept");
    }
    assert_eq!(writer.page(0, 5, &ONES, &mut out), Err(WriteError::NotBetween));
}

#[test]
fn records_stay_in_their_blocks_and_in_the_memory_section() {
    let (mut before, mut out) = (StreamWriter::new(), Vec::new());
    assert_eq!(before.zero(0, 0, &mut out), Err(WriteError::NoMemory));
    assert_eq!(before.ram_end(&mut out), Err(WriteError::NoMemory));
    assert!(matches!(before.ram_start(b"no head", &mut out), Err(WriteError::Head(_))));
    assert!(out.is_empty());

    let (mut writer, mut out) = started();
    let written = out.len();
    for (block, page) in [(0, 64), (3, 0), (0, u32::MAX)] {
        let error = WriteError::NoSuchPage(PageId { block, page });
        assert_eq!(writer.zero(block, page, &mut out), Err(error));
    }
    let mut head = Raw::default();
    head.ram_head(RAM);
    assert_eq!(writer.ram_start(&head.0, &mut out), Err(WriteError::SecondStart));
    assert_eq!(out.len(), written);

    writer.ram_end(&mut out).expect("memory is open");
    assert_eq!(writer.zero(0, 0, &mut out), Err(WriteError::NoMemory));
    assert_eq!(writer.inject_ping(1, &mut out), Ok(()), "the last barrier, before device state");
    writer.forward(b"devices", true, &mut out);
    assert_eq!(writer.inject_ping(1, &mut out), Err(WriteError::NotBetween));
}

#[test]
fn heads_are_read_to_the_last_byte() {
    let mut head = Raw::default();
    head.ram_head(RAM);
    for len in 0..head.0.len() {
        let mut writer = StreamWriter::new();
        assert!(writer.ram_start(&head.0[..len], &mut Vec::new()).is_err(), "{len} bytes");
    }
    head.put(&[0]);
    assert!(StreamWriter::new().ram_start(&head.0, &mut Vec::new()).is_err());
}

#[test]
fn falling_back_makes_the_destination_remember_the_sources_block() {
    let last = PageId { block: 1, page: 3 };
    let (mut writer, mut out) = started();
    writer.page(0, 5, &ONES, &mut out).expect("a page");
    assert!(writer.fallback_needs_content(Some(last)));
    let refused = writer.fallback(Some(last), None, &mut out);
    assert_eq!(refused, Err(WriteError::NeedsContent(last)));
    let content = Some(PageContent::Bytes(&TWOS));
    writer.fallback(Some(last), content, &mut out).expect("content was given");
    writer.forward(b"verbatim", true, &mut out);
    assert_eq!(writer.zero(0, 0, &mut out), Err(WriteError::NoMemory));

    let mut expected = Raw::default();
    expected.ram_start(RAM);
    expected.part(2, RAM).page("pc.ram", 5, &ONES).page("pc.bios", 3, &TWOS).eos(RAM);
    expected.put(b"verbatim");
    assert!(out == expected.0);
}

#[test]
fn falling_back_needs_no_content_in_the_same_block_or_before_memory() {
    let (mut writer, mut out) = started();
    writer.page(1, 5, &ONES, &mut out).expect("a page");
    writer.fallback(Some(PageId { block: 1, page: 3 }), None, &mut out).expect("the same block");

    let (mut writer, mut out) = (StreamWriter::new(), Vec::new());
    writer.forward(b"header", false, &mut out);
    writer.fallback(None, None, &mut out).expect("nothing was sent");
    writer.forward(b"rest", false, &mut out);
    assert_eq!(out, b"headerrest");
}
