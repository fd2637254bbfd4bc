//! Text that is not TOML: the parser's errors in an admin's words.

use std::ops::Range;

use toml::de::Error;

use super::SMALLEST;
use super::problem::Wrong;
use super::report::Report;
use super::value::{bare, quoted};

const OPEN_LIST: &str = "the list above it does not end";

/// Notes the errors of the recovering parser, one per line.
pub(super) fn note(report: &mut Report<'_>, errors: &[Error]) {
    let text = report.text();
    if !errors.is_empty() && is_wg_quick(text) {
        report.distrust_from(0);
        let wrong = Wrong::new("this is a file of wg-quick", "write it anew, from the one below");
        return report.syntax(0..0, &wrong.with_example(SMALLEST));
    }
    let mut spans: Vec<(Range<usize>, &Error)> = errors.iter().map(|e| (e.span().unwrap_or(0..0), e)).collect();
    spans.sort_by_key(|(span, _)| span.start);
    for (span, error) in spans {
        let wrong = explain(text, &span, error.message());
        let open_list = wrong.what == OPEN_LIST;
        if open_list || is_header(text, span.start) && error.message() != "duplicate key" {
            report.distrust_from(span.start);
        }
        report.syntax(span, &wrong);
        if open_list {
            // Everything that follows is read as a value of that list.
            break;
        }
    }
}

fn is_wg_quick(text: &str) -> bool {
    text.lines().any(|line| matches!(line.trim(), "[Interface]" | "[Peer]"))
}

/// What stands before and after a byte on its line.
fn line_around(text: &str, at: usize) -> (&str, &str) {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    (before.rsplit('\n').next().unwrap_or_default().trim_start(), after.lines().next().unwrap_or_default())
}

fn is_header(text: &str, at: usize) -> bool {
    line_around(text, at).0.starts_with('[')
}

fn explain(text: &str, span: &Range<usize>, message: &str) -> Wrong {
    let found = text.get(span.clone()).unwrap_or_default();
    let (before, after) = line_around(text, span.start);
    let is = |start: &str| message.starts_with(start);
    if is("string values must be quoted") {
        unquoted(found, after)
    } else if is("duplicate key") {
        let remedy = match found {
            "connection" => "write [[connection]] each time",
            "tunnel" => "write [[connection.tunnel]] each time",
            _ if before.starts_with('[') => "keep one, with the keys of both",
            _ => "keep one",
        };
        Wrong::new(format!("{} is written twice", bare(found)), remedy)
    } else if is("invalid basic string") || is("invalid literal string") {
        Wrong::new("text without its closing quote", "end it with the quote it began with, on the same line")
    } else if is("invalid float") || is("invalid integer") || is("unexpected leading zero") {
        Wrong::new("not a number", "a text belongs in quotes; a number has digits only and no zero in front")
    } else if is("invalid boolean") {
        Wrong::new("neither true nor false", "write true or false, in small letters")
    } else if is("key with no value") && after.contains('=') {
        Wrong::new("a key of several words", "write key = value, the key in one word")
    } else if is("key with no value") {
        Wrong::new("no value", "write key = value")
    } else if is("invalid unquoted key") && found == ":" {
        Wrong::new("a colon where = belongs", "write key = value")
    } else if is("unclosed table") || is("unclosed array table") {
        Wrong::new("brackets that do not close", "write [interface], [[connection]] or [[connection.tunnel]]")
    } else if is("missing comma") && !before.is_empty() {
        Wrong::new("a list that goes on without a comma", "separate its values by commas and end it with ]")
    } else if is("missing comma") || is("unclosed array") {
        Wrong::new(OPEN_LIST, "end it with ], and separate its values by commas")
    } else if is("missing escaped value") {
        Wrong::new("a backslash that stands for nothing", r"write \\ for a backslash")
    } else {
        Wrong::new(message.replace('`', "'"), "each line is: key = value")
    }
}

/// A value without quotes; the remedy repeats the rest of the line with them.
fn unquoted(found: &str, rest: &str) -> Wrong {
    if found.trim().is_empty() {
        return Wrong::new("no value", "write key = value");
    }
    if found.contains(['“', '”', '„', '‘', '’', '«', '»']) {
        return Wrong::new("a word processor's quotes", "write straight ones: \"");
    }
    let value = rest.split(['#', ',', ']']).next().unwrap_or_default().trim();
    // What is as long as a key may be one, and is not repeated.
    let plain = !value.contains(['"', '\'', '\\', '=']) && value.len() < 40;
    let remedy = if plain { format!("write {}", quoted(value)) } else { "put it in double quotes".to_owned() };
    Wrong::new("text without quotes", remedy)
}
