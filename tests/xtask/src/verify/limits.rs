//! The table of limits in docs/operations.md against the constants it names.
//!
//! The last column of a row names a file and constants of it: each constant's value must stand in the row, written as
//! people write it. `same` is the file of the row before.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every row that does not say what its constants are, one a line.
pub fn differences(page: &str, root: &Path) -> Vec<String> {
    let Some((_, section)) = page.split_once("\n## Limits\n") else {
        return vec!["docs/operations.md has no table of limits".to_owned()];
    };
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut file = String::new();
    let mut found = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [what, value, place] = cells[..] else {
            found.push(format!("a row has not three cells: {row}"));
            continue;
        };
        let mut constants = 0;
        for code in place.split('`').skip(1).step_by(2) {
            if code.ends_with(".rs") {
                code.clone_into(&mut file);
                continue;
            }
            constants += 1;
            let text = fs::read_to_string(root.join(&file)).unwrap_or_default();
            match value_of(&text, code) {
                None => {
                    found.push(format!("{what}: {file} has no constant {code} that can be read"))
                }
                Some(constant) if !constant.is_written_in(value) => {
                    found.push(format!(
                        "{what}: {code} of {file} is {constant:?}, the row says: {value}"
                    ));
                }
                Some(_) => {}
            }
        }
        if constants == 0 {
            found.push(format!("{what}: the row names no constant"));
        }
    }
    found
}

/// What a constant is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Constant {
    Number(f64),
    Millis(f64),
}

impl Constant {
    /// Whether a text has the value as a whole number or time, the way people write it.
    fn is_written_in(self, text: &str) -> bool {
        let forms = match self {
            Self::Number(number) => number_forms(number),
            Self::Millis(ms) => time_forms(ms),
        };
        forms.iter().any(|form| has(text, form))
    }
}

fn number_forms(number: f64) -> Vec<String> {
    let mut forms = vec![number.to_string(), with_commas(number)];
    for (unit, shift) in [("KiB", 10), ("MiB", 20), ("GiB", 30)] {
        forms.push(format!("{} {unit}", number / f64::from(1 << shift)));
    }
    forms
}

fn with_commas(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time_forms(ms: f64) -> Vec<String> {
    let mut forms = vec![format!("{ms} ms")];
    for (unit, of_it) in [("s", 1e3), ("min", 6e4), ("h", 3.6e6), ("days", 8.64e7)] {
        forms.push(format!("{} {unit}", ms / of_it));
    }
    forms
}

/// Whether a text has a form that does not go on as another number.
fn has(text: &str, form: &str) -> bool {
    text.match_indices(form).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let mut after = text[at + form.len()..].chars();
        let goes_on = match after.next() {
            Some('.' | ',') => after.next().is_some_and(|c| c.is_ascii_digit()),
            Some(c) => c.is_ascii_alphanumeric(),
            None => false,
        };
        !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '.' || c == ',') && !goes_on
    })
}

/// The value of a constant in a source file, if it is simple.
fn value_of(source: &str, name: &str) -> Option<Constant> {
    let constants = source.lines().filter_map(|line| {
        let (_, definition) = line.split_once("const ")?;
        let (name, rest) = definition.split_once(':')?;
        let (_, value) = rest.split_once('=')?;
        Some((name.trim(), value.trim().trim_end_matches(';')))
    });
    let constants: BTreeMap<&str, &str> = constants.collect();
    let value = constants.get(name)?;
    if let Some(time) = value.strip_prefix("Duration::from_") {
        let (unit, number) = time.strip_suffix(')')?.split_once('(')?;
        let number = number_of(number, &constants)?;
        return match unit {
            "millis" => Some(Constant::Millis(number)),
            "secs" => Some(Constant::Millis(number * 1e3)),
            _ => None,
        };
    }
    let number = number_of(value, &constants)?;
    match name.rsplit('_').next() {
        Some("MS") => Some(Constant::Millis(number)),
        Some("US") => Some(Constant::Millis(number / 1e3)),
        _ => Some(Constant::Number(number)),
    }
}

