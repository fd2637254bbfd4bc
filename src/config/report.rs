//! Collects problems while a text is read, and turns byte offsets into lines and columns.

use std::collections::HashSet;
use std::ops::Range;

use super::problem::{Excerpt, Place, Problem, Problems, Wrong};
use super::value;

/// Beyond this many the rest is noise, or an attack on whoever reads it.
const MOST: usize = 1_000;
/// Characters of a source line that are shown.
const SHOWN: usize = 110;
/// Characters shown before the mark when a line is longer than that.
const BEFORE: usize = 40;

/// The problems found so far in one text.
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
    /// From this byte on, what the text seems to say may stand in another place than it seems.
    trusted_to: usize,
    broken_lines: HashSet<usize>,
    found: Vec<Problem>,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let ends = text.match_indices('\n').map(|(offset, _)| offset + 1);
        let line_starts = std::iter::once(0).chain(ends).collect();
        let (broken_lines, found) = (HashSet::new(), Vec::new());
        Self { file, text, line_starts, trusted_to: usize::MAX, broken_lines, found }
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// The file as a whole.
    pub(super) fn everywhere(&mut self, wrong: &Wrong) {
        let (file, message) = (self.file.to_owned(), wrong.to_string());
        self.found.push(Problem { file, place: None, message, excerpt: None, example: wrong.example });
    }

    /// A line is not TOML; what the recovering parser made of that line is not looked at.
    pub(super) fn syntax(&mut self, span: Range<usize>, wrong: &Wrong) {
        let line = self.line(span.start);
        if self.broken_lines.insert(line) {
            self.add(span, wrong.to_string(), wrong.example);
        }
    }

    /// A header or a list is broken: what follows is not looked at either.
    pub(super) fn distrust_from(&mut self, offset: usize) {
        self.trusted_to = self.trusted_to.min(offset);
    }

    /// A value is wrong.
    pub(super) fn value(&mut self, span: Range<usize>, key: &str, wrong: &Wrong) {
        if span.start < self.trusted_to && !self.broken_lines.contains(&self.line(span.start)) {
            self.add(span, format!("{}: {wrong}", value::bare(key)), wrong.example);
        }
    }

    /// Something is missing, unknown, or in the wrong section; while the text is not TOML, who knows.
    pub(super) fn shape(&mut self, span: Range<usize>, key: &str, wrong: &Wrong) {
        if self.broken_lines.is_empty() {
            self.value(span, key, wrong);
        }
    }

    /// The line of a byte of the text, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// All problems in the order of the text; none if there is none.
    pub(super) fn finish(mut self) -> Option<Problems> {
        self.found.sort_by_key(|problem| problem.place);
        Problems::some(self.found)
    }

    fn add(&mut self, span: Range<usize>, message: String, example: Option<&'static str>) {
        if self.found.len() < MOST {
            let (file, place) = (self.file.to_owned(), Some(self.place(span.start)));
            let excerpt = self.excerpt(span).filter(|_| example.is_none());
            self.found.push(Problem { file, place, message, excerpt, example });
        }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line(offset);
        let before = self.text.get(self.line_start(line)..offset).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }

    fn line_start(&self, line: usize) -> usize {
        self.line_starts.get(line - 1).copied().unwrap_or(self.text.len())
    }

    fn excerpt(&self, span: Range<usize>) -> Option<Excerpt> {
        let Place { line, column } = self.place(span.start);
        let start = self.line_start(line);
        let source = self.text.get(start..)?.lines().next()?;
        if source.trim().is_empty() || holds_key(source) {
            return None;
        }
        let end = span.end.min(start + source.len());
        let width = self.text.get(span.start..end).map_or(1, |marked| marked.chars().count().max(1));
        Some(clip(source, column - 1, width))
    }
}

/// The part of a line around the mark. Tabs become one blank, so that the mark stands where it should.
fn clip(source: &str, column: usize, width: usize) -> Excerpt {
    let length = source.chars().count();
    let from = if length > SHOWN { column.saturating_sub(BEFORE) } else { 0 };
    let line: String = source.chars().skip(from).take(SHOWN).map(printable).collect();
    let room = (SHOWN + from).saturating_sub(column).max(1);
    let mark = " ".repeat(column - from) + &"^".repeat(width.min(room));
    Excerpt { line: line.trim_end().to_owned(), mark }
}

fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// Whether a line may hold a private or preshared key, which must not reach a terminal or a log.
fn holds_key(line: &str) -> bool {
    let plain: String = line.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let named = plain.contains("privatekey") || plain.contains("presharedkey");
    let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    named && line.split(|c| !base64(c)).any(|run| run.len() >= 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let report = Report::new("f", "a\nöx\r\n");
        assert_eq!(report.place(0), Place { line: 1, column: 1 });
        assert_eq!(report.place(4), Place { line: 2, column: 2 });
        assert_eq!(report.place(7), Place { line: 3, column: 1 });
    }

    #[test]
    fn a_long_line_is_clipped_around_the_mark() {
        let source = "x".repeat(500) + "HERE" + &"y".repeat(500);
        let Excerpt { line, mark } = clip(&source, 500, 4);
        assert_eq!(line.chars().count(), SHOWN);
        assert_eq!(&line[mark.find('^').unwrap()..mark.len()], "HERE");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clip("a\t\u{1b}[2J", 0, 1).line, "a \u{fffd}[2J");
    }

    #[test]
    fn a_line_with_a_secret_is_not_shown() {
        let key = "k".repeat(43) + "=";
        assert!(holds_key(&format!("private_key = \"{key}\"")));
        assert!(holds_key(&format!("PresharedKey = {key}")));
        assert!(!holds_key(&format!("public_key = \"{key}\"")));
        assert!(!holds_key("private_key_file = \"/etc/linkspan/office.key\""));
    }
}
