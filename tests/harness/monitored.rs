//! The files in `conf/` by which others watch a daemon, and the metrics that they name.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::Value;

/// Of `linkspan status --json NAME`.
pub fn schema() -> Validator {
    let schema: Value = serde_json::from_str(include_str!("../../conf/status.schema.json")).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{error}"));
    jsonschema::draft202012::new(&schema).unwrap_or_else(|error| panic!("{error}"))
}

/// The names of the samples on a page of metrics.
pub fn exported(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// The names of our metrics in any text.
pub fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("linkspan_")).map(str::to_owned).collect()
}

/// Every expression of the dashboard, with values for Grafana's own variables.
pub fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(include_str!("../../conf/grafana/linkspan.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let expressions = targets.chain(annotations).map(|target| target["expr"].as_str().unwrap());
    let fill =
        |text: &str| text.replace("$__rate_interval", "10s").replace("$interface", ".*").replace("$connection", ".*");
    expressions.map(fill).collect()
}