/// Numbers, names of constants, differences, products and shifts, as Rust ranks them.
fn number_of(expression: &str, constants: &BTreeMap<&str, &str>) -> Option<f64> {
    let expression = expression.trim();
    let inner = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    if let Some(inner) = inner.filter(|inner| !inner.contains([')', '('])) {
        return number_of(inner, constants);
    }
    let split = |operator: &str| {
        let (left, right) = split_outside(expression, operator)?;
        Some((number_of(left, constants)?, number_of(right, constants)?))
    };
    if let Some((left, right)) = split(" << ") {
        return Some(left * right.exp2());
    }
    if let Some((left, right)) = split(" - ") {
        return Some(left - right);
    }
    if let Some((left, right)) = split(" * ") {
        return Some(left * right);
    }
    match constants.get(expression) {
        Some(value) => number_of(value, constants),
        None => expression.replace('_', "").parse().ok(),
    }
}

/// The parts before and behind the last operator that is not in parentheses.
fn split_outside<'a>(expression: &'a str, operator: &str) -> Option<(&'a str, &'a str)> {
    let (at, _) = expression.rmatch_indices(operator).find(|(at, _)| {
        let before = &expression[..*at];
        before.matches('(').count() == before.matches(')').count()
    })?;
    Some((&expression[..at], &expression[at + operator.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
pub const READ: usize = (1 << 20) - (8 << 10);
const PAGE: usize = 4096;
pub(crate) const PAGES: usize = 4 * PAGE;
const AGE: Duration = Duration::from_secs(7 * 86_400);
const SHORT: Duration = Duration::from_millis(1500);
pub const GOAL_US: u64 = 40_000;
const MANY: usize = 131_072;
const MIN: f64 = 4096.0;
const TEXT: &str = \"x\";
";

    #[test]
    fn constants_are_read_and_found_as_people_write_them() {
        for (name, text) in [
            ("READ", "1016 KiB; while QEMU sends"),
            ("PAGES", "16 KiB"),
            ("PAGES", "16384 of them"),
            ("AGE", "up to 7 days"),
            ("SHORT", "1.5 s, then"),
            ("GOAL_US", "by delay (40 ms)"),
            ("MANY", "131,072; 256"),
            ("MIN", "at least 4 KiB"),
        ] {
            let constant = value_of(SOURCE, name).unwrap();
            assert!(constant.is_written_in(text), "{name}: {constant:?} in {text}");
        }
        assert_eq!(value_of(SOURCE, "TEXT"), None);
        assert_eq!(value_of(SOURCE, "NONE"), None);
    }

    #[test]
    fn another_number_is_not_the_same() {
        let three = Constant::Number(3.0);
        for text in ["13", "30", "3.5", "0.3", "3,000", "3s", "none"] {
            assert!(!three.is_written_in(text), "{text}");
        }
        assert!(three.is_written_in("3, then") && three.is_written_in("at most 3."));
    }

    #[test]
    fn rows_are_compared() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.rs"), SOURCE).unwrap();
        let page = |rows: &str| {
            format!(
                "x\n## Limits\n\n| limit | value | where |\n|---|---|---|\n{rows}\n## More\n| y |\n"
            )
        };
        let good = "| read | 1016 KiB | `a.rs` `READ` |\n| times | 1.5 s, 7 days | same: `SHORT`, `AGE` |\n";
        assert_eq!(differences(&page(good), root.path()), Vec::<String>::new());
        let bad = "| read | 1000 KiB | `a.rs` `READ` |\n| none | 1 | same |\n| gone | 1 | same: `GONE` |\n";
        let found = differences(&page(bad), root.path());
        assert_eq!(found.len(), 3, "{found:#?}");
        assert_eq!(differences("nothing", root.path()).len(), 1);
    }
}
