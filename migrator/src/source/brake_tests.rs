//! How QEMU is held between its passes: what it gets rid of in a second. Virtual time.

use rackferry_dedup_index::PAGE_SIZE;
use rackferry_migrator_protocol::stream::StreamWriter;
use tokio::io::AsyncWriteExt;

use super::pump::Pump;
use super::*;
use crate::target::receive::tests::head;

/// What a socket takes before it is read.
const SOCKET: usize = 208 << 10;
const PASSES: usize = 2000;

/// How many passes of so many pages QEMU begins in a second in which the session waits for its turn.
async fn passes(pages: u32) -> usize {
    let (mut qemu, socket) = tokio::io::duplex(SOCKET);
    let writing = tokio::spawn(async move {
        let (mut bytes, mut writer) = (Vec::new(), StreamWriter::new());
        writer.forward(b"QEVM\0\0\0\x03\x07\0\0\0\x03q35", true, &mut bytes);
        writer.ram_start(&head(1 << 30), &mut bytes).unwrap();
        for pass in 0..PASSES {
            for page in 0..pages {
                writer.page(0, page, &[pass as u8; PAGE_SIZE], &mut bytes).unwrap();
            }
            writer.flush_section(&mut bytes);
            if qemu.write_all(&bytes).await.is_err() {
                return pass;
            }
            bytes.clear();
        }
        PASSES
    });
    let reading = Arc::<Reading>::default();
    reading.brake(BRAKE);
    let mut pump = Pump::new(socket, Arc::default(), None, Arc::default(), reading);
    let second = async { while pump.next().await.unwrap().is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), second).await;
    drop(pump);
    writing.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn small_passes_are_few_and_large_ones_are_not_held_up() {
    let (small, large) = (passes(4).await, passes(500).await);
    assert!((20..400).contains(&small), "{small} passes of 4 pages");
    assert_eq!(large, PASSES, "passes of 500 pages");
}
