//! What QEMU gets, and when.

use rackferry_dedup_index::DomainKey;
use tokio::net::UnixStream;

use super::*;
use crate::memory::GuestMemory;

const BYTES: u64 = 1 << 20;

/// The head of ram's START section with one block.
pub(crate) fn head(bytes: u64) -> Vec<u8> {
    let mut head = vec![1, 0, 0, 0, 1, 3];
    head.extend_from_slice(b"ram\0\0\0\0\0\0\0\x04");
    head.extend_from_slice(&(bytes | 4).to_be_bytes());
    head.extend_from_slice(b"\x06pc.ram");
    head.extend_from_slice(&bytes.to_be_bytes());
    head
}

pub(crate) async fn take(receiver: &mut Receiver, frame: FromSource) -> Option<Event> {
    let mut payload = Vec::new();
    let kind = frame.encode(&mut payload);
    receiver.frame(kind, &payload).await.unwrap()
}

/// A receiver that has got all of memory, what it said then, and QEMU's end of its socket.
async fn received() -> (Receiver, Option<Event>, UnixStream) {
    let rack = Arc::new(Rack::new(1, &DomainKey([7; 32]), 1 << 20, 1 << 20, None));
    let memory = Arc::new(GuestMemory::create("rackferry-test", BYTES, None).unwrap());
    let id = rack.store.add_memory(memory.clone());
    let placed = Placed { block: "pc.ram".into(), memory, id };
    let mut receiver = Receiver::new(1, vec![placed], rack, Arc::default());
    let (qemu, ours) = UnixStream::pair().unwrap();
    receiver.qemu = Some(ours.into_split().1);
    let start = b"QEVM\0\0\0\x03\x07\0\0\0\x03q35".to_vec();
    take(&mut receiver, FromSource::Stream { boundary: true, bytes: start }).await;
    take(&mut receiver, FromSource::RamStart(head(BYTES))).await;
    let event = take(&mut receiver, FromSource::RamEnd).await;
    (receiver, event, qemu)
}

/// ram's END section.
fn has_end(bytes: &[u8]) -> bool {
    bytes.windows(5).any(|bytes| bytes == [3, 0, 0, 0, 1])
}

/// All that is there, at least a byte.
async fn read_by(qemu: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    qemu.readable().await.unwrap();
    while let Ok(count) = qemu.try_read_buf(&mut bytes) {
        assert!(count > 0, "the socket is open");
    }
    bytes
}

#[tokio::test]
async fn memory_ends_for_qemu_when_it_is_told_so() {
    let (mut receiver, event, mut qemu) = received().await;
    assert_eq!(event, Some(Event::Placed));
    let before = read_by(&mut qemu).await;
    assert!(!has_end(&before), "{before:?}");
    receiver.flush().await.unwrap();
    let after = read_by(&mut qemu).await;
    assert!(has_end(&after), "{after:?}");
    take(&mut receiver, FromSource::Stream { boundary: true, bytes: vec![7; 9] }).await;
    assert_eq!(read_by(&mut qemu).await, [7; 9], "devices follow at once");
}
