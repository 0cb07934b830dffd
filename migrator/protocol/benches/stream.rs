//! Throughput of the stream's hot paths. Parsing must be far from the bottleneck: QEMU delivers 3 GB/s.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rackferry_migrator_protocol::stream::{Item, PAGE_SIZE, StreamParser, StreamWriter};

const PAGES: u32 = 64 << 8;
const BYTES: u64 = PAGES as u64 * PAGE_SIZE as u64;
/// What a reader gets from the socket at once.
const READ: usize = 1 << 20;
/// Pages of a PART; QEMU's last up to 50 ms.
const PART: u32 = 4096;

fn head() -> Vec<u8> {
    let mut head = vec![1, 0, 0, 0, 1, 3];
    head.extend_from_slice(b"ram\0\0\0\0\0\0\0\x04");
    head.extend_from_slice(&(BYTES | 4).to_be_bytes());
    head.extend_from_slice(b"\x06pc.ram");
    head.extend_from_slice(&BYTES.to_be_bytes());
    head
}

/// A VM of 64 MiB without a zero page.
fn stream() -> Vec<u8> {
    let mut out = Vec::with_capacity(BYTES as usize + (1 << 20));
    let mut writer = StreamWriter::new();
    writer.forward(b"QEVM\0\0\0\x03\x07\0\0\0\x03q35", true, &mut out);
    writer.ram_start(&head(), &mut out).expect("a good head");
    write_pages(&mut writer, &mut out, |_| {});
    writer.ram_end(&mut out).expect("memory is open");
    out
}

fn write_pages(writer: &mut StreamWriter, out: &mut Vec<u8>, sent: impl Fn(&mut Vec<u8>)) {
    let content = [7; PAGE_SIZE];
    for page in 0..PAGES {
        writer.page(0, page, &content, out).expect("a page of the VM");
        if page % PART == PART - 1 {
            writer.flush_section(out);
        }
        sent(out);
    }
}

fn parse(stream: &[u8], items: &mut Vec<Item>) -> usize {
    let mut parser = StreamParser::new();
    let (mut done, mut pages) = (0, 0);
    while done < stream.len() {
        let end = stream.len().min(done + READ);
        items.clear();
        done += parser.parse(&stream[done..end], items).expect("a good stream");
        pages += items.iter().filter(|item| matches!(item, Item::Page { .. })).count();
    }
    pages
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream");
    group.throughput(Throughput::Bytes(BYTES)).sample_size(20);
    let stream = stream();
    let mut items = Vec::new();
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            assert_eq!(parse(black_box(&stream), &mut items), PAGES as usize);
        });
    });
    let mut out = Vec::with_capacity(2 * READ);
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut writer = StreamWriter::new();
            writer.ram_start(&head(), &mut out).expect("a good head");
            write_pages(&mut writer, &mut out, |out| {
                if out.len() >= READ {
                    black_box(&*out);
                    out.clear();
                }
            });
        });
    });
    group.finish();
}

criterion_group!(stream_benches, benches);
criterion_main!(stream_benches);
