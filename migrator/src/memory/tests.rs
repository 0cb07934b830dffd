use super::*;

const PAGE: [u8; PAGE_BYTES] = [0x5a; PAGE_BYTES];
const KEY: [u8; 32] = [7; 32];

fn memory(bytes: u64) -> Arc<GuestMemory> {
    Arc::new(GuestMemory::create("rackferry-test", bytes, None).unwrap())
}

fn allocated(memory: &GuestMemory) -> u64 {
    fstat(&memory.file).unwrap().st_blocks as u64 * 512
}

#[test]
fn pages_come_back_before_and_after_populating() {
    let memory = memory(CHUNK_BYTES + (1 << 20));
    let pages = [0, 1, CHUNK_BYTES / 4096 - 1, CHUNK_BYTES / 4096, memory.pages() - 1];
    for (n, page) in pages.into_iter().enumerate() {
        memory.write_page(page, &[n as u8 + 1; PAGE_BYTES]).unwrap();
    }
    let check = || {
        for (n, page) in pages.into_iter().enumerate() {
            let mut content = [0; PAGE_BYTES];
            memory.read_page(page, &mut content).unwrap();
            assert_eq!(content, [n as u8 + 1; PAGE_BYTES], "page {page}");
        }
    };
    check();
    memory.preallocate_in_background(Preallocate::Populate).join().unwrap().unwrap();
    assert!(memory.chunks.iter().all(|chunk| chunk.get().is_some()));
    check();
    let mut across = vec![0; 8192];
    memory.read_pages(CHUNK_BYTES / 4096 - 1, &mut across).unwrap();
    assert_eq!((across[0], across[8191]), (3, 4));
}

#[test]
fn what_is_there_is_read_through_a_view_that_follows_it() {
    let memory = memory(CHUNK_BYTES + (1 << 20));
    let edge = CHUNK_BYTES / 4096 - 1;
    let mut across = vec![0; 8192];
    for value in [1, 2] {
        memory.write_pages(edge, &[[value; PAGE_BYTES], [value + 1; PAGE_BYTES]]).unwrap();
        memory.read_present(edge, &mut across).unwrap();
        assert_eq!((across[0], across[8191]), (value, value + 1));
    }
    assert_eq!(allocated(&memory), 8192);
    assert!(memory.read_present(memory.pages() - 1, &mut across).is_err());
    memory.preallocate(Preallocate::Populate).unwrap();
    memory.write_pages(edge, &[[7; PAGE_BYTES], [8; PAGE_BYTES]]).unwrap();
    memory.read_present(edge, &mut across).unwrap();
    assert_eq!((across[0], across[8191]), (7, 8));
}

#[test]
fn range_is_checked() {
    let memory = memory(1 << 20);
    let mut content = [0; PAGE_BYTES];
    for page in [256, 257, u64::MAX, u64::MAX / 4096] {
        assert!(matches!(memory.write_page(page, &PAGE), Err(MemoryError::OutOfRange { .. })));
        assert!(memory.read_page(page, &mut content).is_err());
        assert!(memory.zero_page(page).is_err());
    }
    assert!(memory.read_pages(255, &mut [0; 4097]).is_err());
}

#[test]
fn sizes_are_checked() {
    for bytes in [0, 1, 4097] {
        let error = GuestMemory::create("rackferry-test", bytes, None).unwrap_err();
        assert!(matches!(error, MemoryError::Size { .. }));
    }
    let huge = GuestMemory::create("rackferry-test", 4096, Some(HugePages::TwoMiB));
    assert!(matches!(huge.unwrap_err(), MemoryError::Size { .. }));
}

#[test]
fn zeroing_costs_nothing_where_nothing_was_written() {
    let memory = memory(1 << 20);
    (0..256).for_each(|page| memory.zero_page(page).unwrap());
    let mut content = [0; PAGE_BYTES];
    (0..256).for_each(|page| memory.read_page(page, &mut content).unwrap());
    assert_eq!(allocated(&memory), 0);
    memory.write_page(9, &PAGE).unwrap();
    memory.zero_page(9).unwrap();
    memory.read_page(9, &mut content).unwrap();
    assert_eq!(content, [0; PAGE_BYTES]);
}

