//! Any text is an inventory, or is refused with a line that it has.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(mistakes) = rackferry_inventory::read("f", text) {
        let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u64 + 1;
        assert!(!mistakes.all().is_empty());
        for mistake in mistakes.all() {
            assert!((1..=lines).contains(&mistake.line) && mistake.column > 0, "{mistake:?}");
        }
    }
});
