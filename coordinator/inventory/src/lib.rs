//! The inventory file: YAML in, a checked [`Inventory`] out, or every mistake with its line and column.
//!
//! Pure: text in, values out. The command line checks files with it, and the coordinator checks them again.
//!
//! * `file`: the file as it is written, unknown keys refused.
//! * `expand`: ranges in names.
//! * `check`: what one line says against what the others say.
//! * [`mod@unit`]: sizes, rates, times and percentages as people write them.

mod check;
mod expand;
mod file;
mod mistake;
mod model;
pub mod unit;

pub use mistake::{Mistake, Mistakes};
pub use rackferry_model::Disruption;

pub use model::{Host, Inventory, Labels, Link, Policy, Rack, VmLabels};

/// The largest file.
pub const SIZE_LIMIT: usize = 4 << 20;

/// Reads a file; `name` is what its mistakes are told with.
///
/// # Errors
/// Everything that is wrong with it. If it is no YAML, or has an unknown key, only the first such mistake is known.
pub fn read(name: &str, text: &str) -> Result<Inventory, Mistakes> {
    let found = if text.len() > SIZE_LIMIT {
        let what = format!("the file has {} bytes, and at most {SIZE_LIMIT} are read", text.len());
        Err(vec![Mistake::new(1, 1, what, "split the site into smaller ones")])
    } else {
        file::parse(text).map_err(|mistake| vec![mistake]).and_then(check::check)
    };
    found.map_err(|mistakes| Mistakes::new(name, mistakes))
}
