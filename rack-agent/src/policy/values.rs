//! Arguments of QEMU's options: `first,key=value,...` with `,,` for a comma, or JSON.

use serde_json::Value;

/// Options whose first word may stand without its key, and that key.
const IMPLIED: &[(&str, &str)] = &[
    ("audiodev", "driver"),
    ("blockdev", "driver"),
    ("chardev", "backend"),
    ("device", "driver"),
    ("display", "type"),
    ("fsdev", "fsdriver"),
    ("mon", "chardev"),
    ("net", "type"),
    ("netdev", "type"),
    ("nic", "type"),
    ("object", "qom-type"),
    ("tpmdev", "type"),
    ("virtfs", "fsdriver"),
];

/// The key under which an option says of which kind it is.
fn kind_key(option: &str) -> &'static str {
    IMPLIED.iter().find(|(name, _)| *name == option).map_or("", |(_, key)| key)
}

/// An argument, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// What it says of its kind; more than one word if it says so more than once, and QEMU takes the last.
    pub kinds: Vec<String>,
    /// All it has, with the last part of each key: `filename` of `file.filename`.
    pub pairs: Vec<(String, String)>,
}

impl Argument {
    /// Takes an option's argument apart. `None`: neither of both forms.
    pub fn parse(option: &str, text: &str) -> Option<Self> {
        let key = kind_key(option);
        if text.trim_start().starts_with('{') {
            let json: Value = serde_json::from_str(text).ok()?;
            let kind = json.get(key).and_then(Value::as_str).map(str::to_owned);
            let mut pairs = Vec::new();
            collect("", &json, &mut pairs);
            return Some(Self { kinds: kind.into_iter().collect(), pairs });
        }
        let pairs = split(key, text);
        let kinds = pairs.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone());
        let kinds = kinds.collect();
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
        let pairs = pairs.iter().map(|(name, value)| (last(name), value.clone())).collect();
        Some(Self { kinds, pairs })
    }
}

/// Keys and values as QEMU reads them. A first word without a key has the implied one; others count as switched on.
pub fn split(implied: &str, text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let (key, (value, left)) = match behind.strip_prefix('=') {
            Some(behind) => (key, unescaped(behind)),
            None if pairs.is_empty() => (implied, unescaped(rest)),
            None => (key, ("on".to_owned(), behind.strip_prefix(',').unwrap_or(behind))),
        };
        pairs.push((key.to_owned(), value));
        rest = left;
    }
    pairs
}

/// A value up to the next single comma, and what is behind that.
fn unescaped(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let Some(comma) = rest.find(',') else {
            value.push_str(rest);
            return (value, "");
        };
        value.push_str(&rest[..comma]);
        rest = &rest[comma + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (value, rest),
        }
        value.push(',');
    }
}

fn collect(key: &str, json: &Value, into: &mut Vec<(String, String)>) {
    match json {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            let last = key.rsplit('.').next().unwrap_or_default();
            collect(last, value, into);
        }),
        Value::Array(items) => items.iter().for_each(|item| collect(key, item, into)),
        Value::String(text) => into.push((key.to_owned(), text.clone())),
        other => into.push((key.to_owned(), other.to_string())),
    }
}
