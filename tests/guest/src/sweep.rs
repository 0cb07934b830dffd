//! The checker: goes over all memory again and again, slowly, and shouts when a byte is wrong.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::cache::{self, Cache};
use crate::content::PAGE_BYTES;
use crate::region::Region;
use crate::serial::Serial;

/// The checker works this often; in between it costs nothing. Every turn of another process costs an
/// emulated CPU its whole TLB.
const TICK: Duration = Duration::from_secs(2);

/// Everything that is checked.
pub struct Memory {
    name: String,
    regions: Vec<Arc<Region>>,
    cache: Cache,
    serial: Serial,
    /// One sweep at a time: the slow one waits while a full one is asked for.
    turn: Mutex<()>,
}

impl Memory {
    /// What `name` (the word for it in complaints) has to look after.
    pub fn new(name: &str, regions: Vec<Arc<Region>>, cache: Cache, serial: Serial) -> Self {
        Self { name: name.into(), regions, cache, serial, turn: Mutex::new(()) }
    }

    fn items(&self) -> usize {
        self.cache.pieces() + self.regions.iter().map(|region| region.pages()).sum::<usize>()
    }

    /// Checks one item and returns how many bytes that was, or what is wrong.
    fn check(&self, item: usize, buffer: &mut Vec<u8>) -> Result<usize, String> {
        let Some(mut page) = item.checked_sub(self.cache.pieces()) else {
            return self.cache.check(item, buffer).map(|()| cache::piece_bytes());
        };
        for (number, region) in self.regions.iter().enumerate() {
            if page < region.pages() {
                return region.check(page).map(|()| PAGE_BYTES).map_err(|wrong| {
                    format!(
                        "region {number} page {page} word {}: {:x}, not {:x}",
                        wrong.word, wrong.got, wrong.want
                    )
                });
            }
            page -= region.pages();
        }
        Ok(PAGE_BYTES)
    }

    fn check_aloud(&self, item: usize, buffer: &mut Vec<u8>) -> Result<usize, ()> {
        self.check(item, buffer).map_err(|place| {
            self.serial.line(&format!("RF BAD {} {place}", self.name));
        })
    }

    /// Checks everything at full speed and returns how many items are wrong.
    pub fn check_all(&self) -> usize {
        let _turn = self.turn.lock().expect("a sweep does not panic");
        let mut buffer = Vec::new();
        (0..self.items()).filter(|&item| self.check_aloud(item, &mut buffer).is_err()).count()
    }

    /// Checks `kib_per_second`, for ever; reports full passes if `report` is set.
    pub fn sweep(self: Arc<Self>, kib_per_second: usize, report: bool) {
        if kib_per_second == 0 {
            return;
        }
        thread::spawn(move || {
            rustix::process::setpriority_process(None, 10).ok();
            let budget = (kib_per_second * 1024 * TICK.as_secs() as usize) as isize;
            let (mut item, mut passes, mut credit) = (0, 0_u64, 0_isize);
            let mut buffer = Vec::new();
            loop {
                thread::sleep(TICK);
                let _turn = self.turn.lock().expect("a sweep does not panic");
                credit = (credit + budget).min(budget);
                while credit > 0 {
                    let bytes = self.check_aloud(item, &mut buffer).unwrap_or(PAGE_BYTES);
                    credit -= bytes as isize;
                    item += 1;
                    if item >= self.items() {
                        (item, passes) = (0, passes + 1);
                        if report {
                            self.serial.line(&format!("RF CHECK {passes:x}"));
                        }
                        break;
                    }
                }
            }
        });
    }
}
