//! The dashboard and the alert rules in docs against the tables of metrics and alerts in docs/operations.md, which
//! tests of the programs compare with what they export.

use std::collections::BTreeSet;

use serde_json::Value;

/// Where the dashboard is, below the root.
pub const DASHBOARD: &str = "docs/grafana/rackferry.json";
/// Where the alert rules are, below the root.
pub const RULES: &str = "docs/alerts/rackferry.rules.yaml";
/// Where their tests are, below the root.
pub const TESTS: &str = "docs/alerts/rackferry.rules.test.yaml";
/// Ends of the names of a histogram's series.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Everything that does not fit, one a line. `page` is docs/operations.md.
pub fn differences(page: &str, dashboard: &str, rules: &str) -> Vec<String> {
    let mut found = Vec::new();
    let series = series(page);
    let mut named = |file: &str, expressions: &[String]| {
        if expressions.is_empty() {
            found.push(format!("{file} has no expression"));
        }
        let metrics = expressions.iter().flat_map(|text| metrics(text));
        let unknown: BTreeSet<_> = metrics.filter(|name| !series.contains(*name)).collect();
        found.extend(unknown.into_iter().map(|name| {
            format!("{file} names {name}, which is in no table of docs/operations.md")
        }));
    };
    match serde_json::from_str(dashboard) {
        Ok(dashboard) => named(DASHBOARD, &texts(&dashboard, "expr")),
        Err(error) => return vec![format!("{DASHBOARD}: {error}")],
    }
    let rules: Value = match serde_saphyr::from_str(rules) {
        Ok(rules) => rules,
        Err(error) => return vec![format!("{RULES}: {error}")],
    };
    named(RULES, &texts(&rules, "expr"));
    let rows: BTreeSet<_> = cells(page).filter(|cell| cell.starts_with("Rackferry")).collect();
    let alerts = texts(&rules, "alert");
    let alerts: BTreeSet<&str> = alerts.iter().map(String::as_str).collect();
    found.extend(
        rows.symmetric_difference(&alerts).map(|name| {
            format!("the alert {name} is only in one of {RULES} and docs/operations.md")
        }),
    );
    found
}

/// First cells of tables, without their backticks.
fn cells(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next())
}

/// Names of series that the programs export.
fn series(page: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("| `rackferry_")) {
        let Some((name, row)) = line.split_once('`') else { continue };
        if row.starts_with(" | histogram |") {
            all.extend(OF_HISTOGRAMS.map(|end| format!("rackferry_{name}{end}")));
        } else {
            all.insert(format!("rackferry_{name}"));
        }
    }
    all
}

/// Names in an expression that have the prefix of our metrics.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    let separates = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    expression.split(separates).filter(|name| name.starts_with("rackferry_"))
}

/// Every text under a key, however deep.
fn texts(value: &Value, key: &str) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(|value| texts(value, key)).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(text) if name == key => vec![text.clone()],
                other => texts(other, key),
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| `rackferry_a_total` | counter | |\n| `rackferry_b_seconds` | histogram | |\n\
                        | `RackferryA` | it is so |\n";

    fn rules(expr: &str) -> String {
        format!(
            "groups:\n  - name: g\n    rules:\n      - alert: RackferryA\n        expr: {expr}\n"
        )
    }

    fn dashboard(expr: &str) -> String {
        format!(r#"{{"panels":[{{"targets":[{{"expr":"{expr}"}}]}}]}}"#)
    }

    #[test]
    fn ours_fit() {
        let read = |path: &str| std::fs::read_to_string(crate::run::root().join(path)).unwrap();
        let found = differences(&read("docs/operations.md"), &read(DASHBOARD), &read(RULES));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn what_no_program_exports_is_found() {
        let good = "rate(rackferry_a_total[5m]) / rackferry_b_seconds_bucket{le='1'}";
        let fits = differences(PAGE, &dashboard(good), &rules(good));
        assert_eq!(fits, Vec::<String>::new());
        let found = differences(PAGE, &dashboard("rackferry_c"), &rules("rackferry_b_seconds"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("rackferry_c") && found[1].contains("rackferry_b_seconds"));
        assert_eq!(differences(PAGE, "{}", &rules(good)).len(), 1);
        assert_eq!(differences(PAGE, "{", "").len(), 1);
    }

    #[test]
    fn an_alert_without_a_row_is_found() {
        let renamed = rules("rackferry_a_total").replace("RackferryA", "RackferryB");
        assert_eq!(differences(PAGE, &dashboard("rackferry_a_total"), &renamed).len(), 2);
    }
}
