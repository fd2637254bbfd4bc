//! What is wrong with a file, where, and what would be right; printed the way a compiler does.

use std::fmt;

/// Where in a file; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One thing to repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the caller called it.
    pub file: String,
    /// Where; none when it is about the file as a whole.
    pub place: Option<Place>,
    /// What is wrong and, in parentheses, what would be right.
    pub message: String,
    /// The line it is about; none when there is nothing to show or it holds a secret.
    pub(in crate::config) excerpt: Option<Excerpt>,
    /// A file to start from, where the whole of this one is wanting.
    pub(in crate::config) example: Option<&'static str>,
}

/// A line of the file and the mark under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Excerpt {
    pub(in crate::config) line: String,
    pub(in crate::config) mark: String,
}

impl Problem {
    /// The same of a text that was never written: the line itself instead of its number. One line.
    #[must_use]
    pub fn of_a_draft(&self) -> String {
        let line = self.excerpt.as_ref().map(|excerpt| format!("; it would become the line: {}", excerpt.line.trim()));
        format!("{}{}", self.message, line.unwrap_or_default())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            None => write!(f, "{}: {}", self.file, self.message)?,
            Some(Place { line, column }) => write!(f, "{}:{line}:{column}: {}", self.file, self.message)?,
        }
        if let (Some(Place { line, .. }), Some(excerpt)) = (self.place, &self.excerpt) {
            write!(f, "\n{line:>5} | {}\n      | {}", excerpt.line, excerpt.mark)?;
        }
        let example = self.example.unwrap_or_default().lines();
        example.into_iter().try_for_each(|line| write!(f, "\n        {line}"))
    }
}

/// All that is wrong with a file, in its order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Problems, if there are any.
    pub(in crate::config) fn some(list: Vec<Problem>) -> Option<Self> {
        (!list.is_empty()).then_some(Self(list))
    }

    /// A single one.
    pub(in crate::config) fn single(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// A single one, about the file as a whole.
    pub(in crate::config) fn whole_file(file: &str, wrong: &Wrong) -> Self {
        let (file, message) = (file.to_owned(), wrong.to_string());
        Self::single(Problem { file, place: None, message, excerpt: None, example: wrong.example })
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// What one value is, and what it should be; [`super::report::Report`] makes a [`Problem`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Wrong {
    pub(in crate::config) what: String,
    pub(in crate::config) remedy: String,
    pub(in crate::config) example: Option<&'static str>,
}

impl Wrong {
    pub(in crate::config) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into(), example: None }
    }

    /// The same, with a file to start from.
    pub(in crate::config) fn with_example(self, example: &'static str) -> Self {
        Self { example: Some(example), ..self }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.remedy)
    }
}