#[test]
fn zeroing_finds_what_others_wrote() {
    let memory = memory(1 << 20);
    memory.file.write_all_at(&PAGE, 4096).unwrap();
    memory.mark_all();
    memory.zero_page(1).unwrap();
    let mut content = PAGE;
    memory.read_page(1, &mut content).unwrap();
    assert_eq!(content, [0; PAGE_BYTES]);
}

#[test]
fn digest_sees_content_not_holes() {
    let bytes = (3 << 20) + 4096;
    let (holes, zeros, one) = (memory(bytes), memory(bytes), memory(bytes));
    zeros.preallocate(Preallocate::Populate).unwrap();
    (0..zeros.pages()).for_each(|page| zeros.write_page(page, &[0; PAGE_BYTES]).unwrap());
    let empty = holes.digest_all(&KEY, 2).unwrap();
    assert_eq!(empty, zeros.digest_all(&KEY, 1).unwrap());
    assert_eq!(allocated(&holes), 0);
    assert_ne!(empty, holes.digest_all(&[8; 32], 2).unwrap());
    one.write_page(one.pages() - 1, &PAGE).unwrap();
    let last = one.digest_all(&KEY, 3).unwrap();
    assert_ne!(empty, last);
    one.zero_page(one.pages() - 1).unwrap();
    one.write_page(0, &PAGE).unwrap();
    assert_ne!(last, one.digest_all(&KEY, 3).unwrap());
    assert_ne!(empty, memory(3 << 20).digest_all(&KEY, 2).unwrap());
}

#[test]
fn found_again_by_name() {
    let name = format!("rackferry-again-{}", std::process::id());
    let memory = GuestMemory::create(&name, 1 << 20, None).unwrap();
    memory.write_page(3, &PAGE).unwrap();
    let again = GuestMemory::open_of_process(std::process::id(), &name).unwrap();
    let mut content = [0; PAGE_BYTES];
    again.read_page(3, &mut content).unwrap();
    assert_eq!(content, PAGE);
    assert_eq!(memory.digest_all(&KEY, 1).unwrap(), again.digest_all(&KEY, 1).unwrap());
    let none = GuestMemory::open_of_process(std::process::id(), "rackferry-none");
    assert!(matches!(none.unwrap_err(), MemoryError::NotFound { .. }));
}

#[test]
fn huge_pages_work_where_the_host_has_some() {
    let Ok(memory) = GuestMemory::create("rackferry-huge", 4 << 20, Some(HugePages::TwoMiB)) else {
        return println!("skipped: this kernel has no 2 MiB huge pages");
    };
    match memory.write_page(600, &PAGE) {
        Err(MemoryError::Reserve { source, .. }) => {
            println!("skipped: no huge page free: {source}")
        }
        Err(error) => panic!("{error}"),
        Ok(()) => {
            let mut content = [0; PAGE_BYTES];
            memory.read_page(600, &mut content).unwrap();
            assert_eq!(content, PAGE);
            memory.read_page(0, &mut content).unwrap();
            assert_eq!(content, [0; PAGE_BYTES]);
        }
    }
}

#[test]
fn no_process_changes_the_size_of_guest_memory() {
    let memory = GuestMemory::create("rackferry-sealed", 1 << 20, None).unwrap();
    let other = File::options().read(true).write(true).open(memory.proc_path()).unwrap();
    for bytes in [0, 1 << 19, 1 << 21] {
        let refused = other.set_len(bytes).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{bytes}");
    }
    memory.write_page(255, &[7; PAGE_BYTES]).unwrap();
    memory.preallocate(Preallocate::Populate).unwrap();
}

#[test]
fn all_mappings_of_a_guest_share_one_descriptor() {
    let name = "rackferry-test-descriptors";
    let memory = GuestMemory::create(name, 4 * CHUNK_BYTES, None).unwrap();
    memory.read_present(0, &mut [0; PAGE_BYTES]).unwrap();
    memory.preallocate(Preallocate::Populate).unwrap();
    let link = format!("/memfd:{name} (deleted)");
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open = open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == &*link));
    assert_eq!(open.count(), 1);
}
