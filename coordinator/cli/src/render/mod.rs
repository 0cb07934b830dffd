//! Answers as text: pure functions of what the coordinator said.

pub mod check;
pub mod cluster;
pub mod doctor;
pub mod evacuation;
pub mod event;
pub mod expelled;
pub mod follow;
pub mod inventory;
pub mod json;
mod left;
pub mod migration;
pub mod plan;
pub mod site;
pub mod spec;
pub mod vm;
pub mod word;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table without lines, as wide as its content; the named columns hold numbers.
fn table(header: &[&str], numbers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    let last = header.len() - 1;
    for (index, column) in table.column_iter_mut().enumerate() {
        let right = if index == last { 0 } else { 2 };
        column.set_padding((0, right));
        if numbers.contains(&header[index]) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Zero is nothing to show.
fn dash<T: Default + PartialEq>(value: T, text: String) -> String {
    if value == T::default() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
